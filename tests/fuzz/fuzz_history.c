// SPDX-License-Identifier: BSD-2-Clause
/* The standalone meter's state file. What is read can be written, and reads the same. */
#include "fuzz.h"

#include "standalone/history.h"

#include <errno.h>

#define SAVED "history.json"

static void claim_same_volumes(const struct volume *a, const struct volume *b)
{
	CLAIM(a->upload_bytes == b->upload_bytes && a->download_bytes == b->download_bytes);
}

static void claim_same_record(const struct record *a, const struct record *b)
{
	CLAIM(key_equal(&a->public_key, &b->public_key));
	CLAIM(!a->name == !b->name && (!a->name || strcmp(a->name, b->name) == 0));
	CLAIM(a->present == b->present && a->slot == b->slot && a->incarnation == b->incarnation);
	CLAIM(memcmp(&a->total, &b->total, sizeof(a->total)) == 0);
	CLAIM(memcmp(&a->cell, &b->cell, sizeof(a->cell)) == 0);
	claim_same_volumes(&a->before_attach, &b->before_attach);
	for (enum period period = PERIOD_DAY; period < PERIODS; period++) {
		claim_same_volumes(&a->period_began[period], &b->period_began[period]);
		CLAIM(a->period_undelivered[period] == b->period_undelivered[period]);
	}
	CLAIM(a->limit.set == b->limit.set && a->limit.amount.bytes == b->limit.amount.bytes &&
	      a->limit.cycle == b->limit.cycle);
	CLAIM(a->delivery.undelivered == b->delivery.undelivered);
	CLAIM(a->n_allowed_ips == b->n_allowed_ips);
	for (size_t i = 0; i < a->n_allowed_ips; i++)
		CLAIM(cidr_equal(&a->allowed_ips[i], &b->allowed_ips[i]));
}

static void claim_same(const struct history *a, const struct history *b)
{
	CLAIM(strcmp(a->interface, b->interface) == 0 && strcmp(a->place, b->place) == 0);
	CLAIM(memcmp(a->epoch, b->epoch, sizeof(a->epoch)) == 0);
	CLAIM(a->accounting == b->accounting);
	CLAIM(memcmp(a->period_began, b->period_began, sizeof(a->period_began)) == 0);
	CLAIM(a->n_records == b->n_records);
	for (size_t i = 0; i < a->n_records; i++)
		claim_same_record(a->records[i], b->records[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_problem problem = {0};
	struct history history, again;
	int r = history_load(file_of(data, size), &history, &problem);

	CLAIM(r == 0 || r == -EBADMSG);
	if (r < 0) {
		CLAIM(problem.message[0]);
		return 0;
	}
	CLAIM(history.n_records >= 1 && key_is_zero(&history.records[0]->public_key));
	for (size_t i = 0; i < history.n_records; i++)
		CLAIM(history_find(&history, &history.records[i]->public_key) == history.records[i]);
	CLAIM(history_save(&history, SAVED) == 0);
	CLAIM(history_load(SAVED, &again, &problem) == 0);
	claim_same(&history, &again);
	history_free(&again);
	history_free(&history);
	return 0;
}
