// SPDX-License-Identifier: BSD-2-Clause
/* The history as JSON. Counts are strings of digits, as everywhere. */
#include "standalone/history.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION  1
#define MAX_FILE (1 << 30)

/* One count of a struct, by name. */
struct count_field {
	const char *name;
	size_t offset;
};

#define COUNT(type, member)                                                                                  \
	{                                                                                                    \
#member, offsetof(type, member)                                                              \
	}

static const struct count_field TOTALS[] = {
	COUNT(struct meter_totals, upload_bytes),
	COUNT(struct meter_totals, upload_packets),
	COUNT(struct meter_totals, download_bytes),
	COUNT(struct meter_totals, download_packets),
	COUNT(struct meter_totals, refused_bytes),
	COUNT(struct meter_totals, refused_packets),
	{0},
};
static const struct count_field VOLUME[] = {
	COUNT(struct volume, upload_bytes),
	COUNT(struct volume, download_bytes),
	{0},
};
static const struct count_field DELIVERY[] = {
	COUNT(struct delivery, undelivered),
	COUNT(struct delivery, base_bytes),
	COUNT(struct delivery, base_packets),
	COUNT(struct delivery, base_sent),
	COUNT(struct delivery, base_undelivered),
	COUNT(struct delivery, last_sent),
	{0},
};

static json_t *write_counts(const struct count_field *fields, const void *data)
{
	json_t *object = json_object();

	for (; fields->name; fields++)
		json_object_set_new(object, fields->name,
				    json_u64(*(const uint64_t *)((const char *)data + fields->offset)));
	return object;
}

/* Absent is all zero. */
static int read_counts(const json_t *parent, const char *member, const struct count_field *fields, void *data,
		       struct json_problem *problem)
{
	const json_t *object;
	int r = json_read_object(parent, member, &object, problem);

	for (; r == 0 && fields->name; fields++)
		r = json_require(json_read_u64(object, fields->name,
					       (uint64_t *)((char *)data + fields->offset), problem),
				 fields->name, problem);
	return r == -ENOENT ? 0 : r;
}

/* ---- limits -------------------------------------------------------------------------------------------- */

static json_t *write_limit(const struct limit *limit)
{
	json_t *object;

	if (!limit->set && !limit->cycle)
		return json_null();
	object = json_object();
	json_object_set_new(object, "set", json_boolean(limit->set));
	json_object_set_new(object, "bytes", json_u64(limit->amount.bytes));
	json_object_set_new(object, "period", json_string(period_name(limit->amount.period)));
	json_object_set_new(object, "cycle", json_u64(limit->cycle));
	json_object_set_new(object, "cycle_period", json_string(period_name(limit->cycle_period)));
	json_object_set_new(object, "cycle_began", json_integer(limit->cycle_began));
	return object;
}

static int read_period(const json_t *object, const char *field, enum period *ret_period,
		       struct json_problem *problem)
{
	const char *text;
	int r = json_require(json_read_string(object, field, &text, problem), field, problem);

	return r < 0 ? r : period_parse(text, ret_period);
}

static int read_limit(const json_t *parent, struct limit *limit, struct json_problem *problem)
{
	const json_t *object;
	int r = json_read_object(parent, "limit", &object, problem);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = json_require(json_read_bool(object, "set", &limit->set, problem), "set", problem);
	if (r == 0)
		r = json_require(json_read_u64(object, "bytes", &limit->amount.bytes, problem), "bytes",
				 problem);
	if (r == 0)
		r = read_period(object, "period", &limit->amount.period, problem);
	if (r == 0)
		r = json_require(json_read_u64(object, "cycle", &limit->cycle, problem), "cycle", problem);
	if (r == 0)
		r = read_period(object, "cycle_period", &limit->cycle_period, problem);
	if (r == 0)
		r = json_require(
			json_read_int(object, "cycle_began", 0, INT64_MAX, &limit->cycle_began, problem),
			"cycle_began", problem);
	return r;
}

/* ---- records ------------------------------------------------------------------------------------------- */

static json_t *write_allowed_ips(const struct record *record)
{
	json_t *list = json_array();

	for (size_t i = 0; i < record->n_allowed_ips; i++) {
		char text[CIDR_TEXT_SIZE];

		json_array_append_new(list, json_string(cidr_format(&record->allowed_ips[i], text)));
	}
	return list;
}

static int read_allowed_ips(const json_t *object, struct record *record, struct json_problem *problem)
{
	const json_t *list, *item;
	size_t index;
	int r = json_require(json_read_array(object, "allowed_ips", &list, problem), "allowed_ips", problem);

	if (r < 0)
		return r;
	record->allowed_ips = calloc(json_array_size(list) + 1, sizeof(*record->allowed_ips));
	if (!record->allowed_ips)
		return -ENOMEM;
	json_array_foreach (list, index, item) {
		const char *text = json_string_value(item);

		if (!text || cidr_parse(text, &record->allowed_ips[index]) < 0)
			return -EINVAL;
		record->n_allowed_ips++;
	}
	return 0;
}

