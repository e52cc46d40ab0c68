#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Linux 6.18, `ip route replace` (NLM_F_REPLACE) with iproute2 6.1.0.
#
# Seen: the protocol of a route (who has made it) keeps nobody from replacing it: a route of protocol 200 takes the place of one of protocol
# 201 with the same prefix and metric. With several of them the first goes, even where a later one is of protocol 200 itself; that one stays.
# `ip route del … protocol 200` leaves routes of 201 alone. IPv4 and IPv6 alike.
# Why it matters: a daemon that marks its routes with a protocol of its own, and sets them by "replace", ends another's without an error, and
# when it deletes its route nothing comes back.
# What to do: add a new route with NLM_F_CREATE | NLM_F_EXCL (`ip route add`), and where one exists look whose it is before.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

echo "kernel $(uname -r)"
cat > "$work/try.sh" << 'END'
set -euo pipefail
for n in 1 2; do
	ip link add name "a$n" type veth peer name "b$n"
	ip link set dev "a$n" up
	ip link set dev "b$n" up
done
routes() { ip "$1" route show "$2" | sed -nE 's/.* dev ([ab][12]) proto ([0-9]+).*/\1 of \2/p' | paste -sd ',' | grep . || echo none; }
for prefix in 10.7.0.0/24 fd07::/64; do
	family=-4
	[ "$prefix" = 10.7.0.0/24 ] || family=-6
	ip "$family" route add "$prefix" dev a1 proto 201
	ip "$family" route replace "$prefix" dev a2 proto 200
	routes "$family" "$prefix"
	ip "$family" route del "$prefix" proto 201 2>&1 | sed 's/.*: //' || true
	ip "$family" route del "$prefix" proto 200
	routes "$family" "$prefix"
	ip "$family" route add "$prefix" dev a1 proto 201
	ip "$family" route append "$prefix" dev a2 proto 200
	ip "$family" route replace "$prefix" dev b2 proto 200
	routes "$family" "$prefix"
done
END
mapfile -t lines < <(unshare --net --mount --pid --fork --kill-child bash "$work/try.sh")

for family in IPv4 IPv6; do
	seen "$family: one of 201, replaced by one of 200" 'a2 of 200' "${lines[0]}"
	seen "$family: deletion of one of 201" 'No such process' "${lines[1]}"
	seen "$family: after the deletion of the one of 200" 'none' "${lines[2]}"
	seen "$family: a1 of 201, a2 of 200, replaced by b2 of 200" 'b2 of 200,a2 of 200' "${lines[3]}"
	lines=("${lines[@]:4}")
done
