/* SPDX-License-Identifier: BSD-2-Clause */
/* Reports on their way into the database: written as rows by a worker each, and committed together
 * (docs/decisions/ingestion.md). */
#ifndef WIRETOLL_BILLING_INTAKE_H
#define WIRETOLL_BILLING_INTAKE_H

#include "route.h"

/*
 * Commits the prepared reports in one transaction and fills in their responses. -errno: nothing has been
 * committed and no response is filled in; -EAGAIN as for any handler.
 */
WT_MUST_CHECK int intake_commit(struct db *db, struct request *const *requests,
				struct response *const *responses, size_t n);

/* How many rows of usage a prepared report has. */
size_t intake_weight(const struct request *request);

#endif
