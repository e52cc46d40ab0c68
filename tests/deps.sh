#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs the Debian packages that building, testing and running need, and says which. Quick when all are there.
#   tests/deps.sh [--list]    --list: only names them, one a line, as the release that apt knows has them
set -euo pipefail

packages=(
	# building
	gcc libc6-dev make git pkg-config clang llvm bpftool clang-format shellcheck
	# libraries
	libbpf-dev libelf-dev zlib1g-dev libnl-3-dev libnl-genl-3-dev libnl-route-3-dev liburing-dev libpq-dev
	libjansson-dev libmicrohttpd-dev libgnutls28-dev libcurl4-openssl-dev libsodium-dev libseccomp-dev
	# running: the gateway and the control plane
	wireguard-go wireguard-tools nftables iproute2 procps util-linux postgresql
	# tests and the demo
	libcmocka-dev python3 python3-pytest python3-psycopg2 iputils-ping openssl spin conntrack systemd
	# the virtual machine, whose kernel is downloaded and not installed
	qemu-system-x86 busybox-static kmod cpio xz-utils zstd dash ethtool
)

# The sanitizers' libraries: gcc brings its own along, clang's are a package of its version, which the release decides. Nothing
# while apt knows no package clang.
clang_runtime() {
	{ apt-cache depends clang 2> /dev/null || true; } | sed -n 's/^ *Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p' | head -n 1
}

# Those of the packages that are not installed, one a line.
missing_of() {
	local installed
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2> /dev/null | sed -n 's/^installed //p') || true
	printf '%s\n' "$@" | grep -vxF -f <(echo "$installed") || true
}

runtime=$(clang_runtime)
if [ "${1:-}" = --list ]; then
	printf '%s\n' "${packages[@]}" ${runtime:+"$runtime"}
	exit
fi
mapfile -t missing < <(missing_of "${packages[@]}" ${runtime:+"$runtime"})
if [ ${#missing[@]} -eq 0 ] && [ -n "$runtime" ]; then
	exit 0
fi

if [ "$(id -u)" != 0 ]; then
	echo "make deps: these packages are missing and only root can install them: ${missing[*]}" >&2
	exit 1
fi

# Debian's postgresql package otherwise creates and starts a cluster of its own, which nothing here uses.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
	mkdir -p /etc/postgresql-common
	echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q -o Acquire::Retries=3
runtime=$(clang_runtime)
if [ -z "$runtime" ]; then
	echo "make deps: apt knows no package clang that names its version: is this Debian 12 or 13, and did it reach its mirror?" >&2
	exit 1
fi
mapfile -t missing < <(missing_of "${packages[@]}" "$runtime")
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
apt-get install -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"
