#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fetches a kernel of Debian's from whichever release has it, whatever runs here, and unpacks it: nothing is installed, and root
# is not needed. The mirror is this machine's own, and what comes from it is signed by Debian.
#   tests/vm/kernel.sh NAME    NAME: 6.1 (Debian 12's), 6.12 (Debian 13's), newest, or a package's name; prints a folder with
#                              vmlinuz and lib/modules/VERSION in it, whatever form the packages have
# Without a network it is what was fetched last. (D4)
set -euo pipefail
cd "$(dirname "$0")/../.."
name=$1
store=$PWD/build/vm/kernel
apt=$PWD/tests/apt.sh
mkdir -p "$store/names"
exec 9> "$store/lock"
flock 9

fail() {
	echo "tests/vm: $*" >&2
	exit 1
}

# The first of these that there is.
existing() {
	local file
	for file in "$@"; do
		if [ -e "$file" ]; then
			echo "$file"
			return
		fi
	done
	fail "none of these is there: $*"
}

case $name in
6.1) suites=(bookworm) image=linux-image-cloud-amd64 ;;
6.12) suites=(trixie) image=linux-image-cloud-amd64 ;;
newest) suites=(sid) image=linux-image-cloud-amd64 ;;
linux-image-*) suites=(sid trixie bookworm) image=$name ;;
*) fail "no kernel is called $name: 6.1, 6.12, newest or the name of a Debian package, linux-image-…" ;;
esac

# The packages that an image consists of in that release, versions and all, one a line: itself or what it depends on.
packages_of() {
	bash "$apt" "$1" apt-cache depends --recurse -i "$2" 2> "$store/download.log" | grep -E '^linux-(image|binary|modules|base)-[0-9]' | sort
}

# Fetches what is not there yet; names the folder after the image.
fetch() {
	local suite packages folder
	for suite in "${suites[@]}"; do
		mapfile -t packages < <(packages_of "$suite" "$image")
		[ ${#packages[@]} -gt 0 ] || continue
		folder=$store/$(printf '%s\n' "${packages[@]}" | grep '^linux-image-')
		if [ ! -e "$folder/done" ]; then
			rm -rf "$folder"
			mkdir -p "$folder"
			(cd "$folder" && bash "$apt" "$suite" apt-get -qq download "${packages[@]}") > "$store/download.log" 2>&1 || continue
			unpack "$folder"
		fi
		ln -sfn "$folder" "$store/names/$name"
		return
	done
}

# Debian 12 has /boot and /lib/modules, Debian 13 /usr/lib/modules, and later packages keep vmlinuz there, too.
unpack() {
	local package version
	for package in "$1"/*.deb; do
		dpkg -x "$package" "$1/tree"
	done
	mkdir -p "$1/lib"
	mv "$(existing "$1"/tree/{usr/,}lib/modules)" "$1/lib/modules"
	version=$(ls "$1/lib/modules")
	mv "$(existing "$1/tree/boot/vmlinuz-$version" "$1/lib/modules/$version/vmlinuz")" "$1/vmlinuz"
	depmod -b "$1" "$version"
	rm -rf "$1/tree" "$1"/*.deb
	touch "$1/done"
}

fetch
[ -e "$store/names/$name/done" ] || fail "no kernel $name: $image could not be downloaded, and none is in $store; $(cat "$store/download.log" 2> /dev/null)"
readlink -f "$store/names/$name"
