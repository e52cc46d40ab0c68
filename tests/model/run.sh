#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Checks the models of the lease protocol, of credit through a hand-over and of the way of a byte exhaustively, and that
# each finds every precaution needed.
#   tests/model/run.sh [--short | --deep]    --short: small sizes of the first two; --deep adds sizes that take a minute and gigabytes
set -euo pipefail
models=$(realpath "$(dirname "$0")")
model=$models/lease.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# errors OPTIONS…: how many claims are violated; nothing when the search was not exhaustive.
errors() {
	spin "$@" -a "$model" > spin.log
	gcc "$optimise" -DSAFETY -DCOLLAPSE -DMEMLIM=6000 -w -o pan pan.c
	timeout 170 ./pan -m1000000 > pan.log || true
	if ! grep -qE 'max search depth too small|Search not completed' pan.log || grep -q 'assertion violated' pan.log; then
		sed -nE 's/.*errors: ([0-9]+).*/\1/p' pan.log
	fi
}

optimise=-O2
passed=0
failed=0
# check EXPECTED NAME OPTIONS…
check() {
	local expected=$1 name=$2 found
	shift 2
	found=$(errors "$@")
	if [ "$found" = "$expected" ]; then
		passed=$((passed + 1))
		echo "ok $passed - $name"
	else
		failed=$((failed + 1))
		echo "not ok - $name: ${found:-no} errors in $*, $expected expected"
		cat pan.log
	fi
}

finish() {
	echo "1..$((passed + failed))"
	[ "$failed" = 0 ]
	exit
}

if [ "${1:-}" = --short ]; then
	optimise=-O0 # compiling takes longer than searching
	check 0 "two CPUs and a process" -DPACKETS=1 -DCHANGES=1
	check 0 "two CPUs at the turn of a cycle" -DPACKETS=1 -DCHANGES=0 -DNEXT
	check 0 "a peer within the interface" -DPACKETS=1 -DCHANGES=0 -DPOOLS=2
	check 1 "a latch must be for the grant that was judged by" -DBUG=2 -DPACKETS=1 -DCHANGES=1
	check 1 "credit must be drawn by a swap" -DBUG=3 -DPACKETS=1 -DCHANGES=0
	check 1 "the next grant must be taken up by one" -DBUG=4 -DPACKETS=1 -DCHANGES=1 -DNEXT
	check 1 "nobody must pass before a cycle's base is there" -DBUG=7 -DPACKETS=2 -DCHANGES=0 -DNEXT
	check 1 "the process must swap the state" -DBUG=8 -DPACKETS=1 -DCHANGES=1 -DNEXT
	model=$models/handover.pml
	check 0 "a hand-over" -DPACKETS=1 -DCEILING=2
	check 1 "a hand-over must lend what the old programs cannot draw" -DBUG=1 -DPACKETS=1 -DCEILING=2 -DKILLS=0
	check 1 "a hand-over must wait for the programs before it counts" -DBUG=4 -DPACKETS=1 -DCEILING=2 -DKILLS=0
	finish
fi

check 0 "two CPUs and a process" -DPACKETS=1 -DCHANGES=1
check 0 "three CPUs at the turn of a cycle" -DCPUS=3 -DPACKETS=1 -DCHANGES=0 -DNEXT
check 0 "a peer within the interface" -DPACKETS=2 -DCHANGES=0 -DPOOLS=2
if [ "${1:-}" = --deep ]; then
	check 0 "two changes" -DPACKETS=1 -DCHANGES=2
	check 0 "a peer, and changes" -DPACKETS=1 -DCHANGES=1 -DPOOLS=2
fi
check 1 "a grant must be the one in force when it was read" -DBUG=1 -DPACKETS=1 -DCHANGES=2
check 1 "a latch must be for the grant that was judged by" -DBUG=2 -DPACKETS=1 -DCHANGES=1
check 1 "credit must be drawn by a swap" -DBUG=3 -DPACKETS=1 -DCHANGES=0
check 1 "the next grant must be taken up by one" -DBUG=4 -DPACKETS=1 -DCHANGES=1 -DNEXT
check 1 "a draw in doubt must exhaust nobody" -DBUG=5 -DPACKETS=2 -DCHANGES=0 -DPOOLS=2
check 1 "what the interface refuses must go back" -DBUG=6 -DPACKETS=2 -DCHANGES=0 -DPOOLS=2
check 1 "nobody must pass before a cycle's base is there" -DBUG=7 -DPACKETS=2 -DCHANGES=0 -DNEXT
check 1 "the process must swap the state" -DBUG=8 -DPACKETS=1 -DCHANGES=1 -DNEXT
check 1 "an add that will be undone must exhaust nobody" -DBUG=9 -DCPUS=3 -DPACKETS=1 -DCHANGES=0 -DNEXT

model=$models/handover.pml
check 0 "a hand-over, killed twice" -DPACKETS=1 -DCEILING=3 -DKILLS=2
if [ "${1:-}" = --deep ]; then
	check 0 "a hand-over under traffic" -DPACKETS=2 -DKILLS=0
fi
check 1 "half of the credit must be kept for the old programs" -DBUG=1 -DPACKETS=1 -DCEILING=2
check 1 "credit must be lent when nobody draws by the old grant" -DBUG=2 -DPACKETS=1 -DCEILING=2
check 1 "what had been drawn must not be lent" -DBUG=3 -DPACKETS=1 -DCEILING=2
check 1 "the old counts must stand still when they are read" -DBUG=4 -DPACKETS=1 -DCEILING=2
check 1 "the end of half must not be the limit's" -DBUG=5 -DPACKETS=1 -DCEILING=3

model=$models/pipeline.pml
check 0 "a byte through two boots" -DTRAFFIC=3 -DBATCHES=4
check 0 "two agents of one gateway" -DAGENTS=2 -DEPOCHS=1 -DTRAFFIC=3
check 0 "the machine rolled back to a snapshot" -DROLLBACK -DTRAFFIC=3
check 0 "the database restored to a backup" -DRESTORE -DEPOCHS=1 -DTRAFFIC=3 -DBATCHES=4
if [ "${1:-}" = --deep ]; then
	check 0 "a byte through three boots" -DTRAFFIC=4 -DBATCHES=4 -DEPOCHS=3
	check 0 "two agents through two boots" -DAGENTS=2
	check 0 "two agents and a restored database" -DAGENTS=2 -DRESTORE -DEPOCHS=1 -DTRAFFIC=3 -DBATCHES=4
fi
check 1 "a batch must be durable before it is acknowledged" -DBUG=1
check 1 "a batch must not be known before it is counted" -DBUG=2
check 1 "a total must not be set out of order" -DBUG=3
check 1 "the kernel's count must not be taken out" -DBUG=4
check 1 "a reset must be known by its epoch" -DBUG=5
check 1 "a batch must be in the journal before it is sent" -DBUG=6
check 1 "an older agent must be fenced" -DBUG=7 -DAGENTS=2
check 1 "a repeat must be known by its content" -DBUG=8 -DROLLBACK
finish
