/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading JSON objects field by field. Every reader returns 0, -ENOENT when the field is absent or null (the
 * output is then untouched and nothing is a problem yet), or -EINVAL with a message that names field, value
 * and what is accepted. json_require() turns -ENOENT into such a message.
 */
#ifndef WIRETOLL_BASE_JSON_H
#define WIRETOLL_BASE_JSON_H

#include "base/base.h"

#include <jansson.h>

struct json_problem {
	char field[64];
	char message[320];
};

WT_MUST_CHECK int json_read_string(const json_t *object, const char *field, const char **ret,
				   struct json_problem *problem);
WT_MUST_CHECK int json_read_bool(const json_t *object, const char *field, bool *ret,
				 struct json_problem *problem);
/* An integer within [min, max]; JSON integers only. */
WT_MUST_CHECK int json_read_int(const json_t *object, const char *field, int64_t min, int64_t max,
				int64_t *ret, struct json_problem *problem);
/* A 64-bit count: a JSON string of decimal digits, as jansson's and browsers' integers end below 2^64. */
WT_MUST_CHECK int json_read_u64(const json_t *object, const char *field, uint64_t *ret,
				struct json_problem *problem);
WT_MUST_CHECK int json_read_array(const json_t *object, const char *field, const json_t **ret,
				  struct json_problem *problem);
WT_MUST_CHECK int json_read_object(const json_t *object, const char *field, const json_t **ret,
				   struct json_problem *problem);

/* Passes `result` on; for -ENOENT fills in "FIELD is required" and returns -EINVAL. */
WT_MUST_CHECK int json_require(int result, const char *field, struct json_problem *problem);

/* A new JSON string of an unsigned 64-bit count. */
json_t *json_u64(uint64_t value);

/*
 * From here on all memory of jansson's is wiped when it is freed, and so are its parser's copies: for a
 * program that is told secrets in JSON. To be called before the first use.
 */
void json_wipe_what_is_freed(void);

void json_problem_set(struct json_problem *problem, const char *field, const char *format, ...)
	WT_PRINTF(3, 4);

void cleanup_json(json_t **object);
#define _cleanup_json_ WT_CLEANUP(cleanup_json)

#endif
