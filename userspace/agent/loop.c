// SPDX-License-Identifier: BSD-2-Clause
#include "agent/loop.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RING_ENTRIES 64
#define NO_OPERATION UINT32_MAX

enum kind { KIND_FREE, KIND_TIMER, KIND_POLL, KIND_WATCH, KIND_WRITE };

struct operation {
	enum kind kind;
	uint32_t generation;
	uint32_t next_free;
	unsigned in_flight; /* completions that the kernel still owes; the entry is not used again before */
	int result;
	bool cancelled;
	int fd;
	size_t length;
	struct __kernel_timespec when;
	loop_fn fn;
	void *data;
};

struct loop {
	struct io_uring ring;
	struct operation **operations; /* each allocated alone: a growing table does not move them */
	uint32_t n_operations;
	uint32_t first_free;
	bool stopping;
};

/* user_data: kind (8 bits), generation (24), index (32). 0 is a completion that nobody waits for. */
static loop_tag tag_of(const struct operation *operation, uint32_t index)
{
	return (uint64_t)operation->kind << 56 | (uint64_t)(operation->generation & 0xffffff) << 32 | index;
}

static struct operation *operation_of(const struct loop *loop, loop_tag tag)
{
	uint32_t index = (uint32_t)tag;

	if (tag == 0 || index >= loop->n_operations)
		return NULL;
	return tag_of(loop->operations[index], index) == tag ? loop->operations[index] : NULL;
}

/*
 * What a ring does is not seen by a filter of system calls: this one can do what is prepared below, and never
 * open, connect or send anything. A new kind of entry is to be named here.
 */
static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t operations[] = {IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE,
					     IORING_OP_TIMEOUT,  IORING_OP_TIMEOUT_REMOVE,
					     IORING_OP_WRITE,    IORING_OP_FSYNC};
	struct io_uring_restriction restrictions[ARRAY_SIZE(operations) + 1] = {
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_IO_LINK}};

	for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
		restrictions[i + 1] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP,
								    .sqe_op = operations[i]};
	/* Debian 12's liburing declares functions for these two and does not export them. */
	if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, restrictions,
		    ARRAY_SIZE(restrictions)) < 0 ||
	    syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return -errno;
	return 0;
}

int loop_open(struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return -ENOMEM;
	loop->first_free = NO_OPERATION;
	r = io_uring_queue_init(RING_ENTRIES, &loop->ring, IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED);
	if (r == 0) {
		r = restrict_ring(&loop->ring);
		if (r < 0)
			io_uring_queue_exit(&loop->ring);
	}
	if (r < 0) {
		free(loop);
		return r;
	}
	*ret_loop = loop;
	return 0;
}

void loop_close(struct loop *loop)
{
	if (!loop)
		return;
	io_uring_queue_exit(&loop->ring);
	for (uint32_t i = 0; i < loop->n_operations; i++)
		free(loop->operations[i]);
	free(loop->operations);
	free(loop);
}

static int grow(struct loop *loop)
{
	struct operation *operation = calloc(1, sizeof(*operation));
	struct operation **larger =
		realloc(loop->operations, (loop->n_operations + 1) * sizeof(*loop->operations));

	if (larger)
		loop->operations = larger;
	if (!operation || !larger) {
		free(operation);
		return -ENOMEM;
	}
	operation->next_free = loop->first_free;
	loop->first_free = loop->n_operations;
	loop->operations[loop->n_operations++] = operation;
	return 0;
}

static int begin(struct loop *loop, enum kind kind, loop_fn fn, void *data, struct operation **ret_operation,
		 loop_tag *ret_tag)
{
	struct operation *operation;
	uint32_t index;

	if (loop->first_free == NO_OPERATION && grow(loop) < 0)
		return -ENOMEM;
	index = loop->first_free;
	operation = loop->operations[index];
	loop->first_free = operation->next_free;
	*operation = (struct operation){.kind = kind,
					.generation = operation->generation + 1,
					.in_flight = 1,
					.fn = fn,
					.data = data};
	*ret_operation = operation;
	*ret_tag = tag_of(operation, index);
	return 0;
}

static void release(struct loop *loop, uint32_t index)
{
	struct operation *operation = loop->operations[index];

	operation->kind = KIND_FREE;
	operation->next_free = loop->first_free;
	loop->first_free = index;
}

/* Room for n entries that are submitted together. A full queue is handed to the kernel first. */
static int reserve(struct loop *loop, unsigned n)
{
	while (io_uring_sq_space_left(&loop->ring) < n) {
		int r = io_uring_submit(&loop->ring);

		if (r < 0 && r != -EINTR && r != -EBUSY && r != -EAGAIN)
			return r;
	}
	return 0;
}

static int arm(struct loop *loop, struct operation *operation, loop_tag tag, short events)
{
	struct io_uring_sqe *sqe;
	int r = reserve(loop, 1);

	if (r < 0)
		return r;
	sqe = io_uring_get_sqe(&loop->ring);
	if (operation->kind == KIND_WATCH)
		io_uring_prep_poll_multishot(sqe, operation->fd, (unsigned)events);
	else
		io_uring_prep_poll_add(sqe, operation->fd, (unsigned)events);
	io_uring_sqe_set_data64(sqe, tag);
	return 0;
}

static int at(struct loop *loop, int64_t ns, unsigned clock_flag, loop_fn fn, void *data, loop_tag *ret_tag)
{
	struct operation *operation;
	struct io_uring_sqe *sqe;
	loop_tag tag;
	int r = reserve(loop, 1);

	if (r < 0)
		return r;
	r = begin(loop, KIND_TIMER, fn, data, &operation, &tag);
	if (r < 0)
		return r;
	/* Kept here, as the kernel reads it when the entry is submitted. */
	operation->when = (struct __kernel_timespec){ns / NSEC_PER_SEC, ns % NSEC_PER_SEC};
	sqe = io_uring_get_sqe(&loop->ring);
	io_uring_prep_timeout(sqe, &operation->when, 0, IORING_TIMEOUT_ABS | clock_flag);
	io_uring_sqe_set_data64(sqe, tag);
	*ret_tag = tag;
	return 0;
}

