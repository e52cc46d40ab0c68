#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes what the virtual machine boots: a kernel of Debian's and an initramfs with the programs named, their libraries, the tools
# they run and the modules they need. Root is not needed.
#   tests/vm/image.sh FOLDER KERNEL PROGRAM…    leaves FOLDER/vmlinuz and FOLDER/initramfs; KERNEL as kernel.sh takes it; VM_INIT
#                                               names another init than init.sh, VM_MODULES more modules
set -euo pipefail
source=$(dirname "$(readlink -f "$0")")
folder=$(readlink -f "$1")
kernel=$("$source/kernel.sh" "$2")
version=$(ls "$kernel/lib/modules")
shift 2
root=$folder/root

modules=(wireguard tun veth sch_ingress cls_bpf cls_u32 act_gact nf_tables nft_chain_nat nft_masq nft_ct nft_fib_inet
	nft_limit nft_reject_inet nf_conntrack_netlink ipip sit ip6_tunnel ip_gre ip6_gre vxlan geneve fou fou6 sctp esp4 esp4_offload
	xfrm_user dummy)
absorbed=(nft_objref authenc crypto_null) # no module of their own in some kernels
read -ra more_modules <<< "${VM_MODULES:-}"
modules+=("${more_modules[@]}")
applets=(awk cat chmod cut dmesg echo env expr false grep head kill ln ls mkdir mknod modprobe mount paste pidof poweroff ps rm
	rmdir sed seq sleep sort stty tail test timeout tr true umount uname wc)
tools=(dash ethtool ip nft ping sysctl tc wg)

fail() {
	echo "tests/vm: $*" >&2
	exit 1
}

# A program with what it is linked to.
add_program() {
	local file library
	file=$(command -v "$1") || file=/usr/sbin/$1
	[ -e "$file" ] || fail "$1 is not installed: run 'make deps'"
	cp -L "$file" "$root/bin/$(basename "$1")"
	while read -r library; do
		mkdir -p "$root$(dirname "$library")"
		cp -nL "$library" "$root$library"
	done < <({ ldd "$file" 2>/dev/null || true; } | awk '/=> \// {print $3} /^[ \t]*\/.*ld-linux/ {print $1}')
}

# A module with those it needs; whether the kernel has it, be it built in.
add_module() {
	local file files target
	files=$(modprobe -d "$kernel" -S "$version" --show-depends "$1" 2> /dev/null) || return 1
	while read -r _ file _; do
		[ -e "$file" ] || continue # built in
		target=$root/lib/modules/$version/${file#*/"$version"/}
		mkdir -p "$(dirname "$target")"
		case $file in # busybox's modprobe takes them plain
		*.xz) xz -dc "$file" > "${target%.xz}" ;;
		*) cp "$file" "$target" ;;
		esac
	done <<< "$files"
	echo "$1" >> "$root/etc/modules"
}

rm -rf "$root"
mkdir -p "$root"/{bin,tests,proc,sys,dev,run,root,tmp,etc,var,lib64,usr/lib} "$root/lib"
ln -s ../run "$root/var/run"
ln -s bin "$root/sbin"
ln -s ../bin "$root/usr/bin"
ln -s ../bin "$root/usr/sbin"

add_program busybox
for applet in "${applets[@]}"; do
	ln -s busybox "$root/bin/$applet"
done
for tool in "${tools[@]}"; do
	add_program "$tool"
done
ln -s dash "$root/bin/sh"
for program in "$@"; do
	add_program "$program"
	mkdir -p "$root/tests/$(basename "$(dirname "$program")")"
	mv "$root/bin/$(basename "$program")" "$root/tests/$(basename "$(dirname "$program")")/"
done
for module in "${modules[@]}"; do
	add_module "$module" || fail "the kernel $version has no module $module"
done
for module in "${absorbed[@]}"; do
	add_module "$module" || true
done
cp "$kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
echo "root:x:0:0:root:/root:/bin/sh" > "$root/etc/passwd"
echo "root:x:0:" > "$root/etc/group"
install -m 0755 "$source/${VM_INIT:-init.sh}" "$root/init"

cp "$kernel/vmlinuz" "$folder/vmlinuz"
(cd "$root" && find . -print0 | cpio -o -0 -H newc -R 0:0 --quiet | zstd -q -1 > "$folder/initramfs")
