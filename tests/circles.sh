#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Calls between files point one way: ends with status 1, and says where, when some of the objects below a folder call
# each other in a circle.
#   tests/circles.sh OBJECTS
set -euo pipefail
objects=$(cd "${1:-}" && pwd)
cd "$(dirname "$0")/.."

edges=$(git ls-files 'api/*.c' 'userspace/*.c' | sed 's/c$/o/' | (cd "$objects" && xargs nm -A --no-sort) | awk '
	{ split($1, at, ":") }
	$(NF - 1) == "U" { calls[at[1] " " $NF] = 1; next }
	$(NF - 1) ~ /^[A-TV-Z]$/ { defined[$NF] = defined[$NF] " " at[1] }
	END {
		for (call in calls) {
			split(call, part, " ")
			# Of a name that several programs have, it is the one in the same folder.
			n = split(defined[part[2]], files, " ")
			for (i = 1; i <= n; i++) {
				folder = part[1]; sub("/[^/]*$", "", folder)
				other = files[i]; sub("/[^/]*$", "", other)
				if (files[i] != part[1] && (n == 1 || folder == other))
					print part[1], files[i]
			}
		}
	}')
if [ "$(wc -l <<< "$edges")" -lt 100 ]; then
	echo "tests/circles.sh: there are no objects of all files below $objects: build first" >&2
	exit 2
fi
if ! circles=$(tsort <<< "$edges" 2>&1 > /dev/null); then
	echo "lint: these call each other in a circle:" >&2
	grep '\.o$' <<< "$circles" | sed 's/^tsort: /  /; s/\.o$/.c/' >&2
	exit 1
fi
