#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# nftables 1.0.6 (Debian 12, 1.0.6-2+deb12u2), sets with "flags interval; auto-merge".
#
# Seen: two adjacent prefixes that were added one after the other are one element from then on, and deleting one of them is an error,
# "element does not exist". Without auto-merge the same commands work.
# Why it matters: whoever keeps a set in step with a list of prefixes cannot take out what it has put in.
# What to do: no auto-merge in sets that a program maintains; overlapping prefixes are then refused, and the program must know them.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
nft=$root/usr/sbin/nft

# elements FLAGS COMMAND…: what the set has after the commands, one after the other, in a network namespace of its own.
elements() {
	# shellcheck disable=SC2016
	unshare --net bash -c '
		nft=$1 flags=$2; shift 2
		"$nft" "add table inet t; add set inet t s { type ipv4_addr; $flags }"
		for command in "$@"; do "$nft" "$command" 2>&1 | sed -n "s/^Error: //p"; done
		"$nft" list set inet t s | sed -n "s/^[[:space:]]*elements = //p"' - "$nft" "$@" | paste -sd ';'
}

first='add element inet t s { 10.0.0.0/25 }'
second='add element inet t s { 10.0.0.128/25 }'
gone='delete element inet t s { 10.0.0.0/25 }'
seen 'added' '{ 10.0.0.0/24 }' "$(elements 'flags interval; auto-merge;' "$first" "$second")"
seen 'deleted' 'element does not exist;{ 10.0.0.0/24 }' "$(elements 'flags interval; auto-merge;' "$first" "$second" "$gone")"
seen 'without auto-merge' '{ 10.0.0.128/25 }' "$(elements 'flags interval;' "$first" "$second" "$gone")"
