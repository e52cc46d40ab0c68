// SPDX-License-Identifier: BSD-2-Clause
#include "agent/split.h"

#include <stdlib.h>

#include "base/clock.h"

void split_interval(int64_t boot_from_ns, int64_t boot_to_ns, int64_t utc_to_ns, struct split *ret_split)
{
	int64_t length = boot_to_ns > boot_from_ns ? boot_to_ns - boot_from_ns : 0;
	int64_t last = clock_hour_start(length > 0 ? utc_to_ns - 1 : utc_to_ns);
	int64_t begin = utc_to_ns - length, first = clock_hour_start(begin);

	if (first < last - (SPLIT_HOURS_MAX - 1) * NSEC_PER_HOUR)
		first = last - (SPLIT_HOURS_MAX - 1) * NSEC_PER_HOUR;
	ret_split->first_hour_ns = first;
	ret_split->n = (size_t)((last - first) / NSEC_PER_HOUR) + 1;
	ret_split->whole = (uint64_t)length;
	for (size_t i = 0; i < ret_split->n; i++) {
		int64_t from = i == 0 ? begin : first + (int64_t)i * NSEC_PER_HOUR;
		int64_t to = i + 1 == ret_split->n ? utc_to_ns : first + (int64_t)(i + 1) * NSEC_PER_HOUR;

		ret_split->weights[i] = (uint64_t)(to - from);
	}
}

struct remainder {
	uint64_t left;
	size_t hour;
};

/* Largest first; of equal ones the earlier hour. */
static int compare_remainders(const void *a, const void *b)
{
	const struct remainder *left = a, *right = b;

	if (left->left != right->left)
		return left->left < right->left ? 1 : -1;
	return (left->hour > right->hour) - (left->hour < right->hour);
}

void split_share(const struct split *split, uint64_t amount, uint64_t *ret_parts)
{
	struct remainder remainders[SPLIT_HOURS_MAX];
	uint64_t given = 0;

	if (split->n == 1) {
		ret_parts[0] = amount;
		return;
	}
	for (size_t i = 0; i < split->n; i++) {
		unsigned __int128 exact = (unsigned __int128)amount * split->weights[i];

		ret_parts[i] = (uint64_t)(exact / split->whole);
		remainders[i] = (struct remainder){(uint64_t)(exact % split->whole), i};
		given += ret_parts[i];
	}
	if (given < amount)
		qsort(remainders, split->n, sizeof(*remainders), compare_remainders);
	for (size_t i = 0; given < amount; i++, given++)
		ret_parts[remainders[i].hour]++;
}
