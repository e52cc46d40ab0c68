#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes a bare root of a Debian release, clones what is committed into a home there that is closed to others, and runs the
# README's two commands in it; with SUITES only those suites of the tests. Results are copied to build/release/RELEASE.
#   tests/release.sh RELEASE [SUITE…]
# (D1, D2: packages and compilers are those of the release.)
set -euo pipefail
cd "$(dirname "$0")/.."

release=${1:-}
shift || true
if ! [[ $release =~ ^[a-z]+$ ]]; then
	echo "tests/release.sh: which release of Debian? make test-release RELEASE=trixie, or bookworm" >&2
	exit 2
fi
if [ "$(id -u)" != 0 ]; then
	echo "make test-release: needs root: run 'sudo make test-release RELEASE=$release'" >&2
	exit 1
fi
if ! command -v mmdebstrap > /dev/null; then
	apt-get install -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends mmdebstrap
fi
umask 022
results=$PWD/build/release/$release
root=$results/root
inside=
mkdir -p "$results"

# shellcheck disable=SC2317
clean_up() {
	[ -z "$inside" ] || kill -KILL "$inside" 2> /dev/null || true
	wait
	rm -rf --one-file-system "$root"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The release's sources by where this machine has its own from, and how it gets there.
sources() {
	local own uri suite component
	own=$(. /etc/os-release && echo "$VERSION_CODENAME")
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | while read -r uri suite component; do
		case $suite in
		"$own" | "$own-updates" | "$own-security")
			echo "deb $uri $release${suite#"$own"} $component"
			;;
		esac
	done | sort -u
}
ways() {
	apt-config dump --format '%f "%v";%n' Acquire | grep -E '^Acquire::(http|https|Check-|Retries)' || true
}

# Runs a command in namespaces of processes and mounts that end with this script, however it ends.
within() {
	local status=0
	setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc -- "$@" < /dev/null &
	inside=$!
	wait "$inside" || status=$?
	inside=
	return "$status"
}

rm -rf --one-file-system "$root"
rm -rf "$results"
mkdir -p "$results"
ways > "$results/apt.conf"
sources > "$results/sources.list"
if [ ! -s "$results/sources.list" ]; then # apt has never fetched its lists
	apt-get update -q
	sources > "$results/sources.list"
fi
echo "A bare root of $release …"
within mmdebstrap --quiet --variant=minbase --include=make --aptopt="$results/apt.conf" "$release" "$root" "$results/sources.list"
chmod 0700 "$root/root"
git clone --quiet --no-hardlinks . "$root/root/wiretoll"

declare -A ended=()
attempt() {
	local name=$1 status=0
	shift
	echo "$release: $name"
	within bash tests/release_enter.sh "$root" "$@" || status=$?
	ended[$name]=$status
}
if [ $# -gt 0 ]; then
	attempt "make deps" make deps
	attempt "tests/run.sh $*" bash tests/run.sh "$@"
else
	attempt "make demo" make demo
	attempt "make test" make test
fi
cp -r "$root/root/wiretoll/build/logs" "$results/" 2> /dev/null || true
cp "$root/root/wiretoll/build/demo.json" "$results/" 2> /dev/null || true

failed=0
for name in "${!ended[@]}"; do
	echo "$release: $name ended with ${ended[$name]}"
	[ "${ended[$name]}" = 0 ] || failed=1
done
exit "$failed"
