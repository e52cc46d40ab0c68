/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The private PostgreSQL of `wiretoll up`: data in STATE/pg, a Unix socket in RUNDIR/pg, and nothing on the
 * network. It runs as the user postgres; each role has a password of its own, new at every start, in a file
 * of its own.
 */
#ifndef WIRETOLL_CLI_UP_POSTGRES_H
#define WIRETOLL_CLI_UP_POSTGRES_H

#include "cli/up_control.h"

#define UP_OWNER_FILE  "secrets/owner.conn"
#define UP_API_FILE    "secrets/api.conn"
#define UP_DEPLOY_FILE "secrets/deploy.conn"

/*
 * Makes the data folder if there is none and clears away what a killed server left behind. Waits for one that
 * is still shutting down. All calls here say themselves what went wrong.
 */
WT_MUST_CHECK int up_postgres_prepare(const struct up *up);

/* Starts the server as a child of the caller. */
WT_MUST_CHECK int up_postgres_start(const struct up *up, pid_t *ret_pid);

/* Waits until it answers, then makes roles, database and connection files. -ECHILD when the server ended. */
WT_MUST_CHECK int up_postgres_set_up(const struct up *up, pid_t pid);

#endif
