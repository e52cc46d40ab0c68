// SPDX-License-Identifier: BSD-2-Clause
/*
 * An agent's batch as the API checks it. What is accepted has, by a check written anew here, only counts that
 * the database can hold; what is refused says why.
 */
#include "fuzz.h"

#include "billing/records.h"
#include "billing/report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void claim_count(const json_t *object, const char *field)
{
	const char *text = json_string_value(json_object_get(object, field));
	unsigned __int128 value = 0;

	CLAIM(text && *text);
	for (; *text; text++) {
		CLAIM(*text >= '0' && *text <= '9');
		value = value * 10 + (unsigned)(*text - '0');
		CLAIM(value <= INT64_MAX);
	}
}

static void claim_record(const json_t *record)
{
	static const char *const counts[] = WT_REPORT_COUNT_NAMES;
	json_int_t slot = json_integer_value(json_object_get(record, "slot"));
	const char *peer = json_string_value(json_object_get(record, "peer"));
	const char *hour = json_string_value(json_object_get(record, "hour"));

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		claim_count(record, counts[i]);
	CLAIM(slot >= 0 && slot <= INT32_MAX);
	CLAIM((slot == 0) == (peer == NULL));
	CLAIM(!peer || (strlen(peer) == 36 && peer[8] == '-'));
	CLAIM(hour && strlen(hour) >= 20 && strncmp(hour + 13, ":00:00", 6) == 0);
}

/* What is read without JSON is what JSON says. */
static void claim_same(const uint8_t *data, size_t size, const json_t *body)
{
	_cleanup_samples_ struct sample_list taken = {0}, read = {0};
	size_t rest_length;
	char *rest;

	if (records_take((const char *)data, size, &taken, &rest, &rest_length) < 0)
		return;
	free(rest);
	CLAIM(samples_read(json_object_get(body, "records"), &read) == 0);
	CLAIM(taken.n == read.n && taken.shrunk == read.shrunk && taken.tangled == read.tangled &&
	      taken.several == read.several);
	for (size_t i = 0; i < read.n; i++) {
		const struct sample *a = &taken.samples[i], *b = &read.samples[i];

		CLAIM(a->slot == b->slot && a->incarnation == b->incarnation && a->hour_ns == b->hour_ns &&
		      a->split == b->split && memcmp(a->peer, b->peer, sizeof(a->peer)) == 0 &&
		      memcmp(a->totals, b->totals, sizeof(a->totals)) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *body = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL), *item;
	struct json_problem problem = {0};
	size_t i;
	int r;

	if (!json_is_object(body)) {
		json_decref(body);
		return 0;
	}
	r = report_check(body, &problem);
	CLAIM(r == 0 || r == -EINVAL);
	if (r < 0) {
		CLAIM(problem.message[0]);
		CLAIM(memchr(problem.field, '\0', sizeof(problem.field)));
	} else {
		claim_count(body, "counted");
		CLAIM(json_array_size(json_object_get(body, "states")) <= 64);
		json_array_foreach (json_object_get(body, "records"), i, item)
			claim_record(item);
		claim_same(data, size, body);
	}
	json_decref(body);
	return 0;
}