static json_t *write_record(const struct record *record)
{
	json_t *object = json_object(), *periods = json_object();
	char key[KEY_TEXT_SIZE];

	json_object_set_new(object, "public_key", json_string(key_format(&record->public_key, key)));
	json_object_set_new(object, "name", record->name ? json_string(record->name) : json_null());
	json_object_set_new(object, "present", json_boolean(record->present));
	json_object_set_new(object, "slot", json_integer(record->slot));
	json_object_set_new(object, "incarnation", json_integer(record->incarnation));
	json_object_set_new(object, "total", write_counts(TOTALS, &record->total));
	json_object_set_new(object, "cell", write_counts(TOTALS, &record->cell));
	json_object_set_new(object, "before_attach", write_counts(VOLUME, &record->before_attach));
	for (enum period period = PERIOD_DAY; period < PERIODS; period++) {
		json_t *began = write_counts(VOLUME, &record->period_began[period]);

		json_object_set_new(began, "undelivered", json_u64(record->period_undelivered[period]));
		json_object_set_new(periods, period_name(period), began);
	}
	json_object_set_new(object, "period_began", periods);
	json_object_set_new(object, "limit", write_limit(&record->limit));
	json_object_set_new(object, "delivery", write_counts(DELIVERY, &record->delivery));
	if (record->rx_short)
		json_object_set_new(object, "rx_short", json_true());
	json_object_set_new(object, "allowed_ips", write_allowed_ips(record));
	return object;
}

/* `periods` has a member for each: where it began. */
static int read_periods(const json_t *parent, struct volume *volumes, uint64_t *undelivered,
			struct json_problem *problem)
{
	const json_t *periods;
	int r = json_require(json_read_object(parent, "period_began", &periods, problem), "period_began",
			     problem);

	for (enum period period = PERIOD_DAY; r == 0 && period < PERIODS; period++) {
		const json_t *began = json_object_get(periods, period_name(period));

		r = read_counts(periods, period_name(period), VOLUME, &volumes[period], problem);
		if (r == 0 && began)
			r = json_require(json_read_u64(began, "undelivered", &undelivered[period], problem),
					 "undelivered", problem);
	}
	return r;
}

static int read_slot(const json_t *object, struct record *record, struct json_problem *problem)
{
	int64_t slot, incarnation;
	int r = json_require(json_read_bool(object, "present", &record->present, problem), "present",
			     problem);

	if (r == 0)
		r = json_require(json_read_int(object, "slot", 0, UINT32_MAX, &slot, problem), "slot",
				 problem);
	if (r == 0)
		r = json_require(json_read_int(object, "incarnation", 0, UINT32_MAX, &incarnation, problem),
				 "incarnation", problem);
	if (r < 0)
		return r;
	record->slot = (uint32_t)slot;
	record->incarnation = (uint32_t)incarnation;
	return 0;
}

