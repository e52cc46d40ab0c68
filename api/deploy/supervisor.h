/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keeps the programs of deployed gateways running. They are in sessions of their own and outlive the worker;
 * the next one adopts them by pid and start time.
 */
#ifndef WIRETOLL_DEPLOY_SUPERVISOR_H
#define WIRETOLL_DEPLOY_SUPERVISOR_H

#include "deploy/driver.h"

#include <poll.h>

struct supervisor;

WT_MUST_CHECK int supervisor_new(const struct deploy_driver *driver, const struct deploy_host *host,
				 struct supervisor **ret_supervisor);
/* Lets everything run on. NULL is accepted. */
void supervisor_free(struct supervisor *supervisor);

/* Starts, or adopts, the gateway's programs. Calling it again changes nothing. */
WT_MUST_CHECK int supervisor_add(struct supervisor *supervisor, const char *gateway);
/* Forgets the gateway's programs and lets them run. */
void supervisor_remove(struct supervisor *supervisor, const char *gateway);

/* Whether the gateway's agent is there to say its last word: running, or about to be started again. */
bool supervisor_agent_expected(const struct supervisor *supervisor, const char *gateway);

/* Calls `fn` for each gateway that has a program here. */
void supervisor_each(const struct supervisor *supervisor, void (*fn)(const char *gateway, void *data),
		     void *data);

/* Descriptors to wait for, at most `max`; returns how many. */
size_t supervisor_poll_fds(const struct supervisor *supervisor, struct pollfd *fds, size_t max);
/* When something is due without a descriptor (boot time), or INT64_MAX. */
int64_t supervisor_next_ns(const struct supervisor *supervisor);
/* Notes what has ended and starts what is due. */
void supervisor_dispatch(struct supervisor *supervisor);

#endif
