// SPDX-License-Identifier: BSD-2-Clause
/*
 * Loaded before the agent's libraries: makes one call of its life fail. FAULT_CLASS is "write", "sync" or
 * "send", FAULT_CALL the number of the call within its class from 1, FAULT_ERROR an errno or 0 for a short
 * one. What was done is appended to the file FAULT_LOG, which exists once it was.
 *
 * Calls on the ring are changed before the kernel sees them: a write goes to /dev/full, so that it is not
 * done and breaks its link as a real failure does, a sync to a descriptor that has none; the result is put
 * right behind the kernel's back.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHORT 0

enum class { WRITE, SYNC, SEND, CLASSES };

static const char *const names[CLASSES] = {"write", "sync", "send"};
static int calls[CLASSES];

static struct {
	bool read;
	enum class class;
	int call, error;
	const char *log;
} plan = {.class = CLASSES};

static void read_plan(void)
{
	const char *class = getenv("FAULT_CLASS"), *call = getenv("FAULT_CALL");
	const char *error = getenv("FAULT_ERROR");

	plan.read = true;
	plan.log = getenv("FAULT_LOG");
	if (!class || !call || !error)
		return;
	plan.call = atoi(call);
	plan.error = atoi(error);
	for (int i = 0; i < CLASSES; i++)
		if (strcmp(class, names[i]) == 0)
			plan.class = i;
}

/* Whether this call is the one that fails. */
static bool is_due(enum class class, const char *what)
{
	char line[96];
	int fd, length;

	if (!plan.read)
		read_plan();
	if (plan.class != class || ++calls[class] != plan.call)
		return false;
	length = snprintf(line, sizeof(line), "%s %d: %s\n", names[class], plan.call, what);
	fd = (int)syscall(SYS_openat, AT_FDCWD, plan.log, O_WRONLY | O_CREAT | O_APPEND, 0666);
	syscall(SYS_write, fd, line, (size_t)length);
	syscall(SYS_close, fd);
	return true;
}

static ssize_t fail(void)
{
	errno = plan.error;
	return -1;
}

#define REAL(name)                                                                                           \
	static __typeof__(name) *real;                                                                       \
	if (!real)                                                                                           \
	real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t length)
{
	struct stat status;
	bool socket = fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
	REAL(write);

	if (!is_due(socket ? SEND : WRITE, "write"))
		return real(fd, data, length);
	return plan.error == SHORT ? real(fd, data, length > 1 ? length / 2 : length) : fail();
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
	REAL(pwrite);

	if (!is_due(WRITE, "pwrite"))
		return real(fd, data, length, offset);
	return plan.error == SHORT ? real(fd, data, length > 1 ? length / 2 : length, offset) : fail();
}

int fsync(int fd)
{
	REAL(fsync);

	return is_due(SYNC, "fsync") && plan.error != SHORT ? (int)fail() : real(fd);
}

int fdatasync(int fd)
{
	REAL(fdatasync);

	return is_due(SYNC, "fdatasync") && plan.error != SHORT ? (int)fail() : real(fd);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	REAL(fallocate);

	return is_due(WRITE, "fallocate") && plan.error != SHORT ? (int)fail()
								 : real(fd, mode, offset, length);
}

ssize_t send(int fd, const void *data, size_t length, int flags)
{
	REAL(send);

	if (!is_due(SEND, "send"))
		return real(fd, data, length, flags);
	return plan.error == SHORT ? real(fd, data, length > 1 ? length / 2 : length, flags) : fail();
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size)
{
	REAL(sendto);

	if (!is_due(SEND, "sendto"))
		return real(fd, data, length, flags, to, size);
	return plan.error == SHORT ? real(fd, data, length > 1 ? length / 2 : length, flags, to, size)
				   : fail();
}

/* A message is sent whole or not at all: there is no short one. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	REAL(sendmsg);

	return is_due(SEND, "sendmsg") && plan.error != SHORT ? fail() : real(fd, message, flags);
}

/* ---- the ring -------------------------------------------------------------------------------------------
 */

static struct {
	bool pending;
	__u64 user_data;
	int result;
} patched;

static int open_full(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = (int)syscall(SYS_openat, AT_FDCWD, "/dev/full", O_WRONLY | O_CLOEXEC);
	return fd;
}

static void change(struct io_uring_sqe *sqe)
{
	bool write = sqe->opcode == IORING_OP_WRITE;

	if (!write && sqe->opcode != IORING_OP_FSYNC)
		return;
	if (!is_due(write ? WRITE : SYNC, "on the ring") || (!write && plan.error == SHORT))
		return;
	if (plan.error == SHORT) {
		sqe->len /= 2;
		return;
	}
	sqe->fd = open_full();
	patched.pending = true;
	patched.user_data = sqe->user_data;
	patched.result = -plan.error;
}

static void change_submitted(struct io_uring *ring)
{
	for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; at++)
		change(&ring->sq.sqes[at & ring->sq.ring_mask]);
}

/* The write's result is its link's first; a sync's is the one that failed. */
static void put_right(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	unsigned head;

	if (!patched.pending)
		return;
	io_uring_for_each_cqe (ring, head, cqe) {
		if (cqe->user_data != patched.user_data || cqe->res >= 0)
			continue;
		cqe->res = patched.result;
		patched.pending = false;
		return;
	}
}

int io_uring_submit(struct io_uring *ring)
{
	REAL(io_uring_submit);

	change_submitted(ring);
	return real(ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
	int r;
	REAL(io_uring_submit_and_wait);

	change_submitted(ring);
	r = real(ring, wait);
	put_right(ring);
	return r;
}
