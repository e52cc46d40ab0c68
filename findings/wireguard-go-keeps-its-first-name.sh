#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# wireguard-go 0.0.20220316 (Debian 12, 0.0.20220316-1+b4) with wireguard-tools 1.0.20210914 (Debian 12, 1.0.20210914-1+b1), renamed interfaces.
#
# Seen: after `ip link set A name B` the device answers to the name that is gone: `wg show A` works, `wg show B` does not, and `wg show
# interfaces` lists A. If another device is then named A, what `wg set A …` says goes to B.
# Why it matters: peers are added to, or read from, another interface than the one named.
# What to do: rename no interface of wireguard-go; who must, remembers its first name, with the interface's index, and asks by that.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack wireguard-tools=1.0.20210914-1+b1 wireguard-go=0.0.20220316-1+b4
cat > "$work/try.sh" << 'END'
mount -t tmpfs tmpfs /run
sysctl -qw net.ipv6.conf.default.addr_gen_mode=1
start() {
	wireguard-go -f "$1" > "/run/$1.log" 2>&1 &
	for _ in {1..100}; do wg show "$1" > /run/show.log 2>&1 && break; sleep 0.1; done
}
answers() { if wg show "$1" listen-port > /run/show.log 2>&1; then echo "answers"; else echo "no answer"; fi; }
start wgfirst
start wgother
wg set wgfirst listen-port 51111
wg set wgother listen-port 52222
ip link set dev wgfirst name wgsecond
answers wgfirst
answers wgsecond
wg show interfaces | tr ' ' '\n' | sort | paste -sd ' '
ip link set dev wgother name wgfirst
wg show wgfirst listen-port
END
export work PATH="$root/usr/bin:$PATH"
mapfile -t lines < <(unshare --net --mount --pid --fork --kill-child bash "$work/try.sh")

seen 'wgfirst, now wgsecond, by its first name' 'answers' "${lines[0]}"
seen 'by its second name' 'no answer' "${lines[1]}"
seen 'wg show interfaces' 'wgfirst wgother' "${lines[2]}"
seen 'listen port of wgother (52222), now wgfirst' '51111' "${lines[3]}"
