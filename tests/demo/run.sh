#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The main job, end to end, in an envelope of namespaces. Usage: run.sh [RESULT.json]
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
	echo "make demo: needs root, for network namespaces and BPF: run 'sudo make demo'" >&2
	exit 1
fi
exec tests/envelope.sh /usr/bin/python3 -u tests/demo/scenario.py --bin "${WIRETOLL_BIN:-build/bin}" \
	--result "${1:-build/demo.json}"
