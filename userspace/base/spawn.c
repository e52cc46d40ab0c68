// SPDX-License-Identifier: BSD-2-Clause
#include "base/spawn.h"
#include "base/capabilities.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX (8 * 1024 * 1024) /* a page of memory is taken only once something is in it */

extern char **environ;

/*
 * Signal dispositions and mask survive exec: the program begins with the defaults. What came for the session
 * that it has left, like a terminal's Ctrl-C, is not for it: ignoring discards what is pending.
 */
static void reset_signals(bool discard)
{
	sigset_t none;

	for (int number = 1; number < NSIG; number++) {
		if (discard)
			signal(number, SIG_IGN);
		signal(number, SIG_DFL);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int become(uid_t uid, gid_t gid, uint64_t capabilities)
{
	int r = capabilities_bound(capabilities);

	if (r < 0)
		return r;
	/* Permitted capabilities must survive the change of uid to become ambient ones. */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
	    setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	r = capabilities_set(capabilities);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	return r;
}

static int move_fd(int from, int to)
{
	return dup2(from, to) < 0 ? -errno : 0;
}

/* Opened under the program's own uid: the folder is its own, and could hold a link to anything. */
static int connect_streams(const struct spawn *spawn)
{
	int input = spawn->input_fd ? spawn->input_fd : open("/dev/null", O_RDONLY | O_CLOEXEC);
	int output = spawn->output_fd;
	int r;

	if (input < 0)
		return -errno;
	if (!output && spawn->output) {
		output = open(spawn->output, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (output < 0)
			return -errno;
	}
	r = move_fd(input, STDIN_FILENO);
	if (r == 0 && output)
		r = move_fd(output, STDOUT_FILENO);
	if (r == 0 && (spawn->error_fd || spawn->output))
		r = move_fd(spawn->error_fd ? spawn->error_fd : output, STDERR_FILENO);
	return r;
}

static int enter(const struct spawn *spawn)
{
	if (spawn->mount_namespace > 0 && setns(spawn->mount_namespace, CLONE_NEWNS) < 0)
		return -errno;
	if (spawn->net_namespace > 0 && setns(spawn->net_namespace, CLONE_NEWNET) < 0)
		return -errno;
	return spawn->new_session && chdir("/") < 0 ? -errno : 0;
}

/*
 * By path, as it is known then under its name; where the folders on the way are closed to the uid, by the
 * descriptor that was opened before its rights were given up.
 */
static int execute(const struct spawn *spawn, int program_fd)
{
	char *const *argv = (char *const *)spawn->argv;

	if (program_fd < 0) {
		execvp(argv[0], argv);
		return -errno;
	}
	execv(argv[0], argv);
	if (errno == EACCES || errno == ENOENT)
		syscall(SYS_execveat, program_fd, "", argv, environ, AT_EMPTY_PATH);
	return -errno;
}

/* Field 22 of /proc/PID/stat, in clock ticks since boot. A zombie has ended: -ENOENT. */
static int read_start_time(pid_t pid, unsigned long long *ret_ticks)
{
	_cleanup_free_ char *text = NULL;
	char path[32], state;
	const char *fields;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = file_read(path, 4096, &text, NULL);
	if (r < 0)
		return r;
	/* The second field is the name in brackets, which may itself hold brackets and blanks. */
	fields = strrchr(text, ')');
	if (!fields ||
	    sscanf(fields,
		   ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
		   &state, ret_ticks) != 2)
		return -EPROTO;
	return state == 'Z' || state == 'X' ? -ENOENT : 0;
}

static int write_pid_file(const char *path, pid_t pid)
{
	unsigned long long ticks;
	char text[64];
	int r = read_start_time(pid, &ticks);

	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "%d %llu\n", (int)pid, ticks);
	return file_replace(path, text, strlen(text), 0644);
}

int spawn_find(const char *pid_file, pid_t *ret_pid)
{
	_cleanup_free_ char *text = NULL;
	unsigned long long recorded, actual;
	int pid;
	int r = file_read(pid_file, 4096, &text, NULL);

	if (r < 0)
		return r;
	if (sscanf(text, "%d %llu", &pid, &recorded) != 2 || pid <= 0)
		return -ENOENT;
	if (read_start_time(pid, &actual) < 0 || actual != recorded)
		return -ENOENT;
	*ret_pid = pid;
	return 0;
}

static int limit_processes(unsigned max)
{
	const struct rlimit limit = {max, max};

	return setrlimit(RLIMIT_NPROC, &limit) < 0 ? -errno : 0;
}

static int prepare_and_execute(const struct spawn *spawn, pid_t parent)
{
	int program_fd = -1;
	int r;

	if (spawn->new_session && setsid() < 0)
		return -errno;
	reset_signals(spawn->new_session);
	umask(077);
	if (strchr(spawn->argv[0], '/')) {
		program_fd = open(spawn->argv[0], O_PATH | O_CLOEXEC);
		if (program_fd < 0)
			return -errno;
	}
	r = enter(spawn);
	if (r == 0 && spawn->max_processes)
		r = limit_processes(spawn->max_processes);
	if (r == 0 && spawn->uid)
		r = become(spawn->uid, spawn->gid ? spawn->gid : (gid_t)spawn->uid, spawn->capabilities);
	if (r == 0)
		r = connect_streams(spawn);
	if (r < 0)
		return r;
	/* After the uid is set, which clears it. The parent may be gone already. */
	if (spawn->parent_death_signal &&
	    (prctl(PR_SET_PDEATHSIG, spawn->parent_death_signal, 0, 0, 0) < 0 || getppid() != parent))
		return -ECHILD;
	if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return -errno;
	r = spawn->confine ? spawn->confine() : 0;
	return r < 0 ? r : execute(spawn, program_fd);
}

int spawn_start(const struct spawn *spawn, pid_t *ret_pid)
{
	_cleanup_close_ int status_read = -1;
	_cleanup_close_ int status_write = -1;
	pid_t parent = getpid();
	int fds[2], error = 0;
	ssize_t got;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	status_read = fds[0];
	status_write = fds[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		error = spawn->pid_file ? write_pid_file(spawn->pid_file, getpid()) : 0;
		if (error == 0)
			error = prepare_and_execute(spawn, parent);
		_exit(file_write_all(status_write, &error, sizeof(error)) < 0 ? 126 : 127);
	}
	/* The pipe closes when exec succeeds; else the error comes through it. */
	close(TAKE_FD(status_write));
	do {
		got = read(status_read, &error, sizeof(error));
	} while (got < 0 && errno == EINTR);
	if (got != sizeof(error)) {
		*ret_pid = pid;
		return 0;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return error;
}

/* Executes once the parent has noted the process down; without a word from it, it is gone. */
static void launched(const struct spawn *spawn, int go, pid_t parent)
{
	char byte;
	int r;

	if (read(go, &byte, 1) != 1)
		_exit(127);
	r = prepare_and_execute(spawn, parent);
	dprintf(spawn->error_fd ? spawn->error_fd : STDERR_FILENO, "could not start %s: %s\n", spawn->argv[0],
		strerror(-r));
	_exit(127);
}

int spawn_launch(const struct spawn *spawn, pid_t *ret_pid)
{
	_cleanup_close_ int go_read = -1;
	_cleanup_close_ int go_write = -1;
	pid_t parent = getpid();
	int fds[2], r = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	go_read = fds[0];
	go_write = fds[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(TAKE_FD(go_write));
		launched(spawn, go_read, parent);
	}
	if (spawn->pid_file)
		r = write_pid_file(spawn->pid_file, pid);
	if (r == 0)
		r = file_write_all(go_write, "", 1);
	close(TAKE_FD(go_write));
	if (r == 0) {
		*ret_pid = pid;
		return 0;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

struct capture {
	int fd;
	char *text;
	size_t length;
};

/* Returns 1 at the end of the stream. What is beyond OUTPUT_MAX is read and dropped. */
static int capture_some(struct capture *capture)
{
	char buffer[4096];
	ssize_t got = read(capture->fd, buffer, sizeof(buffer));
	size_t keep;

	if (got <= 0)
		return got < 0 && errno == EINTR ? 0 : 1;
	keep = (size_t)got;
	if (keep > OUTPUT_MAX - capture->length)
		keep = OUTPUT_MAX - capture->length;
	memcpy(capture->text + capture->length, buffer, keep);
	capture->length += keep;
	capture->text[capture->length] = '\0';
	return 0;
}

static void capture_all(struct capture *captures, size_t n)
{
	struct pollfd fds[2];
	size_t open_fds = n;

	for (size_t i = 0; i < n; i++)
		fds[i] = (struct pollfd){.fd = captures[i].fd, .events = POLLIN};
	while (open_fds > 0) {
		if (poll(fds, (nfds_t)n, -1) < 0 && errno != EINTR)
			return;
		for (size_t i = 0; i < n; i++)
			if (fds[i].fd >= 0 && fds[i].revents && capture_some(&captures[i])) {
				fds[i].fd = -1;
				open_fds--;
			}
	}
}

/* A memory file, not a pipe: no deadlock between our writing and the program's. */
static int input_file(const char *input, int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create("input", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = file_write_all(fd, input, strlen(input));
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int run_captured(struct spawn *spawn, struct capture *captures)
{
	int pipes[2][2] = {{-1, -1}, {-1, -1}};
	int status = 0, r = 0;
	pid_t pid = -1;

	for (int i = 0; i < 2 && r == 0; i++)
		r = pipe2(pipes[i], O_CLOEXEC) < 0 ? -errno : 0;
	if (r == 0) {
		spawn->output_fd = pipes[0][1];
		spawn->error_fd = pipes[1][1];
		r = spawn_start(spawn, &pid);
	}
	for (int i = 0; i < 2; i++) {
		if (pipes[i][1] >= 0)
			close(pipes[i][1]);
		captures[i].fd = pipes[i][0];
	}
	if (r == 0) {
		capture_all(captures, 2);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		r = WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
	}
	for (int i = 0; i < 2; i++)
		if (captures[i].fd >= 0)
			close(captures[i].fd);
	return r;
}

int spawn_run(struct spawn spawn, const char *input, char **ret_output, char **ret_error)
{
	_cleanup_free_ char *output = calloc(1, OUTPUT_MAX + 1);
	_cleanup_free_ char *error = calloc(1, OUTPUT_MAX + 1);
	struct capture captures[2] = {{.fd = -1, .text = output}, {.fd = -1, .text = error}};
	_cleanup_close_ int input_fd = -1;
	int r;

	if (!output || !error)
		return -ENOMEM;
	if (input) {
		r = input_file(input, &input_fd);
		if (r < 0)
			return r;
		spawn.input_fd = input_fd;
	}
	r = run_captured(&spawn, captures);
	if (r < 0)
		return r;
	if (ret_output)
		*ret_output = TAKE_PTR(output);
	if (ret_error)
		*ret_error = TAKE_PTR(error);
	return r;
}
