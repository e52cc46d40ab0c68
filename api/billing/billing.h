/* SPDX-License-Identifier: BSD-2-Clause */
/* The billing clock: what turns reported hours and bytes into lines of the ledger. */
#ifndef WIRETOLL_API_BILLING_H
#define WIRETOLL_API_BILLING_H

#include "base/base.h"
#include "store/db.h"

/* One round, about once a second, by any number of replicas at once. Returns -errno of db_query(). */
WT_MUST_CHECK int billing_clock_tick(struct db *db);

#endif
