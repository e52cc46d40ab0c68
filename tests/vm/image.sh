#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes what the virtual machine boots: Debian's cloud kernel, fetched once and never installed, and an initramfs with the
# programs named, their libraries, the tools they run and the modules they need. Root is not needed.
#   tests/vm/image.sh FOLDER PROGRAM…    leaves FOLDER/vmlinuz and FOLDER/initramfs; VM_INIT names another init than init.sh,
#                                        VM_MODULES more modules
set -euo pipefail
source=$(dirname "$(readlink -f "$0")")
folder=$(readlink -f "$1")
shift
root=$folder/root

modules=(wireguard tun veth sch_ingress cls_bpf cls_u32 act_gact nf_tables nft_chain_nat nft_masq nft_ct nft_fib_inet
	nft_limit nft_objref nft_reject_inet nf_conntrack_netlink)
read -ra more_modules <<< "${VM_MODULES:-}"
modules+=("${more_modules[@]}")
applets=(awk cat chmod cut dmesg echo env expr false grep head kill ln ls mkdir mknod modprobe mount paste pidof poweroff ps rm
	rmdir sed seq sleep sort stty tail test timeout tr true umount uname wc)
tools=(dash ethtool ip nft ping sysctl tc wg)

fail() {
	echo "tests/vm: $*" >&2
	exit 1
}

# The newest kernel that this release has; without a network, the one that was fetched last.
fetch_kernel() {
	local package held=()
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends:/ {print $2; exit}')
	mkdir -p "$folder/kernel"
	held=("$folder"/kernel/"${package:-linux-image}"*.deb)
	if [ ! -e "${held[0]}" ] && [ -n "$package" ]; then
		(cd "$folder/kernel" && apt-get download -qq "$package" 2>"$folder/download.log") || true
	fi
	held=("$folder"/kernel/"${package:-linux-image}"*.deb)
	[ -e "${held[0]}" ] || held=("$folder"/kernel/*.deb)
	[ -e "${held[0]}" ] || fail "no kernel: linux-image-cloud-amd64 could not be downloaded and none is cached in $folder/kernel" \
		"$(cat "$folder/download.log" 2>/dev/null)"
	deb=${held[-1]}
}

unpack_kernel() {
	tree=$folder/kernel/$(basename "$deb" .deb)
	if [ ! -e "$tree/done" ]; then
		rm -rf "$tree"
		dpkg -x "$deb" "$tree" || {
			rm -f "$deb"
			fail "$deb is damaged and was removed: run again"
		}
		version=$(ls "$tree/lib/modules")
		depmod -b "$tree" "$version"
		touch "$tree/done"
	fi
	version=$(ls "$tree/lib/modules")
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

add_module() {
	local file target
	while read -r _ file _; do
		[ -e "$file" ] || continue # built in
		target=$root/lib/modules/$version/${file#*/"$version"/}
		mkdir -p "$(dirname "$target")"
		cp "$file" "$target"
	done < <(modprobe -d "$tree" -S "$version" --show-depends "$1") || fail "the kernel $version has no module $1"
}

rm -rf "$root"
mkdir -p "$root"/{bin,tests,proc,sys,dev,run,root,tmp,etc,var,lib64,usr/lib} "$root/lib"
ln -s ../run "$root/var/run"
ln -s bin "$root/sbin"
ln -s ../bin "$root/usr/bin"
ln -s ../bin "$root/usr/sbin"
fetch_kernel
unpack_kernel

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
	add_module "$module"
done
cp "$tree/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
echo "root:x:0:0:root:/root:/bin/sh" > "$root/etc/passwd"
echo "root:x:0:" > "$root/etc/group"
printf '%s\n' "${modules[@]}" > "$root/etc/modules"
install -m 0755 "$source/${VM_INIT:-init.sh}" "$root/init"

cp "$tree/boot/vmlinuz-$version" "$folder/vmlinuz"
(cd "$root" && find . -print0 | cpio -o -0 -H newc -R 0:0 --quiet | zstd -q -1 > "$folder/initramfs")
