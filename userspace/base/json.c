// SPDX-License-Identifier: BSD-2-Clause
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/wipe.h"

void json_problem_set(struct json_problem *problem, const char *field, const char *format, ...)
{
	va_list args;

	if (!problem)
		return;
	snprintf(problem->field, sizeof(problem->field), "%s", field);
	va_start(args, format);
	vsnprintf(problem->message, sizeof(problem->message), format, args);
	va_end(args);
}

/* The field's value; NULL when absent or null. */
static const json_t *find(const json_t *object, const char *field)
{
	const json_t *value = json_object_get(object, field);

	return json_is_null(value) ? NULL : value;
}

static int wrong_type(const json_t *value, const char *field, const char *accepted,
		      struct json_problem *problem)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	json_problem_set(problem, field, "%s is %.80s; accepted is %s", field, text ? text : "?", accepted);
	free(text);
	return -EINVAL;
}

int json_read_string(const json_t *object, const char *field, const char **ret, struct json_problem *problem)
{
	const json_t *value = find(object, field);

	if (!value)
		return -ENOENT;
	if (!json_is_string(value))
		return wrong_type(value, field, "a string", problem);
	if (strlen(json_string_value(value)) != json_string_length(value)) {
		json_problem_set(problem, field, "%s holds a NUL character, which is not accepted", field);
		return -EINVAL;
	}
	*ret = json_string_value(value);
	return 0;
}

int json_read_bool(const json_t *object, const char *field, bool *ret, struct json_problem *problem)
{
	const json_t *value = find(object, field);

	if (!value)
		return -ENOENT;
	if (!json_is_boolean(value))
		return wrong_type(value, field, "true or false", problem);
	*ret = json_is_true(value);
	return 0;
}

int json_read_int(const json_t *object, const char *field, int64_t min, int64_t max, int64_t *ret,
		  struct json_problem *problem)
{
	const json_t *value = find(object, field);
	char accepted[96];

	if (!value)
		return -ENOENT;
	if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max) {
		snprintf(accepted, sizeof(accepted), "an integer from %" PRId64 " to %" PRId64, min, max);
		return wrong_type(value, field, accepted, problem);
	}
	*ret = json_integer_value(value);
	return 0;
}

int json_read_u64(const json_t *object, const char *field, uint64_t *ret, struct json_problem *problem)
{
	const json_t *value = find(object, field);
	const char *text;
	uint64_t number = 0;

	if (!value)
		return -ENOENT;
	text = json_string_value(value);
	if (!text || *text == '\0')
		goto wrong;
	for (const char *digit = text; *digit; digit++) {
		if (*digit < '0' || *digit > '9' || __builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(*digit - '0'), &number))
			goto wrong;
	}
	*ret = number;
	return 0;
wrong:
	return wrong_type(value, field, "a string of decimal digits up to 18446744073709551615", problem);
}

int json_read_array(const json_t *object, const char *field, const json_t **ret, struct json_problem *problem)
{
	const json_t *value = find(object, field);

	if (!value)
		return -ENOENT;
	if (!json_is_array(value))
		return wrong_type(value, field, "an array", problem);
	*ret = value;
	return 0;
}

int json_read_object(const json_t *object, const char *field, const json_t **ret,
		     struct json_problem *problem)
{
	const json_t *value = find(object, field);

	if (!value)
		return -ENOENT;
	if (!json_is_object(value))
		return wrong_type(value, field, "an object", problem);
	*ret = value;
	return 0;
}

int json_require(int result, const char *field, struct json_problem *problem)
{
	if (result != -ENOENT)
		return result;
	json_problem_set(problem, field, "%s is required", field);
	return -EINVAL;
}

json_t *json_u64(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return json_string(text);
}

void json_wipe_what_is_freed(void)
{
	json_set_alloc_funcs(malloc, wipe_and_free);
}

void cleanup_json(json_t **object)
{
	json_decref(*object);
}
