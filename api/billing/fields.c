// SPDX-License-Identifier: BSD-2-Clause
#include "billing/fields.h"

#include "base/clock.h"
#include "resources/form.h"

#include <errno.h>

int read_uuid(const json_t *object, const char *field, const char **ret, struct json_problem *problem)
{
	const char *text;
	int r = json_read_string(object, field, &text, problem);

	if (r < 0)
		return r;
	if (!is_uuid(text)) {
		json_problem_set(problem, field, "%s is \"%.64s\"; accepted is a UUID", field, text);
		return -EINVAL;
	}
	*ret = text;
	return 0;
}

int read_instant(const json_t *object, const char *field, int64_t *ret_utc_ns, struct json_problem *problem)
{
	const char *text;
	int r = json_read_string(object, field, &text, problem);

	if (r < 0)
		return r;
	if (clock_parse(text, ret_utc_ns) < 0) {
		json_problem_set(
			problem, field,
			"%s is \"%.64s\"; accepted is an instant in UTC like 2026-11-22T14:10:45.123456Z",
			field, text);
		return -EINVAL;
	}
	return 0;
}

int read_count(const json_t *object, const char *field, struct json_problem *problem)
{
	uint64_t count;
	int r = json_read_u64(object, field, &count, problem);

	if (r < 0)
		return r;
	if (count > INT64_MAX) {
		json_problem_set(problem, field,
				 "%s is %ju; accepted are decimal digits up to 9223372036854775807", field,
				 (uintmax_t)count);
		return -EINVAL;
	}
	return 0;
}

int read_key(const json_t *object, const char *field, struct key *ret_key, struct json_problem *problem)
{
	const char *text;
	int r = json_read_string(object, field, &text, problem);

	if (r < 0)
		return r;
	r = key_parse(text, ret_key);
	if (r < 0)
		json_problem_set(problem, field,
				 "%s is not a WireGuard key; accepted are 44 characters of base64", field);
	return r;
}
