/* SPDX-License-Identifier: BSD-2-Clause */
/* Readers of the values that agents and billing clients send, in the manner of base/json.h. */
#ifndef WIRETOLL_BILLING_FIELDS_H
#define WIRETOLL_BILLING_FIELDS_H

#include "base/json.h"
#include "base/key.h"

WT_MUST_CHECK int read_uuid(const json_t *object, const char *field, const char **ret,
			    struct json_problem *problem);
/* RFC 3339 in UTC, as nanoseconds since 1970. */
WT_MUST_CHECK int read_instant(const json_t *object, const char *field, int64_t *ret_utc_ns,
			       struct json_problem *problem);
/* A 64-bit count that fits PostgreSQL's bigint, in the digits that agents write. */
WT_MUST_CHECK int read_count(const json_t *object, const char *field, struct json_problem *problem);
/* A WireGuard key. Its text is not quoted in the problem: it might be a private one. */
WT_MUST_CHECK int read_key(const json_t *object, const char *field, struct key *ret_key,
			   struct json_problem *problem);
/* An address and a port as agents write them: 203.0.113.5:40001, [2001:db8::1]:40001. */
bool is_numeric_endpoint(const char *text);

#endif
