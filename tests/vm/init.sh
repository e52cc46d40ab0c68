#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Process 1 of the virtual machine: runs each test program and reports on the second serial port, which the kernel's
# own messages do not reach. The last line is the verdict; without it the run has failed.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/netns /run/wireguard /dev/net
export PATH=/bin HOME=/root
umask 077
stty -F /dev/ttyS1 raw -echo
exec > /dev/ttyS1 2>&1 < /dev/null

seconds=$(sed -n 's/.*wiretoll.seconds=\([0-9]*\).*/\1/p' /proc/cmdline)
FULL=$(sed -n 's/.*wiretoll.full=\([0-9]*\).*/\1/p' /proc/cmdline)
SEED=$(sed -n 's/.*wiretoll.seed=\([0-9]*\).*/\1/p' /proc/cmdline)
export FULL SEED
export CMOCKA_MESSAGE_OUTPUT=TAP

passed=0
failed=0
fail() {
	echo "not ok - $*"
	failed=$((failed + 1))
}

# run_program FOLDER/NAME: its TAP, then what its lines came to.
run_program() {
	log=/tmp/log
	begun=$(cut -d. -f1 /proc/uptime)
	timeout -s KILL "$seconds" "/tests/$1" > $log 2>&1
	status=$?
	cat $log
	good=$(grep -c '^ok ' $log)
	bad=$(grep '^not ok ' $log | grep -vc '# SKIP')
	passed=$((passed + good))
	failed=$((failed + bad))
	if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$good" = 0 ]; }; then
		fail "$1 ended with status $status after $good tests"
	fi
	echo "program $1 passed=$good failed=$bad status=$status seconds=$(($(cut -d. -f1 /proc/uptime) - begun))"
}

echo "kernel $(uname -r)"
while read -r module; do
	modprobe "$module" || fail "module $module"
done < /etc/modules
ip link set lo up
for program in /tests/*/*; do
	run_program "${program#/tests/}"
done

if dmesg | grep -E 'BUG|WARNING|Oops|Call Trace|general protection|soft lockup|hung task|suspected leak'; then
	fail "the kernel complained"
fi
echo "$passed passed, $failed failed"
echo "end"
poweroff -f