int loop_at_boot(struct loop *loop, int64_t boot_ns, loop_fn fn, void *data, loop_tag *ret_tag)
{
	return at(loop, boot_ns, IORING_TIMEOUT_BOOTTIME, fn, data, ret_tag);
}

int loop_at_utc(struct loop *loop, int64_t utc_ns, loop_fn fn, void *data, loop_tag *ret_tag)
{
	return at(loop, utc_ns, IORING_TIMEOUT_REALTIME, fn, data, ret_tag);
}

static int poll_kind(struct loop *loop, enum kind kind, int fd, short events, loop_fn fn, void *data,
		     loop_tag *ret_tag)
{
	struct operation *operation;
	loop_tag tag;
	int r = begin(loop, kind, fn, data, &operation, &tag);

	if (r < 0)
		return r;
	operation->fd = fd;
	r = arm(loop, operation, tag, events);
	if (r < 0) {
		release(loop, (uint32_t)tag);
		return r;
	}
	*ret_tag = tag;
	return 0;
}

int loop_poll_once(struct loop *loop, int fd, short events, loop_fn fn, void *data, loop_tag *ret_tag)
{
	return poll_kind(loop, KIND_POLL, fd, events, fn, data, ret_tag);
}

int loop_watch(struct loop *loop, int fd, loop_fn fn, void *data, loop_tag *ret_tag)
{
	return poll_kind(loop, KIND_WATCH, fd, POLLIN, fn, data, ret_tag);
}

int loop_write_durably(struct loop *loop, int fd, const void *bytes, size_t length, off_t offset, loop_fn fn,
		       void *data, loop_tag *ret_tag)
{
	struct operation *operation;
	struct io_uring_sqe *sqe;
	loop_tag tag;
	int r = reserve(loop, 2);

	if (r < 0)
		return r;
	r = begin(loop, KIND_WRITE, fn, data, &operation, &tag);
	if (r < 0)
		return r;
	operation->in_flight = 2;
	operation->length = length;
	sqe = io_uring_get_sqe(&loop->ring);
	io_uring_prep_write(sqe, fd, bytes, (unsigned)length, (uint64_t)offset);
	/* A failed or short write breaks the link: the sync is then cancelled, never reported as done. */
	io_uring_sqe_set_flags(sqe, IOSQE_IO_LINK);
	io_uring_sqe_set_data64(sqe, tag);
	sqe = io_uring_get_sqe(&loop->ring);
	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data64(sqe, tag);
	*ret_tag = tag;
	return 0;
}

void loop_cancel(struct loop *loop, loop_tag tag)
{
	struct operation *operation = operation_of(loop, tag);
	struct io_uring_sqe *sqe;

	if (!operation || operation->cancelled)
		return;
	operation->cancelled = true;
	/* A write runs to its end: its bytes may be on their way. */
	if (operation->kind == KIND_WRITE || reserve(loop, 1) < 0)
		return;
	sqe = io_uring_get_sqe(&loop->ring);
	if (operation->kind == KIND_TIMER)
		io_uring_prep_timeout_remove(sqe, tag, 0);
	else
		io_uring_prep_poll_remove(sqe, tag);
	io_uring_sqe_set_data64(sqe, 0);
}

/* The write's own completion carries a byte count, the sync's carries 0: told apart by order of arrival. */
static void note_write(struct operation *operation, int result)
{
	bool is_write = operation->in_flight == 2;

	if (operation->result < 0)
		return;
	if (result < 0)
		operation->result = result;
	else if (is_write && (size_t)result != operation->length)
		operation->result = -ENOSPC;
}

static void complete(struct loop *loop, const struct io_uring_cqe *cqe)
{
	struct operation *operation = operation_of(loop, cqe->user_data);
	uint32_t index = (uint32_t)cqe->user_data;
	loop_fn fn;
	void *data;
	int result;

	if (!operation)
		return;
	result = cqe->res;
	if (operation->kind == KIND_WRITE)
		note_write(operation, result);
	if (operation->kind == KIND_WATCH && !operation->cancelled && result >= 0) {
		/* The handler may cancel; look at the operation again before arming it anew. */
		operation->fn(operation->data, result);
		if (cqe->flags & IORING_CQE_F_MORE)
			return;
		if (!operation->cancelled && arm(loop, operation, cqe->user_data, POLLIN) == 0)
			return;
		release(loop, index);
		return;
	}
	if (cqe->flags & IORING_CQE_F_MORE || --operation->in_flight > 0)
		return;
	if (operation->kind == KIND_WRITE)
		result = operation->result;
	else if (operation->kind == KIND_TIMER)
		result = 0;
	fn = operation->cancelled ? NULL : operation->fn;
	data = operation->data;
	/* Over before the handler runs, so that it may begin the next one. */
	release(loop, index);
	if (fn)
		fn(data, result);
}

int loop_run(struct loop *loop)
{
	while (!loop->stopping) {
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;
		int r = io_uring_submit_and_wait(&loop->ring, 1);

		if (r < 0 && r != -EINTR && r != -EBUSY && r != -EAGAIN)
			return r;
		io_uring_for_each_cqe (&loop->ring, head, cqe) {
			seen++;
			if (!loop->stopping)
				complete(loop, cqe);
		}
		io_uring_cq_advance(&loop->ring, seen);
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}
