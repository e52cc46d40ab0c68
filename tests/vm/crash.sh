#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The gateway VM that loses power and the one that is rolled back, beside the real API. Needs root, for the client and PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
	echo "tests/vm: the gateway that loses power is left out: it needs root"
	exit 0
fi
temporary=build/vm-gateway/tmp
mkdir -p "$temporary"
exec 9> build/vm-gateway/lock
flock 9 # one machine at a time: they share the folder
trap 'rm -rf "$temporary"' EXIT
status=0
PYTHONDONTWRITEBYTECODE=1 timeout 1200 tests/envelope.sh /usr/bin/python3 -m pytest -q -s -p no:cacheprovider --basetemp="$PWD/$temporary" \
	tests/vm/test_crash.py 9>&- || status=$?
echo "$((status == 0)) passed, $((status != 0)) failed"
exit "$status"
