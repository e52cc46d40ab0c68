#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every byte once, through everything that can break: ends with lines of figures, and status 1 if a byte was lost or doubled.
#   tests/soak/run.sh [short]    SEED=N repeats a run; the long form kills 2,000 times
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
	echo "make soak: needs root, for network namespaces and BPF: run 'sudo make soak'" >&2
	exit 1
fi
if [ "${1:-}" != short ]; then
	export SOAK_KILLS=2000 SOAK_REPORTS=2000 SOAK_LONG=1
fi
mkdir -p build/logs
export PYTHONDONTWRITEBYTECODE=1 SOAK_PROGRESS=3 SOAK_FIGURES=$PWD/build/logs/soak.txt
rm -f "$SOAK_FIGURES"
status=0
for file in tests/soak/test_*.py; do
	echo "$file" >&2
	log=build/logs/soak-$(basename "$file" .py).log
	tests/envelope.sh /usr/bin/python3 -m pytest -q -p no:cacheprovider "$file" 3>&2 > "$log" 2>&1 || {
		status=1
		cat "$log"
	}
	tail -n 1 "$log"
done
sed 's/^/soak: /' "$SOAK_FIGURES"
exit "$status"
