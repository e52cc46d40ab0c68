// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/occupants.h"
#include "base/clock.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ROUNDS 16 /* processes may fork while they are counted */

/* Readable when the process has ended, also while its parent has not collected it yet. */
static int open_process(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

static int wait_end(int pidfd, int timeout_ms)
{
	struct pollfd wait = {.fd = pidfd, .events = POLLIN};
	int64_t end = clock_boot_ns() + timeout_ms * 1000000LL;
	int left = timeout_ms, r;

	do {
		r = poll(&wait, 1, left);
		left = (int)((end - clock_boot_ns()) / 1000000);
	} while (r < 0 && errno == EINTR && left > 0);
	return r > 0 ? 0 : -ETIMEDOUT;
}

static int signal_process(int pidfd, int number)
{
	return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) < 0 && errno != ESRCH ? -errno : 0;
}

int occupant_end(pid_t pid, int patience_ms)
{
	_cleanup_close_ int pidfd = open_process(pid);
	int r;

	if (pidfd < 0)
		return pidfd == -ESRCH ? 0 : pidfd;
	r = signal_process(pidfd, SIGTERM);
	if (r == 0 && wait_end(pidfd, patience_ms) < 0) {
		r = signal_process(pidfd, SIGKILL);
		if (r == 0)
			r = wait_end(pidfd, 5000);
	}
	return r;
}

static bool lives_in(pid_t pid, const struct stat *namespace_status)
{
	struct stat status;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return stat(path, &status) == 0 && status.st_ino == namespace_status->st_ino &&
	       status.st_dev == namespace_status->st_dev;
}

static int end_all_seen(const struct stat *namespace_status, int patience_ms, size_t *ret_found)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	size_t found = 0;
	int r = 0;

	if (!processes)
		return -errno;
	while (r == 0 && (entry = readdir(processes))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && lives_in(pid, namespace_status)) {
			found++;
			r = occupant_end(pid, patience_ms);
		}
	}
	closedir(processes);
	*ret_found = found;
	return r;
}

/* ---- by user --------------------------------------------------------------------------------------------
 */

/* Another unused number for each gateway's uid: nobody has it but the process that kills. */
#define KILLER_OFFSET 1000000000U

/*
 * As the user, so that the kernel kills all of its processes at one instant and no other one; but not with
 * its real and saved uid, so that they cannot kill or stop this process first.
 */
static void kill_as(uid_t uid)
{
	uid_t killer = uid + KILLER_OFFSET;

	if (setgroups(0, NULL) < 0 || setresgid(killer, killer, killer) < 0 ||
	    setresuid(killer, uid, killer) < 0)
		_exit(1);
	_exit(kill(-1, SIGKILL) < 0 && errno != ESRCH ? 1 : 0);
}

static int kill_all_of(uid_t uid)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		kill_as(uid);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

/* By any of its four uids. The owner of /proc/PID would not do: of what is not dumpable it is root. */
static bool belongs_to(const char *process, uid_t uid)
{
	_cleanup_free_ char *text = NULL;
	char path[300];
	const char *line;
	uid_t its[4];

	snprintf(path, sizeof(path), "/proc/%s/status", process);
	if (file_read(path, 64 * 1024, &text, NULL) < 0)
		return false;
	line = strstr(text, "\nState:\t");
	if (!line || line[8] == 'Z' || line[8] == 'X')
		return false;
	line = strstr(text, "\nUid:\t");
	if (!line || sscanf(line, " Uid: %u %u %u %u", &its[0], &its[1], &its[2], &its[3]) != 4)
		return false;
	return its[0] == uid || its[1] == uid || its[2] == uid || its[3] == uid;
}

int occupants_count_of_user(uid_t uid)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	int n = 0;

	if (!processes)
		return -errno;
	while ((entry = readdir(processes)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			n += belongs_to(entry->d_name, uid);
	closedir(processes);
	return n;
}

int occupants_kill_user(uid_t uid, int patience_ms)
{
	int64_t end = clock_boot_ns() + patience_ms * 1000000LL;

	for (;;) {
		int r = kill_all_of(uid);
		int n = r < 0 ? r : occupants_count_of_user(uid);

		if (n <= 0)
			return n;
		if (clock_boot_ns() > end)
			return -EBUSY;
		poll(NULL, 0, 5);
	}
}

/* ---- by network namespace -------------------------------------------------------------------------------
 */

int occupants_end(const char *netns_pin, int patience_ms)
{
	struct stat status;
	size_t found = 1;

	if (stat(netns_pin, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	for (int round = 0; round < MAX_ROUNDS && found > 0; round++) {
		int r = end_all_seen(&status, patience_ms, &found);

		if (r < 0)
			return r;
	}
	return found > 0 ? -EBUSY : 0;
}
