// SPDX-License-Identifier: BSD-2-Clause
/* A sample, for machines and for people. */
#include "cli/meter.h"

#include "base/clock.h"
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS "peer=PEER,upload=UPLOAD,download=DOWNLOAD,refused=REFUSED,limit=LIMIT,state=STATE"

const char *peer_title(const struct record *record, char key[static KEY_TEXT_SIZE])
{
	return record->name ? record->name : key_format(&record->public_key, key);
}

const char *limit_format(const struct limit *limit, uint64_t used, char buffer[static LIMIT_TEXT_SIZE])
{
	char used_text[BYTES_TEXT_SIZE], limit_text[BYTES_TEXT_SIZE];
	enum period period = limit->amount.period;

	*buffer = '\0';
	if (limit->set)
		snprintf(buffer, LIMIT_TEXT_SIZE, "%s of %s%s%s", bytes_format(used, used_text),
			 bytes_format(limit->amount.bytes, limit_text), period == PERIOD_EVER ? "" : "/",
			 period == PERIOD_EVER ? "" : period_name(period));
	return buffer;
}

/* Peers that WireGuard has, and for the last time those that it just lost. */
static bool is_shown(const struct record *record)
{
	return record->present || record->slot;
}

static void set_count(json_t *object, const char *member, uint64_t count)
{
	json_object_set_new(object, member, json_integer((json_int_t)count));
}

static void set_totals(json_t *object, const struct meter_totals *totals)
{
	set_count(object, "upload_bytes", totals->upload_bytes);
	set_count(object, "download_bytes", totals->download_bytes);
	set_count(object, "upload_packets", totals->upload_packets);
	set_count(object, "download_packets", totals->download_packets);
}

static void set_limit(json_t *object, const struct limit *limit, uint64_t used, bool limited)
{
	json_object_set_new(object, "limit_bytes",
			    limit->set ? json_integer((json_int_t)limit->amount.bytes) : json_null());
	json_object_set_new(object, "used_bytes", limit->set ? json_integer((json_int_t)used) : json_null());
	json_object_set_new(object, "state", json_string(limited ? "limited" : "ok"));
}

static json_t *allowed_ips_json(const struct record *record)
{
	json_t *list = json_array();

	for (size_t i = 0; i < record->n_allowed_ips; i++) {
		char text[CIDR_TEXT_SIZE];

		json_array_append_new(list, json_string(cidr_format(&record->allowed_ips[i], text)));
	}
	return list;
}

static json_t *peer_json(const struct station *station, const struct record *record)
{
	json_t *peer = json_object(), *before = json_object();
	char key[KEY_TEXT_SIZE];

	json_object_set_new(peer, "public_key", json_string(key_format(&record->public_key, key)));
	json_object_set_new(peer, "name", record->name ? json_string(record->name) : json_null());
	json_object_set_new(peer, "allowed_ips", allowed_ips_json(record));
	set_totals(peer, &record->total);
	set_count(peer, "refused_bytes", record->total.refused_bytes);
	set_count(peer, "undelivered_bytes", record->delivery.undelivered);
	set_limit(peer, &record->limit, record_used(station_history(station), record),
		  record->limited || station_is_limited(station));
	set_count(before, "upload_bytes", record->before_attach.upload_bytes);
	set_count(before, "download_bytes", record->before_attach.download_bytes);
	json_object_set_new(peer, "before_attach", before);
	json_object_set_new(peer, "audit",
			    record_audit(record) ? json_string(record_audit(record)) : json_null());
	if (!record->present)
		json_object_set_new(peer, "removed", json_true());
	return peer;
}

static void format_epoch(const uint8_t epoch[static 16], char text[static 37])
{
	size_t used = 0;

	for (size_t i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			text[used++] = '-';
		used += (size_t)snprintf(text + used, 3, "%02x", epoch[i]);
	}
}

