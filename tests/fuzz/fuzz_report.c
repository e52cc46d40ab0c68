// SPDX-License-Identifier: BSD-2-Clause
/*
 * An agent's batch as the API checks it. What is accepted has, by a check written anew here, only counts that
 * the database can hold; what is refused says why.
 */
#include "fuzz.h"

#include "billing/report.h"

#include <errno.h>
#include <jansson.h>

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
	static const char *const counts[] = {"upload_bytes",     "download_bytes",    "upload_packets",
					     "download_packets", "undelivered_bytes", "refused_bytes"};
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *body = json_loadb((const char *)data, size, 0, NULL), *item;
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
		json_array_foreach (json_object_get(body, "records"), i, item)
			claim_record(item);
	}
	json_decref(body);
	return 0;
}
