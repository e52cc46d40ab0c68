#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Boots a kernel of Debian's, with the real WireGuard module, under qemu without hardware help and runs the meter's test programs
# there. Passes only when the guest has said how many tests passed, that none failed, and that its kernel has not complained.
# Needs no root, and no network once the kernel is in build/vm/kernel.
#   tests/vm/run.sh KERNEL PROGRAM…    KERNEL as kernel.sh takes it; PROGRAMs are those of `make vm-programs`; FULL=1: longer,
#                                      with more peers; SEED=N: a test's choices by chance, again
set -euo pipefail
cd "$(dirname "$0")/../.."
kernel=${1:-}
shift || true
folder=build/vm/$kernel
mkdir -p "$folder"
exec 9> build/vm/lock
flock 9 # one machine at a time: they share the processors

full=${FULL:-0}
seconds=$([ "$full" = 1 ] && echo 1800 || echo 1200) # for one program
limit=$([ "$full" = 1 ] && echo 7200 || echo 3600) # for the whole run
# A machine that is emulated beside others stands still now and then: that is no fault of its kernel.
patience="watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300 workqueue.watchdog_thresh=300 sysctl.kernel.hung_task_timeout_secs=600"

programs=("$@")
[ ${#programs[@]} -gt 0 ] || { echo "tests/vm/run.sh: no kernel or no program named" >&2 && exit 2; }
for program in "${programs[@]}"; do
	if [ ! -x "$program" ]; then
		echo "tests/vm: $program is not built: run 'make vm-programs'" >&2
		exit 1
	fi
done
tests/vm/image.sh "$folder" "$kernel" "${programs[@]}"

# Killed with its parents, whatever kills them.
boot() {
	setpriv --pdeathsig KILL timeout -k 5 "$limit" \
		setpriv --pdeathsig KILL qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 \
		-display none -monitor none -nic none -no-reboot \
		-serial "file:$folder/console.log" -serial "file:$folder/result.log" \
		-kernel "$folder/vmlinuz" -initrd "$folder/initramfs" \
		-append "console=ttyS0 quiet panic=-1 $patience wiretoll.seconds=$seconds wiretoll.full=$full wiretoll.seed=${SEED:-}" < /dev/null 9>&-
}

status=0
rm -f "$folder/console.log" "$folder/result.log"
boot || status=$?
touch "$folder/console.log" "$folder/result.log"
cat "$folder/result.log"

fail() {
	echo "tests/vm: $*; the guest's console:" >&2
	tail -n 60 "$folder/console.log" >&2
	exit 1
}
[ "$status" = 0 ] || fail "qemu ended with status $status (124: it took more than $limit s)"
[ "$(tail -n 1 "$folder/result.log")" = end ] || fail "the guest did not come to its end"
for program in "${programs[@]}"; do
	name=$(basename "$(dirname "$program")")/$(basename "$program")
	grep -q "^program $name passed=[1-9][0-9]* failed=0 status=0 " "$folder/result.log" || fail "$name failed"
done
tail -n 2 "$folder/result.log" | head -n 1 | grep -qE '^[1-9][0-9]* passed, 0 failed$' || fail "there were failures"
if grep -nE 'BUG:|WARNING:|Oops|Call Trace|Kernel panic' "$folder/console.log"; then
	fail "the kernel complained"
fi
