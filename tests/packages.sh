#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Whether every package that deps.sh names is in both releases of Debian and can be installed there, by these releases' own lists.
# Nothing is installed. What cannot be judged, without a network, is skipped. Prints TAP. (D1)
#   tests/packages.sh
set -euo pipefail
cd "$(dirname "$0")/.."
releases=(bookworm trixie)
number=0
failed=0

echo "1..${#releases[@]}"
for release in "${releases[@]}"; do
	number=$((number + 1))
	title="$release has what deps.sh names"
	status=0
	plan=
	names=$(bash tests/apt.sh "$release" bash tests/deps.sh --list 2>&1) || status=$?
	if [ "$status" = 3 ]; then
		echo "not ok $number - $title # SKIP no lists of it: ${names//$'\n'/ }"
		continue
	fi
	mapfile -t packages <<< "$names"
	if grep -qx 'libclang-rt-[0-9]*-dev' <<< "$names" && plan=$(bash tests/apt.sh "$release" apt-get -qq --print-uris \
		-o APT::Get::Simulate=false --no-install-recommends install "${packages[@]}" 2>&1); then
		echo "ok $number - $title"
		echo "# ${#packages[@]} packages, $(wc -l <<< "$plan") with what they need"
	else
		echo "not ok $number - $title"
		while read -r line; do echo "# $line"; done <<< "${plan:-$names}"
		failed=1
	fi
done
exit $failed
