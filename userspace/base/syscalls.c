// SPDX-License-Identifier: BSD-2-Clause
#include "base/syscalls.h"

#include <errno.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define NEW_NAMESPACES                                                                                       \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |        \
	 CLONE_NEWNET)

/* The meter and the agent's loop; setting up another ring is not among them. */
static const char *const agent_needs[] = {"bpf", "io_uring_enter"};

/* wireguard-go watches its control socket's file. */
static const char *const wireguard_needs[] = {"inotify_add_watch", "inotify_init1", "inotify_rm_watch"};

/* What both, their libraries and nft need: of systemd's @system-service. */
static const char *const needed[] = {
	/* the loop */
	"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "poll", "ppoll", "pselect6",
	"select", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_settime",
	/* files */
	"access", "chdir", "close", "close_range", "dup", "dup2", "dup3", "faccessat", "faccessat2",
	"fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fcntl", "fdatasync", "flock", "fstat",
	"fstatfs", "fsync", "ftruncate", "getcwd", "getdents64", "ioctl", "lseek", "lstat", "memfd_create",
	"mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2", "pipe2", "pread64", "preadv",
	"pwrite64", "pwritev", "read", "readlink", "readlinkat", "readv", "rename", "renameat", "renameat2",
	"rmdir", "stat", "statfs", "statx", "sync_file_range", "umask", "unlink", "unlinkat", "write",
	"writev",
	/* sockets; socket() itself below */
	"accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
	"recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
	/* memory; mmap() and mprotect() below */
	"brk", "madvise", "mremap", "msync", "munmap",
	/* processes, threads and signals; clone() below */
	"arch_prctl", "execve", "exit", "exit_group", "futex", "get_robust_list", "getegid", "geteuid",
	"getgid", "getpgrp", "getpid", "getppid", "getresgid", "getresuid", "getrlimit", "gettid", "getuid",
	"kill", "membarrier", "pidfd_open", "pidfd_send_signal", "prctl", "restart_syscall", "rseq",
	"rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
	"sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill",
	"vfork", "wait4", "waitid",
	/* time and the machine */
	"clock_getres", "clock_gettime", "clock_nanosleep", "getcpu", "getrandom", "gettimeofday",
	"nanosleep", "sysinfo", "time", "uname"};

static const char *const hostile[] = {"acct",
				      "add_key",
				      "adjtimex",
				      "chroot",
				      "clock_adjtime",
				      "clock_settime",
				      "delete_module",
				      "finit_module",
				      "fsmount",
				      "fsopen",
				      "fspick",
				      "init_module",
				      "ioperm",
				      "iopl",
				      "kcmp",
				      "kexec_file_load",
				      "kexec_load",
				      "keyctl",
				      "mount",
				      "mount_setattr",
				      "move_mount",
				      "name_to_handle_at",
				      "open_by_handle_at",
				      "open_tree",
				      "perf_event_open",
				      "pidfd_getfd",
				      "pivot_root",
				      "process_vm_readv",
				      "process_vm_writev",
				      "ptrace",
				      "quotactl",
				      "reboot",
				      "request_key",
				      "setns",
				      "settimeofday",
				      "swapoff",
				      "swapon",
				      "umount2",
				      "unshare",
				      "userfaultfd"};

/* A kernel, or an architecture, that has not got the call needs no rule for it. */
static int add_all(scmp_filter_ctx filter, uint32_t action, const char *const *names, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		int number = seccomp_syscall_resolve_name(names[i]);

		if (number >= 0)
			r = seccomp_rule_add(filter, action, number, 0);
	}
	return r;
}

static int add_sockets(scmp_filter_ctx filter)
{
	static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(families) && r == 0; i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0));
	return r;
}

/* No memory that is written and then executed. */
static int add_memory(scmp_filter_ctx filter)
{
	static const scmp_datum_t both = PROT_WRITE | PROT_EXEC;
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				 SCMP_A2(SCMP_CMP_MASKED_EQ, both, 0));

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, both, PROT_WRITE));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, both, PROT_EXEC));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return r;
}

static int add_processes(scmp_filter_ctx filter)
{
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				 SCMP_A0(SCMP_CMP_MASKED_EQ, NEW_NAMESPACES, 0));

	/* Its flags are in memory, which a filter cannot read: libc takes clone() when there is no clone3().
	 */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	/* Reading limits, not setting them. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
				     SCMP_A2(SCMP_CMP_EQ, 0, 0));
	return r;
}

static int restrict_to(const char *const *more, size_t n_more)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!filter)
		return -ENOMEM;
	/* All threads, also those that a library made; a tree instead of a list, for the frequent calls. */
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = add_all(filter, SCMP_ACT_ALLOW, needed, ARRAY_SIZE(needed));
	if (r == 0)
		r = add_all(filter, SCMP_ACT_ALLOW, more, n_more);
	if (r == 0)
		r = add_all(filter, SCMP_ACT_KILL_PROCESS, hostile, ARRAY_SIZE(hostile));
	if (r == 0)
		r = add_sockets(filter);
	if (r == 0)
		r = add_memory(filter);
	if (r == 0)
		r = add_processes(filter);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

int syscalls_restrict_agent(void)
{
	return restrict_to(agent_needs, ARRAY_SIZE(agent_needs));
}

int syscalls_restrict_wireguard(void)
{
	return restrict_to(wireguard_needs, ARRAY_SIZE(wireguard_needs));
}
