#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds with ASan and UBSan and runs every test; ends with a line "N passed, N failed" and status 1 if one failed.
#   tests/run.sh [SUITE…]    suites: unit bpf net api soak vm demo (all of them, in this order, when none is named)
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

# report NAME STATUS LOG PASSED FAILED: one line a program, the whole log of one that failed.
report() {
	local name=$1 status=$2 log=$3 good=$4 bad=$5
	if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
		bad=1 # it crashed, timed out or could not begin
	fi
	passed=$((passed + good))
	failed=$((failed + bad))
	if [ "$bad" != 0 ]; then
		printf '  FAIL  %-28s %d passed, %d failed, status %d\n' "$name" "$good" "$bad" "$status"
		sed 's/^/        | /' "$log"
	else
		printf '  ok    %-28s %d passed\n' "$name" "$good"
	fi
}

# A cmocka program, in an envelope of its own; it counts in TAP.
run_program() {
	local program=$1 name log status=0
	name=$(basename "$(dirname "$program")")/$(basename "$program")
	log=$logs/${name//\//-}.log
	CMOCKA_MESSAGE_OUTPUT=TAP timeout 180 tests/envelope.sh "$program" > "$log" 2>&1 || status=$?
	report "$name" "$status" "$log" "$(grep -cE '^ok ' "$log" || true)" "$(grep -cE '^not ok ' "$log" || true)"
}

# A file of pytest's, in an envelope of its own.
run_pytest() {
	local file=$1 name log status=0 summary
	name=$(basename "$(dirname "$file")")/$(basename "$file" .py)
	log=$logs/${name//\//-}.log
	WIRETOLL_BIN=$PWD/build/sanitize/bin timeout 900 tests/envelope.sh /usr/bin/python3 -m pytest -q -p no:cacheprovider \
		"$file" > "$log" 2>&1 || status=$?
	summary=$(tail -n 1 "$log")
	report "$name" "$status" "$log" "$(grep -oE '[0-9]+ passed' <<< "$summary" | grep -oE '[0-9]+' || echo 0)" \
		"$(grep -oE '[0-9]+ (failed|error)' <<< "$summary" | awk '{n += $1} END {print n + 0}')"
}

# run_tap NAME COMMAND…: a script that counts in TAP.
run_tap() {
	local name=$1 log=$logs/$1.log status=0
	shift
	timeout 300 "$@" > "$log" 2>&1 || status=$?
	report "$name" "$status" "$log" "$(grep -cE '^ok ' "$log" || true)" "$(grep -cE '^not ok ' "$log" || true)"
}

# A second of fuzzing for each parser, and small sizes of the model: `make fuzz` and `make model` take longer.
run_short_forms() {
	run_tap fuzz env PACKETS="$PWD/build/sanitize/tests/fuzz/packets" tests/envelope.sh bash tests/fuzz/run.sh 1
	run_tap model bash tests/model/run.sh --short
}

# The virtual machines count their own tests, each in a line of its own.
run_machine() {
	local log=$logs/vm.log status=0 good bad
	if [ "$(uname -m)" != x86_64 ] || ! command -v qemu-system-x86_64 > /dev/null; then
		echo "  --    vm                           left out: it needs qemu-system-x86_64 on such a machine"
		return
	fi
	timeout 1200 make --no-print-directory test-vm > "$log" 2>&1 || status=$?
	read -r good bad < <(awk '/^[0-9]+ passed, [0-9]+ failed$/ {good += $1; bad += $3} END {print good + 0, bad + 0}' "$log")
	report vm "$status" "$log" "$good" "$bad"
}

run_suite() {
	local suite=$1 file
	case $suite in
	unit | bpf | net | api | soak)
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
		if [ "$suite" = unit ]; then
			run_short_forms
		fi
		;;
	vm)
		run_machine
		;;
	demo)
		local status=0
		timeout 600 bash tests/demo/run.sh "$PWD/$logs/demo.json" > "$logs/demo.log" 2>&1 || status=$?
		report demo "$status" "$logs/demo.log" $((status == 0)) 0
		;;
	*)
		echo "tests/run.sh: unknown suite $suite; there are unit, bpf, net, api, soak, vm, demo" >&2
		exit 2
		;;
	esac
}

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
[ ${#suites[@]} -gt 0 ] || suites=(unit bpf net api soak vm demo)
for suite in "${suites[@]}"; do
	echo "$suite"
	begun=$SECONDS
	run_suite "$suite"
	if [ "$suite" = soak ] && [ -s "$SOAK_FIGURES" ]; then
		sed 's/^/        /' "$SOAK_FIGURES"
	fi
	printf '        %d s\n' $((SECONDS - begun))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
