/* SPDX-License-Identifier: BSD-2-Clause */
/* The records of a report, in the order in which their totals were reached. */
#ifndef WIRETOLL_BILLING_SAMPLES_H
#define WIRETOLL_BILLING_SAMPLES_H

#include "base/base.h"
#include "base/uuid.h"

#include <wiretoll/report.h>

#include <jansson.h>

struct sample {
	int64_t slot, incarnation;
	uint8_t peer[UUID_SIZE]; /* zeros in slot 0 */
	int64_t hour_ns;
	uint64_t totals[WT_REPORT_N_COUNTS]; /* by enum wt_report_count */
	size_t index;                        /* in the report */
	bool split;                          /* divided by time, not measured at the hour's end */
};

struct sample_list {
	struct sample *samples; /* a slot's lie together */
	size_t n;
	bool shrunk;  /* in no order do the totals of each slot only grow, or a slot has two peers */
	bool tangled; /* a slot's hours are not in order: a clock was set back */
	bool several; /* a peer has more than one slot */
};

/* The array has passed report_check(). -ENOMEM. */
WT_MUST_CHECK int samples_read(const json_t *records, struct sample_list *ret_list);
/* Puts what has been read, with its indices, into order, and finds what there is to say of it. -ENOMEM. */
WT_MUST_CHECK int samples_order(struct sample_list *list);
bool sample_same_slot(const struct sample *a, const struct sample *b);

void cleanup_samples(struct sample_list *list);
#define _cleanup_samples_ WT_CLEANUP(cleanup_samples)

#endif
