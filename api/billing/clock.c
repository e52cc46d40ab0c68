// SPDX-License-Identifier: BSD-2-Clause
#include "billing/billing.h"

#include <errno.h>

int billing_clock_tick(struct db *db)
{
	_cleanup_result_ PGresult *result = NULL;
	int r = DB_QUERY(db, &result, "SELECT billing.tick()");

	/* A deadlock with a report or a worker: the next round does it. */
	return r == -EAGAIN ? 0 : r;
}
