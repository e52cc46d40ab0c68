#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs every fuzz target over its seeds and what earlier runs have found, and then random packets through the loaded programs.
# Prints TAP. An input that ends a target is kept in build/fuzz/crashes. Run it by tests/envelope.sh.
#   tests/fuzz/run.sh SECONDS [TARGET…]    SECONDS of each target; targets are parse, attribution, …, packets, lies
# PACKETS is another build of the last one.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
seconds=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
/usr/bin/python3 tests/fuzz/seeds.py "$work/seeds"
crashes=$root/build/fuzz/crashes
mkdir -p "$crashes"

number=0
failed=0
# result STATUS NAME: one line of TAP.
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
	else
		failed=1
		echo "not ok $number - $2, status $1"
		tail -n 30 "$work/log" | sed 's/^/# /'
	fi
}

# A short run belongs to the tests: each time the same, and not behind whatever else wants the processors.
behind=(nice)
seed=()
if [ "$seconds" -lt 10 ]; then
	behind=()
	seed=(1)
fi

# In a folder of its own, where a target may leave files.
fuzz() {
	local target=$1 status=0 corpus=$work/corpus/$1 runs
	# Reading thousands of inputs takes longer than a short run.
	[ "$seconds" -lt 10 ] || corpus=$root/build/fuzz/corpus/$1
	mkdir -p "$corpus" "$work/$target"
	cd "$work/$target"
	timeout $((seconds + 600)) "${behind[@]}" "$root/build/fuzz/fuzz_$target" "${seed[@]/#/-seed=}" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
		-verbosity=1 -dict="$work/seeds/$target.dict" -artifact_prefix="$crashes/$target-" "$corpus" "$work/seeds/$target" \
		> "$work/log" 2>&1 || status=$?
	cd "$root"
	runs=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)/\1/p' "$work/log")
	result "$status" "$target: ${runs:-no} inputs"
}

packets() {
	local status=0
	timeout $((seconds + 600)) "${behind[@]}" "${PACKETS:-build/tests/fuzz/packets}" "$seconds" "${seed[@]}" > "$work/log" 2>&1 || status=$?
	result "$status" "packets: $(tail -n 1 "$work/log")"
}

# Reports with lies in them, to a running API; a short form is among its tests.
lies() {
	local status=0
	LIES_SECONDS=$seconds SEED=$RANDOM timeout $((seconds + 600)) "${behind[@]}" /usr/bin/python3 -m pytest -q -s -p no:cacheprovider \
		tests/api/test_lying_gateway.py -k whatever > "$work/log" 2>&1 || status=$?
	result "$status" "lies: $(grep -oE '[0-9]+ reports with lies.*' "$work/log" || true)"
}

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
	for program in build/fuzz/fuzz_*; do
		if [ -x "$program" ]; then
			targets+=("${program#build/fuzz/fuzz_}")
		fi
	done
	targets+=(packets)
	[ "$seconds" -lt 10 ] || targets+=(lies)
fi
for target in "${targets[@]}"; do
	if [ "$target" = packets ]; then
		packets
	elif [ "$target" = lies ]; then
		lies
	else
		fuzz "$target"
	fi
done
echo "1..$number"
exit $failed
