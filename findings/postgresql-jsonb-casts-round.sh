#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# PostgreSQL 15.20 (Debian 12, 15.20-0+deb12u1), from a number in jsonb to bigint.
#
# Seen: each way takes other numbers. A cast of the jsonb value rounds, half away from zero: 2.5 is 3, without an error. A cast of its text (->>)
# and jsonb_to_record() refuse 2.5, and 2.0 as well, though it is whole. 1e3 is 1000 to these two, because jsonb has written it so, but an
# error to json_to_record(), which reads the text as it came.
# Why it matters: a counter or an amount that is no whole number is stored as another; or a whole one, as some JSON writers put it, is refused.
# What to do: cast jsonb to numeric, check that it equals its trunc(), then cast that to bigint.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack postgresql-15=15.20-0+deb12u1 libpq5=15.20-0+deb12u1
chmod 755 "$work"
install -d -o nobody -m 700 "$work/data"
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu LC_ALL=C
as_nobody() {
	setpriv --reuid=nobody --regid=nogroup --clear-groups "$root/usr/lib/postgresql/15/bin/$1" "${@:2}"
}
cd /
as_nobody initdb -D "$work/data" -N -A trust -E UTF8 --locale=C > "$work/initdb.log"

# value EXPRESSION: what the server, in single-user mode, makes of it.
value() {
	echo "SELECT $1 AS value" | as_nobody postgres --single -D "$work/data" postgres 2>&1 |
		sed -n 's/.*value = "\(.*\)".*(typeid.*/\1/p; s/.* ERROR:  //p'
}

seen "cast of 2.5" 3 "$(value "('2.5'::jsonb)::bigint")"
seen "cast of a member" 3 "$(value "('{\"n\": 2.5}'::jsonb -> 'n')::bigint")"
seen "cast of its text" 'invalid input syntax for type bigint: "2.5"' "$(value "('{\"n\": 2.5}'::jsonb ->> 'n')::bigint")"
for number in 2.5 2.0 1e3; do
	for json in jsonb json; do
		case $json$number in
		jsonb1e3) expected=1000 ;;
		*) expected="invalid input syntax for type bigint: \"$number\"" ;;
		esac
		seen "${json}_to_record of $number" "$expected" "$(value "(SELECT n FROM ${json}_to_record('{\"n\": $number}') AS r(n bigint))")"
	done
done
