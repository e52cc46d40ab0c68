#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# jansson 2.14 (Debian 12 and 13, 2.14-2), json_unpack().
#
# Seen: the format "i" stores the low 32 bits of a JSON integer of any size and returns 0, also in strict mode: 4294967297 becomes 1,
# 2147483648 becomes negative. A type that does not fit ("b" of the number 1) is an error; a value that does not fit is none.
# Why it matters: a counter or port that json_unpack() has accepted may be another number.
# What to do: unpack with "I" (json_int_t, 64 bits) and check the range.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack libjansson4=2.14-2 libjansson-dev=2.14-2
cat > "$work/unpack.c" << 'END'
#include <jansson.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	json_t *object = json_loads(argc > 1 ? argv[1] : "", 0, NULL);
	int number = 0;
	int r = json_unpack_ex(object, NULL, JSON_STRICT, "{s:i}", "n", &number);

	printf("returns %d, n is %d\n", r, number);
	json_decref(object);
	return 0;
}
END
compile "$work/unpack.c" "$work/unpack" -ljansson

seen '{"n": 7}' 'returns 0, n is 7' "$("$work/unpack" '{"n": 7}')"
seen '{"n": 4294967297}' 'returns 0, n is 1' "$("$work/unpack" '{"n": 4294967297}')"
seen '{"n": 2147483648}' 'returns 0, n is -2147483648' "$("$work/unpack" '{"n": 2147483648}')"
seen '{"n": "7"}' 'returns -1, n is 0' "$("$work/unpack" '{"n": "7"}')"
