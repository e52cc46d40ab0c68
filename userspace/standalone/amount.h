/* SPDX-License-Identifier: BSD-2-Clause */
/* Limits as a person writes them: "50GB/month". A period is a calendar day or month in UTC. */
#ifndef WIRETOLL_STANDALONE_AMOUNT_H
#define WIRETOLL_STANDALONE_AMOUNT_H

#include "base/base.h"

enum period { PERIOD_EVER, PERIOD_DAY, PERIOD_MONTH, PERIODS };

struct amount {
	uint64_t bytes;
	enum period period;
};

/* What amount_parse() accepts, for messages. */
#define AMOUNT_ACCEPTED                                                                                      \
	"bytes, or a number with kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB or PiB, and then maybe /day or "     \
	"/month"

/*
 * "1000000", "1.5GB", "50GiB/month". Units are decimal (kB, MB, GB, TB, PB) or binary (KiB, MiB, GiB, TiB,
 * PiB) in any case, B or none is bytes; fractions must come to whole bytes. Returns -EINVAL, or -ERANGE from
 * 2^63 on.
 */
WT_MUST_CHECK int amount_parse(const char *text, struct amount *ret_amount);

/* "ever", "day", "month", and back; -EINVAL for anything else. */
const char *period_name(enum period period);
WT_MUST_CHECK int period_parse(const char *text, enum period *ret_period);

/* When the period that holds the instant began, and when the next begins (INT64_MAX for PERIOD_EVER; it began
 * at 0). Nanoseconds since 1970 UTC. */
int64_t period_start(enum period period, int64_t utc_ns);
int64_t period_end(enum period period, int64_t utc_ns);

#endif
