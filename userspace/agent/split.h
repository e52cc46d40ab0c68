/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Growth within an interval, shared out over the UTC hours it touches. Pure. Lengths are of the boot clock,
 * and the wall clock only names the hours, as it shows at the interval's end: a step of it makes no interval
 * longer, shorter or negative, and moves nothing further than the interval is long.
 */
#ifndef WIRETOLL_AGENT_SPLIT_H
#define WIRETOLL_AGENT_SPLIT_H

#include "base/base.h"

#define NSEC_PER_HOUR (3600 * NSEC_PER_SEC)

/* A month. Of a longer interval, what came before is told with the first of these hours. */
#define SPLIT_HOURS_MAX 744

struct split {
	size_t n; /* hours; at least one */
	int64_t first_hour_ns;
	uint64_t weights[SPLIT_HOURS_MAX]; /* nanoseconds in each hour */
	uint64_t whole;                    /* their sum */
};

/*
 * The hours of an interval that ended at utc_to_ns and began where the boot clock showed boot_from_ns. An
 * interval that ends at an hour's edge belongs to the hour before it.
 */
void split_interval(int64_t boot_from_ns, int64_t boot_to_ns, int64_t utc_to_ns, struct split *ret_split);

/*
 * Shares an amount out by the weights: integers that add up to it, each less than one from its exact share
 * (largest remainder). ret_parts has room for split->n.
 */
void split_share(const struct split *split, uint64_t amount, uint64_t *ret_parts);

#endif
