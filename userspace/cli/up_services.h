/* SPDX-License-Identifier: BSD-2-Clause */
/* The long-running programs of `wiretoll up`, kept running until they are told to stop. */
#ifndef WIRETOLL_CLI_UP_SERVICES_H
#define WIRETOLL_CLI_UP_SERVICES_H

#include "cli/up_control.h"

enum up_service { UP_POSTGRES, UP_API, UP_DEPLOYD, UP_SAMPLE, UP_SERVICES };

struct up_process {
	pid_t pid;          /* 0: not running */
	bool wanted;        /* to be started again when it ends */
	int64_t started_ns; /* boot time */
	int64_t restart_ns;
	int64_t backoff_ns;
};

struct up_processes {
	const struct up *up;
	struct up_process of[UP_SERVICES];
};

/* Starts one and keeps it running from now on. */
WT_MUST_CHECK int up_services_start(struct up_processes *processes, enum up_service service);

/* Collects what has ended and starts what is due; returns in how many milliseconds it wants to be called
 * again, or -1. */
int up_services_tend(struct up_processes *processes);

/* Whether it is not running and will not be started again. Only the sample gives up. */
bool up_services_gave_up(const struct up_processes *processes, enum up_service service);

/* Stops them in the order that loses nothing: the sample, API and worker, then PostgreSQL. Gateways run on.
 */
void up_services_stop(struct up_processes *processes);

#endif
