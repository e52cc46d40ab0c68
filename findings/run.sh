#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs every finding and says which still hold.
set -euo pipefail
cd "$(dirname "$0")"
passed=0
failed=0
for script in *.sh; do
	[ "$script" != run.sh ] || continue
	echo "== $script"
	if bash "$script"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
