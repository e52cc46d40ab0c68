/* SPDX-License-Identifier: BSD-2-Clause */
/* A network of the test's own, which vanishes with its last process, however that ends. */
#ifndef WIRETOLL_TESTS_NET_NAMESPACE_H
#define WIRETOLL_TESTS_NET_NAMESPACE_H

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The parent's part: dies with the test program, and ends as the child did. */
static inline void namespace_wait(pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 255);
}

/*
 * Goes on in a child with network, mounts and processes of its own, and with an empty /run: all that it
 * starts ends with it, and no signal of it reaches anything else. Returns 0 or -1, in the child.
 */
static inline int namespace_enter(void)
{
	pid_t child;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID) < 0)
		return -1;
	child = fork();
	if (child < 0)
		return -1;
	if (child > 0)
		namespace_wait(child);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
	    mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") < 0 || mkdir("/run/wireguard", 0755) < 0)
		return -1;
	return system("ip link set lo up && sysctl -qw net.ipv6.conf.default.addr_gen_mode=1") == 0 ? 0 : -1;
}

/* Runs a shell command; its exit status. */
static inline int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline int run(const char *format, ...)
{
	char command[1024];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

/* Starts a program, silent, that dies with the test. Returns its pid. */
static inline pid_t start(char *const arguments[])
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(126);
		execvp(arguments[0], arguments);
		_exit(127);
	}
	return pid;
}

/*
 * Waits until wireguard-go listens for commands: `wg` removes a socket on which nobody listens yet. Returns
 * 0, or -1 after a minute.
 */
static inline int wait_until_it_listens(const char *interface)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "/run/wireguard/%s.sock", interface);
	for (int i = 0; i < 3000; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int r = connect(fd, (const struct sockaddr *)&address, sizeof(address));

		close(fd);
		if (r == 0)
			return 0;
		usleep(20000);
	}
	return -1;
}

/* Ends what start() began. Anything but a process's own id is refused: kill() would take it for many. */
static inline void stop(pid_t pid)
{
	if (pid <= 1)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

#endif
