// SPDX-License-Identifier: BSD-2-Clause
/* Runs nft with a rule set on its standard input. */
#include "net/net.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define NFT_DEADLINE_NS (5 * NSEC_PER_SEC)

/* Not PATH: whoever starts the agent should not choose what runs with its rights. */
static const char *find_nft(void)
{
	static const char *const places[] = {"/usr/sbin/nft", "/usr/bin/nft", "/sbin/nft", "/bin/nft"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (access(places[i], X_OK) == 0)
			return places[i];
	}
	return NULL;
}

/* A file of its own instead of a pipe: nothing to feed while nft runs, however long the text is. */
static int open_input(const char *text)
{
	_cleanup_close_ int fd = memfd_create("nft", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = file_write_all(fd, text, strlen(text));
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int prepare_files(posix_spawn_file_actions_t *files, int input, int errors)
{
	int r = posix_spawn_file_actions_adddup2(files, input, STDIN_FILENO);

	if (r == 0)
		r = posix_spawn_file_actions_addopen(files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(files, errors, STDERR_FILENO);
	return -r;
}

/* The caller may block signals, for a signalfd; nft must not inherit that. */
static int prepare_signals(posix_spawnattr_t *attributes)
{
	sigset_t none, defaults;
	int r;

	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGCHLD);
	r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attributes, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attributes, &defaults);
	return -r;
}

static int spawn_nft(int input, int errors, pid_t *ret_pid)
{
	const char *path = find_nft();
	char *arguments[] = {(char *)"nft", (char *)"-f", (char *)"-", NULL};
	char *environment[] = {(char *)"LC_ALL=C", NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	int r;

	if (!path)
		return -ENOENT;
	r = -posix_spawn_file_actions_init(&files);
	if (r < 0)
		return r;
	r = -posix_spawnattr_init(&attributes);
	if (r < 0) {
		posix_spawn_file_actions_destroy(&files);
		return r;
	}
	r = prepare_files(&files, input, errors);
	if (r == 0)
		r = prepare_signals(&attributes);
	if (r == 0)
		r = -posix_spawn(ret_pid, path, &files, &attributes, arguments, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return r;
}

/* Reads what is there; the end of the buffer stays free for a NUL. False at the end of the file. */
static bool drain(int fd, char *text, size_t size, size_t *used)
{
	char rest[512];
	bool fits = *used + 1 < size;
	ssize_t got = read(fd, fits ? text + *used : rest, fits ? size - 1 - *used : sizeof(rest));

	if (got > 0 && fits)
		*used += (size_t)got;
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Collects standard error until nft has ended; -ETIMEDOUT at the deadline. */
static int supervise(int process, int errors, char *text, size_t size)
{
	int64_t deadline = clock_boot_ns() + NFT_DEADLINE_NS;
	struct pollfd polled[] = {{.fd = process, .events = POLLIN}, {.fd = errors, .events = POLLIN}};
	size_t used = 0;

	text[0] = '\0';
	for (;;) {
		int64_t left_ms = (deadline - clock_boot_ns()) / 1000000;

		if (left_ms <= 0)
			return -ETIMEDOUT;
		if (poll(polled, ARRAY_SIZE(polled), (int)left_ms) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (polled[1].revents && !drain(errors, text, size, &used))
			polled[1].fd = -1;
		text[used] = '\0';
		if (polled[0].revents && !(polled[1].revents & POLLIN))
			return 0;
	}
}

static int wait_for_nft(pid_t pid, int errors, char *text, size_t size)
{
	_cleanup_close_ int process = pidfd_open(pid, 0);
	int status, r = process < 0 ? -errno : supervise(process, errors, text, size);

	if (r < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (r < 0)
		return r;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int net_firewall_apply(const struct net_firewall *firewall, char *error, size_t error_size)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int input = -1, errors = -1, errors_end = -1;
	int pipe_ends[2];
	pid_t pid;
	int r = net_firewall_render(firewall, &text);

	if (error_size == 0)
		return -EINVAL;
	error[0] = '\0';
	if (r < 0)
		return r;
	input = open_input(text);
	if (input < 0)
		return input;
	if (pipe2(pipe_ends, O_CLOEXEC) < 0)
		return -errno;
	errors = pipe_ends[0];
	errors_end = pipe_ends[1];
	if (fcntl(errors, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	r = spawn_nft(input, errors_end, &pid);
	close(TAKE_FD(errors_end));
	return r < 0 ? r : wait_for_nft(pid, errors, error, error_size);
}
