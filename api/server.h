/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The HTTPS server. libmicrohttpd's threads parse requests and queue them; a bounded pool of workers, each
 * with a database connection of its own, answers them. A parked request (long poll) holds no worker.
 */
#ifndef WIRETOLL_API_SERVER_H
#define WIRETOLL_API_SERVER_H

#include "base/base.h"

#define MAX_LISTEN 16

struct server_settings {
	const char *state_folder;
	const char *database_file;
	const char *listen[MAX_LISTEN]; /* "ADDRESS:PORT" or "[ADDRESS]:PORT"; port 0: any free one */
	size_t n_listen;
	unsigned workers;
	unsigned agent_workers;           /* for what agents ask */
	unsigned queue;                   /* requests of either that may wait; more are answered with 503 */
	unsigned connections;             /* open at once, for each address that is listened on */
	unsigned connections_per_address; /* of a client, but for those of gateways; 0: a quarter of all */
	unsigned connections_per_second;  /* new ones of a client's address; the others are delayed */
	unsigned request_seconds;         /* for a request to arrive, and for its answer to be taken */
};

/* Serves until SIGTERM or SIGINT, logs what goes wrong, and returns 0 or -errno. */
WT_MUST_CHECK int server_run(const struct server_settings *settings);

#endif
