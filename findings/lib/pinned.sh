# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# For the scripts of this directory: a temporary directory $work, pinned packages unpacked below $root, and comparisons.
set -euo pipefail

work=$(mktemp -d)
root=$work/root
mkdir -p "$root"
trap 'rm -rf "$work"' EXIT

# unpack PACKAGE=VERSION…: downloads the packages and unpacks them below $root; nothing of the machine's is changed.
unpack() {
	local package
	for package in "$@"; do
		if ! (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" > download.log 2>&1); then
			cat "$work/download.log" >&2
			echo "the package $package cannot be had" >&2
			exit 1
		fi
	done
	for package in "$work"/*.deb; do
		dpkg-deb -x "$package" "$root"
		rm "$package"
	done
}

# compile SOURCE PROGRAM [FLAG…]: with the headers and libraries below $root first.
compile() {
	local source=$1 program=$2 libraries=$root/usr/lib/x86_64-linux-gnu
	shift 2
	gcc -std=gnu17 -O1 -o "$program" "$source" -I"$root/usr/include" -L"$libraries" -Wl,-rpath,"$libraries" "$@"
}

# seen WHAT EXPECTED GOT: prints what was seen; another than expected ends the script.
seen() {
	printf '%s: %s\n' "$1" "$3"
	if [ "$2" != "$3" ]; then
		printf 'changed: %s was: %s\n' "$1" "$2" >&2
		exit 1
	fi
}
