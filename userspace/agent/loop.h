/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop, on one io_uring: timers, readiness of descriptors, durable writes. Not thread-safe; all
 * handlers run in loop_run(). An operation is named by a tag (kind, generation, index) which stays harmless
 * when it is over: cancelling a stale one does nothing, and what it refers to is not used again before the
 * kernel has let go of it.
 */
#ifndef WIRETOLL_AGENT_LOOP_H
#define WIRETOLL_AGENT_LOOP_H

#include "base/base.h"

#include <sys/types.h>

struct loop;

typedef uint64_t loop_tag; /* 0: none */

/* `result`: poll events of a poll, 0 of a timer, 0 or -errno of a write. */
typedef void (*loop_fn)(void *data, int result);

WT_MUST_CHECK int loop_open(struct loop **ret_loop);
void loop_close(struct loop *loop); /* handlers are not called any more; NULL is accepted */

/* Once, at an instant of the boot clock or of UTC (which follows steps of the clock). */
WT_MUST_CHECK int loop_at_boot(struct loop *loop, int64_t boot_ns, loop_fn fn, void *data, loop_tag *ret_tag);
WT_MUST_CHECK int loop_at_utc(struct loop *loop, int64_t utc_ns, loop_fn fn, void *data, loop_tag *ret_tag);

/* Once, when the descriptor has one of the poll(2) events. */
WT_MUST_CHECK int loop_poll_once(struct loop *loop, int fd, short events, loop_fn fn, void *data,
				 loop_tag *ret_tag);

/* Each time the descriptor becomes readable, until cancelled; fn has to read all there is. */
WT_MUST_CHECK int loop_watch(struct loop *loop, int fd, loop_fn fn, void *data, loop_tag *ret_tag);

/* Writes all at the offset, then fdatasyncs; `data` of the write must live until fn is called. */
WT_MUST_CHECK int loop_write_durably(struct loop *loop, int fd, const void *bytes, size_t length,
				     off_t offset, loop_fn fn, void *data, loop_tag *ret_tag);

/* fn is not called any more. 0 and tags that are over are accepted. */
void loop_cancel(struct loop *loop, loop_tag tag);

/* Runs until loop_stop(), which may have been called already. Returns 0, or -errno of the ring. */
WT_MUST_CHECK int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

#endif
