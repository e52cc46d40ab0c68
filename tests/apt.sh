#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs a command for which apt knows one release of Debian and nothing else, whichever runs here. The mirror is this machine's, the
# lists, of at most a day's age, are in build/apt and signed by Debian. Installing is only simulated, and root is not needed.
#   tests/apt.sh RELEASE COMMAND [ARGUMENT…]
# Without a network the lists that were fetched last serve; status 3 when there are none. (D1, D4)
set -euo pipefail
release=$1
folder=$(readlink -f "$(dirname "$0")/..")/build/apt/$release
shift

fail() {
	echo "tests/apt.sh: $*" >&2
	exit 3
}

# mirror LABEL SUITE: where this machine has Debian's own packages (Debian, Debian-Security) from. Where lists have never been fetched
# apt does not know what a source is, only that this machine's release has a suite of that name there.
# shellcheck disable=SC2016 # apt puts it in
mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Origin: Debian' "Label: $1")
	if [ -z "$uri" ]; then
		uri=$(apt-get -q -o Dir::State::Lists="$folder/lists" --print-uris update | sed -n "s|^'\(.*\)dists/$2/InRelease'.*|\1|p")
	fi
	head -n 1 <<< "$uri"
}

sources() {
	local own debian security keyring
	own=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
	debian=$(mirror Debian "$own")
	security=$(mirror Debian-Security "$own-security")
	[ -n "$debian" ] || fail "apt has no mirror of Debian: /etc/apt/sources.list.d"
	for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
		[ ! -e "$keyring" ] || break
	done
	echo "deb [arch=amd64 target=Packages signed-by=$keyring] $debian $release main"
	if [ "$release" != sid ] && [ -n "$security" ]; then
		echo "deb [arch=amd64 target=Packages signed-by=$keyring] $security $release-security main"
	fi
}

# What the machine's own configuration says of proxies and the like holds, too.
configuration() {
	[ -z "${APT_CONFIG:-}" ] || echo "#include \"$APT_CONFIG\";"
	cat <<- END
		Dir::Etc::SourceList "$folder/sources.list";
		Dir::Etc::SourceParts "/dev/null";
		Dir::Etc::Preferences "/dev/null";
		Dir::Etc::PreferencesParts "/dev/null";
		Dir::State "$folder";
		Dir::State::Status "$folder/dpkg/status";
		Dir::Cache "$folder/cache";
		APT::Get::Simulate "true";
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::Retries "3";
	END
}

mkdir -p "$folder"/{lists/partial,cache/archives/partial,dpkg}
exec 9> "$folder/updating"
flock 9
if [ -z "$(find "$folder/updated" -mtime -1 2> /dev/null)" ]; then
	sources > "$folder/sources.list"
	configuration > "$folder/apt.conf"
	: > "$folder/dpkg/status" # nothing is installed
	if APT_CONFIG=$folder/apt.conf apt-get -qq update --error-on=any > "$folder/update.log" 2>&1; then
		touch "$folder/updated"
	fi
	[ -e "$folder/updated" ] || fail "no lists of $release: $(cat "$folder/update.log")"
fi
exec 9>&-
exec env APT_CONFIG="$folder/apt.conf" DPKG_ADMINDIR="$folder/dpkg" "$@"
