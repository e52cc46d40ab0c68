#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Writes a C header with the given SQL migrations (NNNN_name.sql) as one table in their order.
set -euo pipefail
twice=$(printf '%s\n' "${@##*/}" | cut -d_ -f1 | sort | uniq -d)
if [ -n "$twice" ]; then
	echo "api/store/migrations: two have the number $twice: the second would never be applied" >&2
	exit 1
fi
index=0
for file in "$@"; do
	printf 'static const char migration_text_%d[] = {' "$index"
	od -An -v -tx1 "$file" | sed -E 's/ ([0-9a-f]{2})/0x\1,/g'
	printf '0x00};\n'
	index=$((index + 1))
done
echo 'static const struct migration embedded_migrations[] = {'
index=0
for file in "$@"; do
	name=$(basename "$file" .sql)
	printf '\t{%d, "%s", migration_text_%d},\n' "$((10#${name%%_*}))" "$name" "$index"
	index=$((index + 1))
done
echo '};'
