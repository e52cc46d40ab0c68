// SPDX-License-Identifier: BSD-2-Clause
/* What the agent can still do once it has given up the rest: each call is made, in a process of its own. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

/* The loop itself, for its ring. */
#include "../../userspace/agent/loop.c"

#include "agent/privileges.h"
#include "base/capabilities.h"
#include "base/guard.h"

#define KILLED 1000

struct call {
	const char *name;
	long number;
	long arguments[4];
};

/* 0 or the errno of a call that is made behind the filter; KILLED. */
static int attempt(const struct call *call)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || privileges_filter() < 0)
			_exit(255);
		errno = 0;
		syscall(call->number, call->arguments[0], call->arguments[1], call->arguments[2],
			call->arguments[3], 0, 0);
		_exit(errno);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGSYS);
		return KILLED;
	}
	assert_int_not_equal(WEXITSTATUS(status), 255);
	return WEXITSTATUS(status);
}

static void test_what_only_an_intruder_does_kills(void **state)
{
	static const struct call calls[] = {
		{"ptrace", SYS_ptrace, {0}},
		{"process_vm_readv", SYS_process_vm_readv, {1}},
		{"mount", SYS_mount, {0}},
		{"umount2", SYS_umount2, {0}},
		{"setns", SYS_setns, {-1}},
		{"unshare", SYS_unshare, {CLONE_NEWUSER}},
		{"pivot_root", SYS_pivot_root, {0}},
		{"chroot", SYS_chroot, {0}},
		{"init_module", SYS_init_module, {0}},
		{"kexec_load", SYS_kexec_load, {0}},
		{"perf_event_open", SYS_perf_event_open, {0}},
		{"keyctl", SYS_keyctl, {KEYCTL_GET_KEYRING_ID}},
		{"open_by_handle_at", SYS_open_by_handle_at, {-1}},
		{"userfaultfd", SYS_userfaultfd, {0}},
		{"reboot", SYS_reboot, {0}},
		{"clock_settime", SYS_clock_settime, {0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (attempt(&calls[i]) != KILLED)
			fail_msg("%s did not kill", calls[i].name);
}

static void test_what_is_not_needed_fails(void **state)
{
	static const struct call calls[] = {
		{"io_uring_setup", SYS_io_uring_setup, {1}},
		{"io_uring_register", SYS_io_uring_register, {-1}},
		{"socket of packets", SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
		{"socket to the hypervisor", SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
		{"socket of the kernel's cryptography", SYS_socket, {AF_ALG, SOCK_SEQPACKET, 0}},
		{"clone into a user namespace", SYS_clone, {CLONE_NEWUSER | SIGCHLD}},
		{"setuid", SYS_setuid, {0}},
		{"capset", SYS_capset, {0}},
		{"prlimit64 to set", SYS_prlimit64, {0, RLIMIT_CORE, 1}},
		{"mprotect to execute", SYS_mprotect, {0, 4096, PROT_EXEC}},
		{"mmap to write and execute", SYS_mmap, {0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE}},
		{"link", SYS_linkat, {-1}},
		{"symlink", SYS_symlinkat, {-1}},
		{"mknod", SYS_mknodat, {-1}},
		{"chown", SYS_fchownat, {-1}},
		{"setxattr", SYS_fsetxattr, {-1}},
		{"inotify", SYS_inotify_init1, {0}},
		{"System V shared memory", SYS_shmget, {0}},
		{"a number that no kernel has", 100000, {0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		int error = attempt(&calls[i]);

		if (error != EPERM)
			fail_msg("%s gave %d", calls[i].name, error);
	}
	/* So that libc takes the call whose flags can be read. */
	assert_int_equal(attempt(&(struct call){"clone3", SYS_clone3, {0}}), ENOSYS);
}

static void test_what_is_needed_goes_on(void **state)
{
	static const struct call calls[] = {
		{"getpid", SYS_getpid, {0}},
		{"socket", SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
		{"prlimit64 to read", SYS_prlimit64, {0, RLIMIT_CORE, 0}},
		{"memory", SYS_mmap, {0, 0, PROT_READ, 0}},
	};

	(void)state;
	assert_int_equal(attempt(&calls[0]), 0);
	assert_int_equal(attempt(&calls[1]), 0);
	assert_int_equal(attempt(&calls[2]), 0);
	assert_int_equal(attempt(&calls[3]), EINVAL); /* the kernel's own answer */
}

static int result_of_one(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int result;

	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

static void test_the_ring_is_no_way_around(void **state)
{
	struct loop *loop = NULL;
	struct io_uring_sqe *sqe;
	struct __kernel_timespec soon = {.tv_nsec = 1000000};

	(void)state;
	assert_int_equal(loop_open(&loop), 0);
	io_uring_prep_openat(io_uring_get_sqe(&loop->ring), AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	assert_int_equal(result_of_one(&loop->ring), -EACCES);
	io_uring_prep_connect(io_uring_get_sqe(&loop->ring), 0, NULL, 0);
	assert_int_equal(result_of_one(&loop->ring), -EACCES);
	io_uring_prep_send(io_uring_get_sqe(&loop->ring), 0, "", 0, 0);
	assert_int_equal(result_of_one(&loop->ring), -EACCES);
	io_uring_prep_read(io_uring_get_sqe(&loop->ring), 0, NULL, 0, 0);
	assert_int_equal(result_of_one(&loop->ring), -EACCES);
	/* Personalities and fixed files are not for it either. */
	sqe = io_uring_get_sqe(&loop->ring);
	io_uring_prep_fsync(sqe, 0, 0);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	assert_int_equal(result_of_one(&loop->ring), -EACCES);
	assert_true(syscall(SYS_io_uring_register, loop->ring.ring_fd, IORING_REGISTER_PERSONALITY, NULL, 0) <
		    0);
	assert_int_equal(errno, EACCES);
	io_uring_prep_timeout(io_uring_get_sqe(&loop->ring), &soon, 0, 0);
	assert_int_equal(result_of_one(&loop->ring), -ETIME);
	loop_close(loop);
}

static void test_memory_is_guarded(void **state)
{
	struct rlimit core;
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		if (guard_memory() < 0 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0 ||
		    getrlimit(RLIMIT_CORE, &core) < 0)
			_exit(1);
		_exit(core.rlim_cur == 0 && core.rlim_max == 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_capabilities_are_cut_for_good(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		uint64_t held;

		if (privileges_drop() < 0 || capabilities_get(&held) < 0)
			_exit(1);
		if (held & ~(1ULL << CAP_NET_ADMIN | 1ULL << CAP_BPF | 1ULL << CAP_PERFMON))
			_exit(2);
		if (prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) != 0 ||
		    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
			_exit(3);
		/* Root without the capability to pass by modes and owners: not even to itself. */
		_exit(setuid(1) == 0 ? 4 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_only_an_intruder_does_kills),
		cmocka_unit_test(test_what_is_not_needed_fails),
		cmocka_unit_test(test_what_is_needed_goes_on),
		cmocka_unit_test(test_the_ring_is_no_way_around),
		cmocka_unit_test(test_memory_is_guarded),
		cmocka_unit_test(test_capabilities_are_cut_for_good),
	};

	return cmocka_run_group_tests_name("agent's privileges", tests, NULL, NULL);
}
