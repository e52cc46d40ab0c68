#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# libnl 3.7.0 (Debian 12, 3.7.0-0.2+b1), nl_addr_parse() with AF_UNSPEC.
#
# Seen: "10.1" is a DECnet address (area 10, node 1), and so is "010.1.1.1", whose rest is dropped. A prefix length may be any number:
# "/33" of an IPv4 address is taken, "/-1" is 4294967295, and what stands behind the digits is not looked at ("/24abc").
# Why it matters: a mistyped IPv4 address of a peer becomes an address of another family with return value 0, where an error is expected.
# What to do: give the family, check the length against the family's, or parse with inet_pton().
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack libnl-3-200=3.7.0-0.2+b1 libnl-3-dev=3.7.0-0.2+b1
cat > "$work/parse.c" << 'END'
#include <netlink/addr.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	struct nl_addr *address;
	char text[128];
	int r = nl_addr_parse(argc > 1 ? argv[1] : "", AF_UNSPEC, &address);

	if (r < 0)
		printf("error %d\n", r);
	else
		printf("family %d, prefix length %u, %s\n", nl_addr_get_family(address),
		       nl_addr_get_prefixlen(address), nl_addr2str(address, text, sizeof(text)));
	return 0;
}
END
compile "$work/parse.c" "$work/parse" -I"$root/usr/include/libnl3" -lnl-3

seen '10.1.2.3/24' 'family 2, prefix length 24, 10.1.2.3/24' "$("$work/parse" 10.1.2.3/24)"
seen '10.1' 'family 12, prefix length 16, 10.1' "$("$work/parse" 10.1)"
seen '010.1.1.1' 'family 12, prefix length 16, 10.1' "$("$work/parse" 010.1.1.1)"
seen '10.1.2.3/33' 'family 2, prefix length 33, 10.1.2.3/33' "$("$work/parse" 10.1.2.3/33)"
seen '10.1.2.3/-1' 'family 2, prefix length 4294967295, 10.1.2.3/4294967295' "$("$work/parse" 10.1.2.3/-1)"
seen '10.1.2.3/24abc' 'family 2, prefix length 24, 10.1.2.3/24' "$("$work/parse" 10.1.2.3/24abc)"
