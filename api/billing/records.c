// SPDX-License-Identifier: BSD-2-Clause
#include "billing/records.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME "\"records\":["
/* What stands before a count: the end of the text before it, and its name. */
#define BEFORE_COUNT(name) "\",\"" #name "\":\"",
#define HOUR_LENGTH        (CLOCK_TEXT_SIZE - 1)

struct cursor {
	const char *at, *end;
	char hour[CLOCK_TEXT_SIZE]; /* the last one read: neighbours mostly have the same */
	int64_t hour_ns;
};

static bool take(struct cursor *cursor, const char *text)
{
	size_t length = strlen(text);

	if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, text, length) != 0)
		return false;
	cursor->at += length;
	return true;
}

/* Digits without a leading zero: JSON has none. */
static bool take_number(struct cursor *cursor, uint64_t max, uint64_t *ret)
{
	const char *begin = cursor->at;
	uint64_t number = 0;

	/* Nineteen digits fit. */
	while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9' &&
	       cursor->at - begin < 19)
		number = number * 10 + (uint64_t)(*cursor->at++ - '0');
	*ret = number;
	return cursor->at > begin && (*begin != '0' || cursor->at - begin == 1) && number <= max;
}

/* Slot 0, and only it, belongs to no peer. */
static bool take_peer(struct cursor *cursor, struct sample *sample)
{
	if (sample->slot == 0)
		return take(cursor, "null");
	if (cursor->end - cursor->at < UUID_TEXT_LENGTH + 2 || *cursor->at != '"' ||
	    uuid_parse_front(cursor->at + 1, sample->peer) < 0)
		return false;
	cursor->at += 1 + UUID_TEXT_LENGTH;
	return take(cursor, "\"");
}

static bool take_hour(struct cursor *cursor, int64_t *ret)
{
	if (cursor->end - cursor->at < HOUR_LENGTH)
		return false;
	if (memcmp(cursor->at, cursor->hour, HOUR_LENGTH) != 0) {
		memcpy(cursor->hour, cursor->at, HOUR_LENGTH);
		if (clock_parse(cursor->hour, &cursor->hour_ns) < 0 ||
		    clock_hour_start(cursor->hour_ns) != cursor->hour_ns)
			return false;
	}
	cursor->at += HOUR_LENGTH;
	*ret = cursor->hour_ns;
	return true;
}

static bool take_record(struct cursor *cursor, struct sample *ret)
{
	static const char *const counts[] = {WT_REPORT_COUNTS(BEFORE_COUNT)};
	uint64_t slot, incarnation;

	if (!take(cursor, "{\"slot\":") || !take_number(cursor, INT32_MAX, &slot) ||
	    !take(cursor, ",\"incarnation\":") || !take_number(cursor, INT64_MAX, &incarnation))
		return false;
	*ret = (struct sample){.slot = (int64_t)slot, .incarnation = (int64_t)incarnation};
	if (!take(cursor, ",\"peer\":") || !take_peer(cursor, ret) || !take(cursor, ",\"hour\":\"") ||
	    !take_hour(cursor, &ret->hour_ns))
		return false;
	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++) {
		if (!take(cursor, counts[i]) || !take_number(cursor, INT64_MAX, &ret->totals[i]))
			return false;
	}
	if (!take(cursor, "\""))
		return false;
	ret->split = take(cursor, ",\"split\":true");
	return take(cursor, "}");
}

static int take_records(struct cursor *cursor, struct sample_list *list)
{
	size_t room = 0;

	if (take(cursor, "]"))
		return 0;
	do {
		if (list->n == room) {
			struct sample *larger;

			room = room ? 2 * room : 64;
			larger = reallocarray(list->samples, room, sizeof(*larger));
			if (!larger)
				return -ENOMEM;
			list->samples = larger;
		}
		if (!take_record(cursor, &list->samples[list->n]))
			return -ENODATA;
		list->samples[list->n].index = list->n;
		list->n++;
	} while (take(cursor, ","));
	return take(cursor, "]") ? 0 : -ENODATA;
}

/* Behind the name of the records in the body's own object; NULL when it is not there. A name in a text is a
 * text's part, in an inner object its depth tells. */
static const char *find_records(const char *body, size_t length)
{
	unsigned depth = 0;

	for (size_t i = 0; i < length; i++) {
		if (body[i] == '{' || body[i] == '[') {
			depth++;
		} else if (body[i] == '}' || body[i] == ']') {
			depth--;
		} else if (body[i] == '"') {
			if (depth == 1 && length - i >= strlen(NAME) &&
			    memcmp(body + i, NAME, strlen(NAME)) == 0)
				return body + i + strlen(NAME);
			while (++i < length && body[i] != '"')
				i += body[i] == '\\';
		}
	}
	return NULL;
}

int records_take(const char *body, size_t length, struct sample_list *ret_list, char **ret_rest,
		 size_t *ret_rest_length)
{
	_cleanup_samples_ struct sample_list list = {0};
	const char *begin = find_records(body, length);
	struct cursor cursor = {.at = begin, .end = body + length};
	size_t before, behind;
	char *rest;
	int r;

	if (!begin)
		return -ENODATA;
	r = take_records(&cursor, &list);
	if (r == 0)
		r = samples_order(&list);
	if (r < 0)
		return r;
	before = (size_t)(begin - body);
	behind = (size_t)(cursor.end - cursor.at) + 1; /* with the array's end */
	rest = malloc(before + behind);
	if (!rest)
		return -ENOMEM;
	memcpy(rest, body, before);
	memcpy(rest + before, cursor.at - 1, behind);
	*ret_rest = rest;
	*ret_rest_length = before + behind;
	*ret_list = list;
	list.samples = NULL;
	return 0;
}
