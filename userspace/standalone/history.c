// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct key no_key;

static void record_free(struct record *record)
{
	if (!record)
		return;
	free(record->name);
	free(record->allowed_ips);
	free(record);
}

void history_free(struct history *history)
{
	for (size_t i = 0; i < history->n_records; i++)
		record_free(history->records[i]);
	free(history->records);
	*history = (struct history){0};
}

int history_create(const char *interface, struct history *ret_history)
{
	struct history history = {.accounting = WT_UPLOADS | WT_DOWNLOADS};

	memcpy(history.interface, interface, strnlen(interface, sizeof(history.interface) - 1));
	if (!history_take(&history, &no_key))
		return -ENOMEM;
	*ret_history = history;
	return 0;
}

/* Where the key is, or would be put. */
static size_t place_of(const struct history *history, const struct key *public_key)
{
	size_t low = 0, high = history->n_records;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (memcmp(history->records[middle]->public_key.bytes, public_key->bytes, KEY_SIZE) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct record *history_find(const struct history *history, const struct key *public_key)
{
	size_t place = place_of(history, public_key);

	if (place == history->n_records || !key_equal(&history->records[place]->public_key, public_key))
		return NULL;
	return history->records[place];
}

struct record *history_take(struct history *history, const struct key *public_key)
{
	struct record *record = history_find(history, public_key);
	size_t place = place_of(history, public_key);

	if (record)
		return record;
	if (history->n_records == history->size) {
		size_t size = history->size ? 2 * history->size : 16;
		struct record **larger = realloc(history->records, size * sizeof(struct record *));

		if (!larger)
			return NULL;
		history->records = larger;
		history->size = size;
	}
	record = calloc(1, sizeof(*record));
	if (!record)
		return NULL;
	record->public_key = *public_key;
	memmove(history->records + place + 1, history->records + place,
		(history->n_records - place) * sizeof(struct record *));
	history->records[place] = record;
	history->n_records++;
	return record;
}

void history_end_epoch(struct history *history)
{
	memset(history->epoch, 0, sizeof(history->epoch));
	memset(history->place, 0, sizeof(history->place));
	for (size_t i = 0; i < history->n_records; i++) {
		struct record *record = history->records[i];

		record->slot = record->incarnation = 0;
		record->present = false;
		record->cell = (struct meter_totals){0};
		record->before_attach = (struct volume){0};
		record->rx_short = false;
		audit_forget(&record->audit);
	}
}

void history_next_epoch(struct history *history, const uint8_t epoch[static 16])
{
	memcpy(history->epoch, epoch, sizeof(history->epoch));
	for (size_t i = 0; i < history->n_records; i++)
		history->records[i]->cell = (struct meter_totals){0};
}

#define EACH_COUNT(DO)                                                                                       \
	DO(upload_bytes)                                                                                     \
	DO(upload_packets) DO(download_bytes) DO(download_packets) DO(refused_bytes) DO(refused_packets)

bool record_add(struct record *record, const struct meter_totals *cell)
{
	bool grew = false;

#define ADD(count)                                                                                           \
	grew |= cell->count != record->cell.count;                                                           \
	record->total.count += cell->count - record->cell.count;
	EACH_COUNT(ADD)
#undef ADD
	record->cell = *cell;
	return grew;
}

static struct volume volume_of(const struct meter_totals *totals)
{
	return (struct volume){totals->upload_bytes, totals->download_bytes};
}

struct volume history_sum(const struct history *history)
{
	struct volume sum = {0};

	for (size_t i = 0; i < history->n_records; i++) {
		sum.upload_bytes += history->records[i]->total.upload_bytes;
		sum.download_bytes += history->records[i]->total.download_bytes;
	}
	return sum;
}

uint64_t history_undelivered(const struct history *history)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < history->n_records; i++)
		sum += history->records[i]->delivery.undelivered;
	return sum;
}

static void turn_period(struct history *history, enum period period)
{
	history->interface_began[period] = history_sum(history);
	history->interface_undelivered[period] = history_undelivered(history);
	for (size_t i = 0; i < history->n_records; i++) {
		struct record *record = history->records[i];

		record->period_began[period] = volume_of(&record->total);
		record->period_undelivered[period] = record->delivery.undelivered;
	}
}

bool history_is_due(const struct history *history, int64_t utc_ns)
{
	bool due = false;

	for (enum period period = PERIOD_DAY; period < PERIODS; period++)
		due |= period_start(period, utc_ns) > history->period_began[period];
	return due;
}

bool history_turn(struct history *history, int64_t utc_ns)
{
	bool turned = false;

	for (enum period period = PERIOD_DAY; period < PERIODS; period++) {
		int64_t began = period_start(period, utc_ns);

		if (began <= history->period_began[period])
			continue;
		history->period_began[period] = began;
		turn_period(history, period);
		turned = true;
	}
	return turned;
}

uint64_t volume_counted(const struct volume *volume, uint32_t accounting)
{
	return (accounting & WT_UPLOADS ? volume->upload_bytes : 0) +
	       (accounting & WT_DOWNLOADS ? volume->download_bytes : 0);
}

static uint64_t used(const struct history *history, const struct volume *now, const struct volume *began,
		     uint64_t undelivered)
{
	uint64_t counted =
		volume_counted(now, history->accounting) - volume_counted(began, history->accounting);

	if (!(history->accounting & WT_DOWNLOADS))
		return counted;
	return counted > undelivered ? counted - undelivered : 0;
}

uint64_t record_used(const struct history *history, const struct record *record)
{
	enum period period = record->limit.amount.period;
	struct volume now = volume_of(&record->total);

	return used(history, &now, &record->period_began[period],
		    record->delivery.undelivered - record->period_undelivered[period]);
}

uint64_t history_used(const struct history *history)
{
	enum period period = history->limit.amount.period;
	struct volume now = history_sum(history);

	return used(history, &now, &history->interface_began[period],
		    history_undelivered(history) - history->interface_undelivered[period]);
}
