// SPDX-License-Identifier: BSD-2-Clause
#include "billing/fields.h"

#include "base/clock.h"
#include "resources/form.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
	const char *text;
	uint64_t count;
	int r = json_read_u64(object, field, &count, problem);

	if (r < 0)
		return r;
	text = json_string_value(json_object_get(object, field));
	if (count > INT64_MAX || (text[0] == '0' && text[1])) {
		json_problem_set(problem, field,
				 "%s is \"%.32s\"; accepted are decimal digits up to 9223372036854775807, "
				 "without leading zeros",
				 field, text);
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
	if (r == 0 && key_is_zero(ret_key))
		r = -EINVAL;
	if (r < 0)
		json_problem_set(
			problem, field,
			"%s is not a WireGuard key; accepted are 44 characters of base64, not all zeros",
			field);
	return r;
}

static bool is_port(const char *text)
{
	size_t length = strlen(text);

	return length > 0 && length <= 5 && text[0] != '0' && strspn(text, "0123456789") == length &&
	       strtoul(text, NULL, 10) <= UINT16_MAX;
}

bool is_numeric_endpoint(const char *text)
{
	char host[INET6_ADDRSTRLEN];
	struct in6_addr address;
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	bool is_bracketed = length >= 2 && text[0] == '[' && colon[-1] == ']';

	if (is_bracketed) {
		text++;
		length -= 2;
	}
	if (length == 0 || length >= sizeof(host))
		return false;
	memcpy(host, text, length);
	host[length] = '\0';
	return inet_pton(is_bracketed ? AF_INET6 : AF_INET, host, &address) == 1 && is_port(colon + 1);
}
