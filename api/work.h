/* SPDX-License-Identifier: BSD-2-Clause */
/* The bounded pool of workers, and the requests that are parked until something changes. */
#ifndef WIRETOLL_API_WORK_H
#define WIRETOLL_API_WORK_H

#include "exchange.h"

#define MAX_WORKERS 256

struct work_settings {
	unsigned workers, agent_workers; /* up to MAX_WORKERS */
	unsigned queue;                  /* requests of either that may wait */
	const char *database_file;
};

/* Starts the workers. -ENOMEM, or -errno of pthread_create(). */
WT_MUST_CHECK int work_start(const struct work_settings *settings, struct work **ret_work);

/* Answers all that is queued, parked requests as expired, and ends the workers; then takes nothing more. */
void work_stop(struct work *work);

/* When nobody can offer anything any more. */
void work_free(struct work *work);

/*
 * Suspends the connection and queues its exchange; the worker resumes it. To be called from libmicrohttpd's
 * handler only. False when too much waits already, of this one (`why` says so) or in all, or the pool is
 * stopping.
 */
bool work_offer(struct work *work, struct exchange *exchange, const char **ret_why);

/* Runs the handlers of the requests parked under the key again; NULL: of all. */
void work_wake(struct work *work, const char *key);

#endif
