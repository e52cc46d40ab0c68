/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The deployment worker: claims jobs, runs driver calls, supervises what is deployed, and takes down what
 * belongs to no current (gateway, attempt). One thread; nothing in it blocks for longer than one answer of
 * the database.
 */
#ifndef WIRETOLL_DEPLOY_WORKER_H
#define WIRETOLL_DEPLOY_WORKER_H

#include "deploy/driver.h"

#define WORKER_MAX_HYPERVISORS 16

struct worker_options {
	struct deploy_host host;
	const char *database_file;
	const char *hypervisors[WORKER_MAX_HYPERVISORS]; /* names under which the operator knows this host */
	size_t n_hypervisors;
};

/* Works until SIGTERM or SIGINT, which must be blocked. Gateways run on. */
WT_MUST_CHECK int worker_run(const struct deploy_driver *driver, struct worker_options *options);

/* Takes every gateway of this state off the host; keys and journals stay. Needs no database. */
WT_MUST_CHECK int worker_destroy_all(const struct deploy_driver *driver, struct worker_options *options);

#endif
