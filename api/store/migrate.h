/* SPDX-License-Identifier: BSD-2-Clause */
/* The numbered migrations of the database, embedded in the program. */
#ifndef WIRETOLL_STORE_MIGRATE_H
#define WIRETOLL_STORE_MIGRATE_H

#include "store/db.h"

/*
 * Applies what is missing, each migration in a transaction of its own under an advisory lock, so that
 * replicas may start at once. On failure *ret_failed names the migration and db_last_error() says why.
 * Returns the number of migrations applied, or -errno of db_query().
 */
WT_MUST_CHECK int migrate(struct db *db, const char **ret_failed);

/* The schema that this program speaks: the number of its last migration. */
int migrate_latest(void);

/* The schema of the database; 0 for an empty one. */
WT_MUST_CHECK int migrate_current(struct db *db, int *ret_version);

#endif
