#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# wireguard-tools 1.0.20210914 (Debian 12, 1.0.20210914-1+b1) with wireguard-go 0.0.20220316 (Debian 12, 0.0.20220316-1+b4), `wg syncconf`.
#
# Seen: what a peer's section no longer has stays on the device: preshared key, persistent keepalive, endpoint. What the interface's section
# does not have is taken away: without ListenPort each `wg syncconf` moves the device to another random port, even with the same file.
# Why it matters: after "PresharedKey" was taken out of the file on one side, that side still uses it and the tunnel is dead; and the peers of
# a device without ListenPort lose it at each reload, though the command exists so as not to disturb sessions.
# What to do: name ListenPort, and remove a preshared key with `wg set … preshared-key /dev/null`.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack wireguard-tools=1.0.20210914-1+b1 wireguard-go=0.0.20220316-1+b4
cat > "$work/try.sh" << 'END'
set -euo pipefail
mount -t tmpfs tmpfs /run
sysctl -qw net.ipv6.conf.default.addr_gen_mode=1
wireguard-go -f wgfinding > "$work/go.log" 2>&1 &
for _ in {1..100}; do wg show wgfinding > "$work/show.log" 2>&1 && break; sleep 0.1; done
key=$(wg genkey) peer=$(wg genkey | wg pubkey) secret=$(wg genpsk)
printf '[Interface]\nPrivateKey = %s\n[Peer]\nPublicKey = %s\nAllowedIPs = 10.0.0.1/32\n' "$key" "$peer" > "$work/short.conf"
cp "$work/short.conf" "$work/long.conf"
printf 'PresharedKey = %s\nPersistentKeepalive = 25\nEndpoint = 127.0.0.1:9\n' "$secret" >> "$work/long.conf"
ports() { wg show wgfinding listen-port; }
peer() { wg show wgfinding dump | awk -v secret="$secret" 'NR == 2 {print ($2 == secret ? "preshared key" : $2), "endpoint " $3, "keepalive " $8}'; }
wg setconf wgfinding "$work/long.conf"
wg syncconf wgfinding "$work/short.conf"
peer
for _ in {1..4}; do wg syncconf wgfinding "$work/short.conf"; ports; done | sort -u | wc -l
wg setconf wgfinding "$work/short.conf"
peer
kill %1
END
export work PATH="$root/usr/bin:$PATH"
mapfile -t lines < <(umask 077; unshare --net --mount --pid --fork --kill-child bash "$work/try.sh")

seen 'synced' 'preshared key endpoint 127.0.0.1:9 keepalive 25' "${lines[0]}"
[ "${lines[1]}" = 1 ] || lines[1]='more than one'
seen 'ports of four syncs' 'more than one' "${lines[1]}"
seen 'set' '(none) endpoint (none) keepalive off' "${lines[2]}"
