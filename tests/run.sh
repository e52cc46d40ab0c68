#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds with ASan and UBSan and runs every test; ends with a line "N passed, N failed" and status 1 if one failed.
#   tests/run.sh [SUITE…]    suites: unit bpf soak net api vm demo (all of them, in this order, when none is named)
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "make test: needs root, for BPF and network namespaces: run 'sudo make test'" >&2
	exit 1
fi

logs=build/logs
mkdir -p "$logs"
passed=0
failed=0
causes=$logs/causes.txt
: > "$causes"

# Why a program failed, from its log, in a few lines a test: what pytest marks with E, and what cmocka says of a "not ok".
# The end of a log that has neither.
show_causes() {
	awk '
		/^_+ .+ _+$/ { print; left = 5; next }
		/^E / && left > 0 { print "  " substr($0, 1, 300); left--; next }
		/^not ok / { print; tap = 4; next }
		/^#/ && tap-- > 0 { print "  " $0; next }
		/^(ERROR: |.*ERROR: AddressSanitizer|.*runtime error: )/ && messages++ < 5 { print substr($0, 1, 300) }
		{ tap = 0 }' "$1" | head -n 60 | grep . || tail -n 8 "$1"
}

# report NAME STATUS SECONDS PASSED FAILED: one line a program, the whole log of one that failed.
report() {
	local name=$1 status=$2 took=$3 good=$4 bad=$5 log=$logs/${1//\//-}.log
	if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
		bad=1 # it crashed, timed out or could not begin
	fi
	passed=$((passed + good))
	failed=$((failed + bad))
	if [ "$bad" != 0 ]; then
		printf '  FAIL  %-28s %d passed, %d failed, status %d, %d s\n' "$name" "$good" "$bad" "$status" "$took"
		sed 's/^/        | /' "$log"
		{
			printf '%s (status %d)\n' "$name" "$status"
			show_causes "$log" | sed 's/^/    /'
		} >> "$causes"
	else
		printf '  ok    %-28s %3d passed %4d s\n' "$name" "$good" "$took"
	fi
}

# Programs that run now, by process: how they count, their name, and when they began.
declare -A running=()
at_once=1
trap '[ ${#running[@]} = 0 ] || kill "${!running[@]}"' EXIT

# Waits for one of them and reports it.
finish_one() {
	local pid="" kind name log begun summary status=0 good bad
	wait -n -p pid "${!running[@]}" 2> /dev/null || status=$?
	# The shell has forgotten a job that a signal has ended.
	if [ -z "$pid" ]; then
		for pid in "${!running[@]}"; do
			kill -0 "$pid" 2> /dev/null || break
		done
	fi
	read -r kind name begun <<< "${running[$pid]}"
	unset "running[$pid]"
	log=$logs/${name//\//-}.log
	case $kind in
	pytest)
		# Who ends after pytest may write behind its last line.
		summary=$(grep -E '^(=+ )?[0-9]+ [a-z].* in [0-9.]+s' "$log" | tail -n 1 || true)
		good=$({ grep -oE '[0-9]+ passed' || true; } <<< "$summary" | awk '{n += $1} END {print n + 0}')
		bad=$({ grep -oE '[0-9]+ (failed|error)' || true; } <<< "$summary" | awk '{n += $1} END {print n + 0}')
		[ -n "$summary" ] || bad=1
		;;
	tap)
		good=$(grep -cE '^ok ' "$log" || true)
		bad=$(grep -E '^not ok ' "$log" | grep -vc '# SKIP' || true)
		;;
	sums)
		read -r good bad < <(awk '/^[0-9]+ passed, [0-9]+ failed$/ {good += $1; bad += $3} END {print good + 0, bad + 0}' "$log")
		;;
	one)
		good=$((status == 0)) bad=$((status != 0))
		;;
	esac
	report "$name" "$status" $((SECONDS - begun)) "$good" "$bad"
}

