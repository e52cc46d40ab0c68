/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Time. Intervals and order come from the boot clock (CLOCK_BOOTTIME: monotonic, runs through suspend); wall
 * time is UTC and only says which hour something belongs to.
 */
#ifndef WIRETOLL_BASE_CLOCK_H
#define WIRETOLL_BASE_CLOCK_H

#include "base/base.h"

#define CLOCK_TEXT_SIZE 28 /* "2026-11-22T14:10:45.123456Z" and its NUL */

/* Nanoseconds since boot; nanoseconds since 1970 UTC. */
int64_t clock_boot_ns(void);
int64_t clock_utc_ns(void);

/* Nanoseconds of CPU time that this thread has used: what its work costs, however busy the machine is. */
int64_t clock_cpu_ns(void);

/* RFC 3339 in UTC with microseconds; the buffer has CLOCK_TEXT_SIZE bytes; returns it. */
const char *clock_format(int64_t utc_ns, char *buffer);

/* Parses RFC 3339 with "Z" and up to nine decimals. Returns -EINVAL. */
WT_MUST_CHECK int clock_parse(const char *text, int64_t *ret_utc_ns);

/* The beginning of the UTC hour that holds the instant. */
int64_t clock_hour_start(int64_t utc_ns);

#endif