json_t *meter_sample_json(const struct station *station)
{
	const struct history *history = station_history(station);
	json_t *sample = json_object(), *peers = json_array(), *unattributed = json_object();
	char time[CLOCK_TEXT_SIZE], epoch[37];

	format_epoch(history->epoch, epoch);
	json_object_set_new(sample, "time", json_string(clock_format(clock_utc_ns(), time)));
	json_object_set_new(sample, "interface", json_string(history->interface));
	json_object_set_new(sample, "epoch", json_string(epoch));
	for (size_t i = 1; i < history->n_records; i++) {
		if (is_shown(history->records[i]))
			json_array_append_new(peers, peer_json(station, history->records[i]));
	}
	json_object_set_new(sample, "peers", peers);
	set_totals(unattributed, &history->records[0]->total);
	json_object_set_new(sample, "unattributed", unattributed);
	json_object_set_new(sample, "attachment", json_string(station_attachment(station)));
	json_object_set_new(sample, "shadowed", json_boolean(station_shadowed(station) == 1));
	json_object_set_new(sample, "attached", json_boolean(station_is_attached(station)));
	set_count(sample, "reattached", history->reattached);
	set_limit(sample, &history->limit, history_used(history), station_is_limited(station));
	set_count(sample, "unparsed_packets", station_unparsed_packets(station));
	return sample;
}

static void set_bytes(json_t *row, const char *member, uint64_t bytes)
{
	char text[BYTES_TEXT_SIZE];

	json_object_set_new(row, member, json_string(bytes_format(bytes, text)));
}

static json_t *row_of(const char *title, const struct meter_totals *totals, const char *limit,
		      const char *state)
{
	json_t *row = json_object();

	json_object_set_new(row, "peer", json_string(title));
	set_bytes(row, "upload", totals->upload_bytes);
	set_bytes(row, "download", totals->download_bytes);
	set_bytes(row, "refused", totals->refused_bytes);
	json_object_set_new(row, "limit", json_string(limit));
	json_object_set_new(row, "state", json_string(state));
	return row;
}

static json_t *rows_of(const struct station *station)
{
	const struct history *history = station_history(station);
	bool all = station_is_limited(station);
	json_t *rows = json_array();

	for (size_t i = 1; i < history->n_records; i++) {
		const struct record *record = history->records[i];
		char key[KEY_TEXT_SIZE], limit[LIMIT_TEXT_SIZE];
		const char *state = record->limited || all ? "limited" : "ok";

		if (!is_shown(record))
			continue;
		limit_format(&record->limit, record_used(history, record), limit);
		json_array_append_new(rows, row_of(peer_title(record, key), &record->total, limit,
						   record->present ? state : "removed"));
	}
	json_array_append_new(rows, row_of("(unattributed)", &history->records[0]->total, "", ""));
	return rows;
}

static void print_before_attach(FILE *file, const struct history *history)
{
	struct volume sum = {0};
	char upload[BYTES_TEXT_SIZE], download[BYTES_TEXT_SIZE];

	for (size_t i = 1; i < history->n_records; i++) {
		sum.upload_bytes += history->records[i]->before_attach.upload_bytes;
		sum.download_bytes += history->records[i]->before_attach.download_bytes;
	}
	if (sum.upload_bytes || sum.download_bytes)
		fprintf(file, "  before_attach, by WireGuard's own counters: %s up, %s down\n",
			bytes_format(sum.upload_bytes, upload), bytes_format(sum.download_bytes, download));
}

int meter_sample_print(FILE *file, const struct station *station)
{
	const struct history *history = station_history(station);
	_cleanup_json_ json_t *rows = rows_of(station);
	char time[CLOCK_TEXT_SIZE], limit[LIMIT_TEXT_SIZE];

	limit_format(&history->limit, history_used(history), limit);
	fprintf(file, "%s  %s%s%s%s%s%s\n", clock_format(clock_utc_ns(), time), history->interface,
		*limit ? "  " : "", limit, station_is_limited(station) ? "  limited" : "",
		station_shadowed(station) == 1 ? "  shadowed" : "",
		station_is_attached(station) ? "" : "  detached: nothing is counted, and no limit holds");
	print_before_attach(file, history);
	if (table_print(file, COLUMNS, rows) < 0)
		return -ENOMEM;
	fputc('\n', file);
	return 0;
}
