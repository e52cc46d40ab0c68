#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# House rules that a machine can check. Prints each offence as FILE:LINE and ends with status 1 if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

if ! git ls-files --error-unmatch tests/lint.sh > /dev/null 2>&1; then
	echo "lint: looks at the files that git knows; this is no clone of the repository" >&2
	exit 1
fi

# offence "what is wrong" PATTERN FILES…: no line of the files may match.
offence() {
	local what=$1 pattern=$2
	shift 2
	[ $# -gt 0 ] || return 0
	if grep -nE "$pattern" "$@" /dev/null; then
		echo "lint: $what" >&2
		failed=1
	fi
}

mapfile -t sources < <(git ls-files '*.c')
mapfile -t library < <(git ls-files 'userspace/base/*.c' 'userspace/meter/*.c' 'userspace/wg/*.c' 'userspace/net/*.c' \
	'userspace/journal/*.c' 'api/store/*.c' | grep -v '/log\.c$')
mapfile -t money < <(git ls-files 'api/*.c' 'api/*.h')
mapfile -t programs < <(git ls-files bpf)
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)

offence 'library code does not print or log: it returns -errno' '\b(printf|fprintf|perror|puts|log_(error|warning|info|debug))\(' "${library[@]}"
offence 'money is never a binary floating point number' '\b(float|double)\b' "${money[@]}"
offence 'no trace output on packet paths' 'bpf_printk' "${programs[@]}"
offence 'unbounded string functions' '\b(strcpy|strcat|sprintf|gets)\(' "${sources[@]}"

for file in $(git ls-files '*.c' '*.h' '*.sh' '*.sql' '*.py'); do
	if ! head -3 "$file" | grep -q 'SPDX-License-Identifier'; then
		echo "$file:1: no SPDX line"
		failed=1
	fi
done

# Every fault of tests/regressions.md has its id in the files that are named beside it.
while IFS=$'\t' read -r id file; do
	if ! grep -qwi -e "$id" -e "[a-z0-9_]*_${id}_[a-z0-9_]*" -e "${id}_[a-z0-9_]*" "tests/$file"; then
		echo "tests/regressions.md: $id is not in tests/$file"
		failed=1
	fi
done < <(awk -F '|' '$2 ~ /[A-Z][0-9]/ {gsub(/[ `]/, "", $2); n = split($4, files, ","); for (i = 1; i <= n; i++) {gsub(/[ `]/, "", files[i]); print $2 "\t" files[i]}}' tests/regressions.md)

shellcheck -x -P SCRIPTDIR -e SC1091 "${scripts[@]}" || failed=1
exit $failed