static int read_record(const json_t *object, struct history *history, struct json_problem *problem)
{
	const char *text, *name;
	struct record *record;
	struct key key;
	int r = json_require(json_read_string(object, "public_key", &text, problem), "public_key", problem);

	if (r < 0 || key_parse(text, &key) < 0)
		return -EINVAL;
	record = history_take(history, &key);
	if (!record)
		return -ENOMEM;
	if (record->allowed_ips) {
		json_problem_set(problem, "public_key", "the public key %s stands there twice", text);
		return -EINVAL;
	}
	if (json_read_string(object, "name", &name, problem) == 0) {
		record->name = strdup(name);
		if (!record->name)
			return -ENOMEM;
	}
	r = read_slot(object, record, problem);
	if (r == 0)
		r = read_counts(object, "total", TOTALS, &record->total, problem);
	if (r == 0)
		r = read_counts(object, "cell", TOTALS, &record->cell, problem);
	if (r == 0)
		r = read_counts(object, "before_attach", VOLUME, &record->before_attach, problem);
	if (r == 0)
		r = read_periods(object, record->period_began, record->period_undelivered, problem);
	if (r == 0)
		r = read_limit(object, &record->limit, problem);
	if (r == 0)
		r = read_counts(object, "delivery", DELIVERY, &record->delivery, problem);
	if (r == 0) {
		r = json_read_bool(object, "rx_short", &record->rx_short, problem);
		r = r == -ENOENT ? 0 : r;
	}
	return r < 0 ? r : read_allowed_ips(object, record, problem);
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

static json_t *write_interface_periods(const struct history *history)
{
	json_t *periods = json_object();

	for (enum period period = PERIOD_DAY; period < PERIODS; period++) {
		json_t *began = write_counts(VOLUME, &history->interface_began[period]);

		json_object_set_new(began, "utc_ns", json_integer(history->period_began[period]));
		json_object_set_new(began, "undelivered", json_u64(history->interface_undelivered[period]));
		json_object_set_new(periods, period_name(period), began);
	}
	return periods;
}

static int read_interface_periods(const json_t *root, struct history *history, struct json_problem *problem)
{
	const json_t *periods = json_object_get(root, "period_began");
	int r = read_periods(root, history->interface_began, history->interface_undelivered, problem);

	for (enum period period = PERIOD_DAY; r == 0 && period < PERIODS; period++)
		r = json_require(json_read_int(json_object_get(periods, period_name(period)), "utc_ns", 0,
					       INT64_MAX, &history->period_began[period], problem),
				 "utc_ns", problem);
	return r;
}

static json_t *write_history(const struct history *history)
{
	json_t *root = json_object(), *records = json_array();
	char time[CLOCK_TEXT_SIZE], epoch[33];

	for (size_t i = 0; i < sizeof(history->epoch); i++)
		snprintf(epoch + 2 * i, 3, "%02x", history->epoch[i]);
	json_object_set_new(root, "version", json_integer(VERSION));
	json_object_set_new(root, "saved", json_string(clock_format(clock_utc_ns(), time)));
	json_object_set_new(root, "interface", json_string(history->interface));
	json_object_set_new(root, "wireguard", json_string(history->wireguard));
	json_object_set_new(root, "reattached", json_u64(history->reattached));
	json_object_set_new(root, "place", json_string(history->place));
	json_object_set_new(root, "epoch", json_string(epoch));
	json_object_set_new(root, "accounting", json_integer(history->accounting));
	json_object_set_new(root, "period_began", write_interface_periods(history));
	json_object_set_new(root, "limit", write_limit(&history->limit));
	for (size_t i = 0; i < history->n_records; i++)
		json_array_append_new(records, write_record(history->records[i]));
	json_object_set_new(root, "records", records);
	return root;
}

int history_save(const struct history *history, const char *path)
{
	_cleanup_json_ json_t *root = write_history(history);
	_cleanup_free_ char *text = json_dumps(root, JSON_COMPACT);

	if (!text)
		return -ENOMEM;
	return file_replace(path, text, strlen(text), 0600);
}

static int read_short_text(const json_t *root, const char *field, char *buffer, size_t size,
			   struct json_problem *problem)
{
	const char *text;
	int r = json_require(json_read_string(root, field, &text, problem), field, problem);

	if (r < 0)
		return r;
	if (strlen(text) >= size)
		return -EINVAL;
	memcpy(buffer, text, strlen(text) + 1);
	return 0;
}

/* What files of earlier versions do not have. */
static int read_newer(const json_t *root, struct history *history, struct json_problem *problem)
{
	const char *text;
	int r = json_read_string(root, "wireguard", &text, problem);

	if (r == 0)
		r = read_short_text(root, "wireguard", history->wireguard, sizeof(history->wireguard),
				    problem);
	if (r == 0 || r == -ENOENT)
		r = json_read_u64(root, "reattached", &history->reattached, problem);
	return r == -ENOENT ? 0 : r;
}

static int read_epoch(const json_t *root, uint8_t *epoch, struct json_problem *problem)
{
	char text[33];
	int r = read_short_text(root, "epoch", text, sizeof(text), problem);

	for (size_t i = 0; r == 0 && i < 16; i++)
		if (sscanf(text + 2 * i, "%2hhx", &epoch[i]) != 1)
			r = -EINVAL;
	return r;
}

static int read_history(const json_t *root, struct history *history, struct json_problem *problem)
{
	const json_t *records, *item;
	int64_t version, accounting;
	size_t index;
	int r = json_require(json_read_int(root, "version", VERSION, VERSION, &version, problem), "version",
			     problem);

	if (r == 0)
		r = read_short_text(root, "interface", history->interface, sizeof(history->interface),
				    problem);
	if (r == 0)
		r = read_newer(root, history, problem);
	if (r == 0)
		r = read_short_text(root, "place", history->place, sizeof(history->place), problem);
	if (r == 0)
		r = read_epoch(root, history->epoch, problem);
	if (r == 0)
		r = json_require(json_read_int(root, "accounting", 1, 3, &accounting, problem), "accounting",
				 problem);
	if (r == 0)
		r = read_interface_periods(root, history, problem);
	if (r == 0)
		r = read_limit(root, &history->limit, problem);
	if (r == 0)
		r = json_require(json_read_array(root, "records", &records, problem), "records", problem);
	if (r < 0)
		return r;
	history->accounting = (uint32_t)accounting;
	json_array_foreach (records, index, item) {
		r = read_record(item, history, problem);
		if (r < 0)
			return r;
	}
	return 0;
}

int history_load(const char *path, struct history *ret_history, struct json_problem *problem)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *root = NULL;
	struct history history;
	struct json_problem field = {.message = "it is damaged"};
	size_t length;
	int r = file_read(path, MAX_FILE, &text, &length);

	if (r < 0) {
		json_problem_set(problem, "state", "could not read %s: %s", path, strerror(-r));
		return r;
	}
	root = json_loadb(text, length, 0, NULL);
	if (!root) {
		json_problem_set(problem, "state", "%s is no history of wiretoll meter", path);
		return -EBADMSG;
	}
	r = history_create("", &history);
	if (r == 0) {
		r = read_history(root, &history, &field);
		if (r < 0)
			history_free(&history);
	}
	if (r < 0) {
		json_problem_set(problem, "state", "%s is no history of wiretoll meter: %.200s", path,
				 field.message);
		return r == -ENOMEM ? r : -EBADMSG;
	}
	*ret_history = history;
	return 0;
}
