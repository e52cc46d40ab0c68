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

# mirror LABEL: where this machine has Debian's own packages (Debian, Debian-Security) from.
mirror() {
	local codename uri
	uri=$(indexes 'Origin: Debian' "Label: $1")
	if [ -z "$uri" ] && [ "$1" = Debian ]; then # its lists have never been fetched
		codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
		uri=$(indexes "Release: $codename")
	fi
	echo "$uri"
}

# shellcheck disable=SC2016 # apt puts it in
indexes() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' "$@" | awk 'NR == 1'
}

# apt SUITE COMMAND…: of that release alone, with lists of its own; what the machine has is not looked at.
apt() {
	local folder=$store/apt/$1 command=$2
	shift 2
	"$command" -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$folder" -o Dir::State::Status="$folder/status" \
		-o Dir::Cache="$folder/cache" -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# The lists of a release, at most a day old; false when there are none.
update_lists() {
	local suite=$1 folder=$store/apt/$1 debian security keyring=/usr/share/keyrings/debian-archive-keyring
	[ -z "$(find "$folder/updated" -mtime -1 2> /dev/null)" ] || return 0
	debian=$(mirror Debian)
	security=$(mirror Debian-Security)
	[ -n "$debian" ] || fail "apt has no mirror of Debian: /etc/apt/sources.list.d"
	keyring=$(existing "$keyring".gpg "$keyring".pgp)
	mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
	touch "$folder/status"
	echo "deb [arch=amd64 target=Packages signed-by=$keyring] $debian $suite main" > "$folder/sources.list"
	if [ "$suite" != sid ] && [ -n "$security" ]; then
		echo "deb [arch=amd64 target=Packages signed-by=$keyring] $security $suite-security main" >> "$folder/sources.list"
	fi
	if apt "$suite" apt-get update --error-on=any > "$store/download.log" 2>&1; then
		touch "$folder/updated"
	fi
	[ -e "$folder/updated" ]
}

# The packages that an image consists of in that release, versions and all, one a line: itself or what it depends on.
packages_of() {
	apt "$1" apt-cache depends --recurse -i "$2" 2> /dev/null | grep -E '^linux-(image|binary|modules|base)-[0-9]' | sort
}

# Fetches what is not there yet; names the folder after the image.
fetch() {
	local suite packages folder
	for suite in "${suites[@]}"; do
		update_lists "$suite" || continue
		mapfile -t packages < <(packages_of "$suite" "$image")
		[ ${#packages[@]} -gt 0 ] || continue
		folder=$store/$(printf '%s\n' "${packages[@]}" | grep '^linux-image-')
		if [ ! -e "$folder/done" ]; then
			rm -rf "$folder"
			mkdir -p "$folder"
			(cd "$folder" && apt "$suite" apt-get download "${packages[@]}") > "$store/download.log" 2>&1 || continue
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
