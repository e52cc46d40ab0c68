#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# nftables 1.0.6 (Debian 12, 1.0.6-2+deb12u2), `nft -j list ruleset` and `nft -j -f`.
#
# Seen: JSON does not say that a table is dormant, what a set's elements have counted is read back as 0, comments of tables and chains are
# gone, and a chain of family netdev is listed without its device, so that nft refuses its own list. The text form keeps all of it.
# Why it matters: a ruleset that is saved and restored as JSON switches a dormant table on and begins counters anew, without an error.
# What to do: save and restore text (`nft list ruleset`, `nft -f`); read JSON, but do not take it for everything that is there.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu PATH="$root/usr/sbin:$PATH"
cat > "$work/rules" << 'END'
table ip t {
	flags dormant
	comment "spare"
	set s {
		type ipv4_addr
		counter
		elements = { 10.0.0.1 counter packets 5 bytes 700 }
	}
	chain c {
		comment "drops all"
		type filter hook input priority 0
		drop
	}
}
END
cat > "$work/netdev" << 'END'
table netdev t {
	chain c {
		type filter hook ingress device lo priority 0
	}
}
END

# restored FILE OPTION…: what is left of its rules after they were listed, flushed and read again with these options.
restored() {
	# shellcheck disable=SC2016
	unshare --net bash -c '
		rules=$1 list=$1.list; shift
		nft -f "$rules" && nft "$@" list ruleset > "$list" && nft flush ruleset
		nft "$@" -f "$list" 2>&1 | sed -n "s/.*Error: //p"
		nft list ruleset | grep -oE "dormant|comment.*|packets .* bytes [0-9]*|device .lo.| drop|[[:space:]]drop"' - "$work/$1" "${@:2}" |
		tr -d '\t' | paste -sd ';'
}

seen 'as text' 'dormant;comment "spare";packets 5 bytes 700;comment "drops all";drop' "$(restored rules -n)"
seen 'as JSON' 'packets 0 bytes 0;drop' "$(restored rules -j)"
seen 'netdev as text' 'device "lo"' "$(restored netdev -n)"
seen 'netdev as JSON' "Missing \`device' in this chain definition" "$(restored netdev -j)"