finish_all() {
	while [ ${#running[@]} -gt 0 ]; do
		finish_one
	done
}

# begin KIND NAME SECONDS COMMAND…: as soon as fewer than at_once run. KIND says how its tests are counted: those of cmocka (tap),
# of pytest, by lines "N passed, N failed" (sums), or as one.
begin() {
	local kind=$1 name=$2 seconds=$3
	shift 3
	while [ ${#running[@]} -ge "$at_once" ]; do
		finish_one
	done
	timeout --kill-after=60 "$seconds" "$@" > "$logs/${name//\//-}.log" 2>&1 &
	running[$!]="$kind $name $SECONDS"
}

# A cmocka program, in an envelope of its own.
run_program() {
	begin tap "$(basename "$(dirname "$1")")/$(basename "$1")" 900 env CMOCKA_MESSAGE_OUTPUT=TAP tests/envelope.sh "$1"
}

# A file of pytest's, in an envelope of its own.
run_pytest() {
	begin pytest "$(basename "$(dirname "$1")")/$(basename "$1")" 1200 env WIRETOLL_BIN="$PWD/build/sanitize/bin" \
		tests/envelope.sh /usr/bin/python3 -m pytest -q --tb=short -rfE -p no:cacheprovider "$1"
}

# A second of fuzzing for each parser, and small sizes of the model: `make fuzz` and `make model` take longer. Packages are
# looked up outside an envelope, which has no network.
run_short_forms() {
	begin tap fuzz 900 env PACKETS="$PWD/build/sanitize/tests/fuzz/packets" tests/envelope.sh bash tests/fuzz/run.sh 1
	begin tap model 900 bash tests/model/run.sh --short
	begin tap packages 900 bash tests/packages.sh
}

run_machines() {
	if [ "$(uname -m)" != x86_64 ] || ! command -v qemu-system-x86_64 > /dev/null; then
		echo "  --    vm                           left out: it needs qemu-system-x86_64 on such a machine"
		return
	fi
	begin sums vm 5400 make --no-print-directory test-vm
}

# Most programs mostly wait, for settling times and for the database: beside two others they find the processors idle. They may
# follow those of the suite before, so that none is idle at its end. Not so what compares two processors, needs both, or shows
# how quick the product is.
run_suite() {
	local suite=$1 file
	case $suite in
	net | api | soak)
		at_once=3
		;;
	unit)
		at_once=$(nproc)
		;;
	bpf | vm | demo)
		finish_all
		at_once=1
		;;
	*)
		echo "tests/run.sh: unknown suite $suite; there are unit, bpf, soak, net, api, vm, demo" >&2
		exit 2
		;;
	esac
	case $suite in
	vm)
		run_machines
		;;
	demo)
		begin one demo 1800 bash tests/demo/run.sh "$PWD/$logs/demo.json"
		;;
	*)
		if [ "$suite" = unit ]; then
			run_short_forms
		fi
		for file in build/sanitize/tests/"$suite"/test_*; do
			if [ -x "$file" ]; then
				run_program "$file"
			fi
		done
		for file in tests/"$suite"/test_*.py; do
			if [ -e "$file" ]; then
				run_pytest "$file"
			fi
		done
		;;
	esac
}

# Other user numbers run what is built.
umask 022
export PYTHONDONTWRITEBYTECODE=1 SOAK_FIGURES=$PWD/$logs/soak.txt
rm -f "$SOAK_FIGURES"
echo "Building (ASan and UBSan for the tests, plain for the demo) …"
build() {
	make --no-print-directory -j"$(nproc)" SANITIZE=1 all test-programs &&
		make --no-print-directory -j"$(nproc)" fuzz-programs &&
		make --no-print-directory -j"$(nproc)" all
}
if ! build > "$logs/build.log" 2>&1; then
	cat "$logs/build.log"
	echo "the build failed"
	echo "0 passed, 1 failed"
	exit 1
fi

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(unit bpf soak net api vm demo)
for suite in "${suites[@]}"; do
	run_suite "$suite"
done
finish_all
if [ -s "$SOAK_FIGURES" ]; then
	echo "soak:"
	sed 's/^/    /' "$SOAK_FIGURES"
fi
if [ -s "$causes" ]; then
	echo "what failed:"
	sed 's/^/    /' "$causes"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
