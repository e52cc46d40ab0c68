// SPDX-License-Identifier: BSD-2-Clause
#include "billing/rows.h"

#include "base/clock.h"
#include "base/key.h"
#include "billing/fields.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Text of which nothing is known but that it is UTF-8 without a NUL. */
static void put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '\\':
			fputs_unlocked("\\\\", out);
			break;
		case '\n':
			fputs_unlocked("\\n", out);
			break;
		case '\r':
			fputs_unlocked("\\r", out);
			break;
		case '\t':
			fputs_unlocked("\\t", out);
			break;
		default:
			putc_unlocked(*text, out);
		}
	}
}

static void put_number(FILE *out, int64_t number)
{
	char text[24], *start = text + sizeof(text);
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;

	*--start = '\0';
	do {
		*--start = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	if (number < 0)
		*--start = '-';
	fputs_unlocked(start, out);
}

/* A string that the check has left only harmless characters in, a number or a boolean; else NULL. */
static void put_plain(FILE *out, const json_t *value)
{
	if (json_is_string(value))
		fputs_unlocked(json_string_value(value), out);
	else if (json_is_integer(value))
		put_number(out, json_integer_value(value));
	else if (json_is_boolean(value))
		putc_unlocked(json_is_true(value) ? 't' : 'f', out);
	else
		fputs_unlocked("\\N", out);
}

static void put_fields(FILE *out, const json_t *object, const char *const *fields, size_t n_fields)
{
	for (size_t i = 0; i < n_fields; i++) {
		putc_unlocked('\t', out);
		put_plain(out, json_object_get(object, fields[i]));
	}
}

static void put_flag(FILE *out, const json_t *object, const char *field)
{
	fputs_unlocked(json_is_true(json_object_get(object, field)) ? "\tt" : "\tf", out);
}

/* Members of an object as one of JSON, and nothing else that it may have. */
static void put_members(FILE *out, const json_t *object, const char *const *fields)
{
	const char *before = "{";

	for (; *fields; fields++) {
		const json_t *value = json_object_get(object, *fields);
		char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

		if (!text)
			continue;
		fprintf(out, "%s\"%s\":", before, *fields);
		put_escaped(out, text);
		free(text);
		before = ",";
	}
	fputs_unlocked(*before == '{' ? "{}" : "}", out);
}

/* As jsonb; NULL when there are none. */
static void put_complaints(FILE *out, const json_t *body)
{
	static const char *const fields[] = {"what", "reason", NULL};
	const json_t *complaints = json_object_get(body, "cannot_apply"), *complaint;
	size_t i;

	fputs_unlocked(json_array_size(complaints) ? "\t[" : "\t\\N", out);
	json_array_foreach (complaints, i, complaint) {
		if (i > 0)
			putc_unlocked(',', out);
		put_members(out, complaint, fields);
	}
	if (json_array_size(complaints))
		putc_unlocked(']', out);
}

/* As jsonb; NULL when nothing is said. */
static void put_reconcile(FILE *out, const json_t *body)
{
	static const struct {
		const char *name, *fields[5];
	} sources[] = {
		{"meter", {"upload_bytes", "download_bytes", "upload_packets", "download_packets"}},
		{"wireguard", {"rx_bytes", "tx_bytes"}},
		{"interface", {"rx_bytes", "tx_bytes", "encrypted"}},
		{"journal", {"seq", "upload_bytes", "download_bytes"}},
	};
	const json_t *said = json_object_get(body, "reconcile");
	const char *before = "\t{";

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		const json_t *counts = json_object_get(said, sources[i].name);

		if (!json_is_object(counts))
			continue;
		fprintf(out, "%s\"%s\":", before, sources[i].name);
		put_members(out, counts, sources[i].fields);
		before = ",";
	}
	fputs_unlocked(*before == ',' ? "}" : "\t\\N", out);
}

static void put_key(FILE *out, const json_t *body)
{
	char text[65] = "";
	struct key key;

	if (key_parse(json_string_value(json_object_get(body, "public_key")), &key) == 0)
		key_format_hex(&key, text);
	fprintf(out, "\t\\\\x%s", text);
}

static void put_report(FILE *out, const json_t *body, const struct principal *agent,
		       const struct report_frame *frame, const struct sample_list *list)
{
	static const char *const epoch_fields[] = {"id", "boot_id"};
	static const char *const times[] = {"covered_from", "covered_to", "active_since"};
	static const char *const numbers[] = {"applied_revision", "counted"};
	static const char *const grant_fields[] = {"cycle", "grant_seq", "cycle_counted", "exhausted"};
	static const char *const generation[] = {"generation"}, *const seq[] = {"seq"},
				 *const sent[] = {"now"};
	const json_t *epoch = json_object_get(body, "epoch");

	fprintf(out, "%" PRId64 "\t%s\t%s\t%d\t%" PRId64 "\t%" PRIu32, frame->n, agent->owner, agent->gateway,
		agent->attempt, agent->generation, frame->crc);
	if (frame->kept_from)
		fprintf(out, "\t%" PRIu64, frame->kept_from);
	else
		fputs_unlocked("\t\\N", out);
	fputs_unlocked(frame->over ? "\tt" : "\tf", out);
	fputs_unlocked(list->shrunk ? "\tt" : "\tf", out);
	fputs_unlocked(list->tangled ? "\tt" : "\tf", out);
	fputs_unlocked(list->several ? "\tt" : "\tf", out);
	put_fields(out, body, generation, 1);
	put_fields(out, epoch, epoch_fields, ARRAY_SIZE(epoch_fields));
	put_flag(out, epoch, "final");
	put_fields(out, body, seq, 1);
	put_flag(out, body, "more");
	put_fields(out, body, times, ARRAY_SIZE(times));
	put_key(out, body);
	put_fields(out, body, numbers, ARRAY_SIZE(numbers));
	put_fields(out, json_object_get(body, "grant"), grant_fields, ARRAY_SIZE(grant_fields));
	put_fields(out, body, sent, 1);
	put_complaints(out, body);
	put_reconcile(out, body);
	putc_unlocked('\n', out);
}

/* ---- the binary form: fields in the order of the bytes on the network, each behind its length ---- */

#define SAMPLE_SIZE   (2 + 13 * 4 + 8 + 4 + 8 + UUID_SIZE + 8 + WT_REPORT_N_COUNTS * 8 + 1 + 1)
#define COUNTER_SIZE  (2 + 16 * 4 + 8 + 4 + 8 + UUID_SIZE + 2 * WT_REPORT_N_COUNTS * 8)
#define POSTGRES_ZERO (946684800 * NSEC_PER_SEC) /* 2000 */

static char *put_bytes(char *at, const void *bytes, uint32_t length)
{
	const uint32_t wire = htobe32(length);

	memcpy(at, &wire, sizeof(wire));
	memcpy(at + sizeof(wire), bytes, length);
	return at + sizeof(wire) + length;
}

static char *put_n_fields(char *at, uint16_t n)
{
	n = htobe16(n);
	memcpy(at, &n, sizeof(n));
	return at + sizeof(n);
}

static char *put_u64(char *at, uint64_t number)
{
	number = htobe64(number);
	return put_bytes(at, &number, sizeof(number));
}

static char *put_bool(char *at, bool flag)
{
	const char byte = (char)flag;

	return put_bytes(at, &byte, sizeof(byte));
}

/* Which report, slot, incarnation and peer: NULL in slot 0. */
static char *put_owner(char *at, int64_t n, const struct sample *sample)
{
	const uint32_t slot = htobe32((uint32_t)sample->slot), null = UINT32_MAX;

	at = put_u64(at, (uint64_t)n);
	at = put_bytes(at, &slot, sizeof(slot));
	at = put_u64(at, (uint64_t)sample->incarnation);
	if (sample->slot > 0)
		return put_bytes(at, sample->peer, sizeof(sample->peer));
	memcpy(at, &null, sizeof(null));
	return at + sizeof(null);
}

/* What the slot has grown by since `before`; since zero when it begins. */
static char *put_sample(char *at, int64_t n, const struct sample *sample,
			const uint64_t before[static WT_REPORT_N_COUNTS], bool begins, bool split)
{
	at = put_n_fields(at, 13);
	at = put_owner(at, n, sample);
	at = put_u64(at, (uint64_t)((sample->hour_ns - POSTGRES_ZERO) / 1000));
	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++)
		at = put_u64(at, sample->totals[i] - before[i]);
	return put_bool(put_bool(at, begins), split);
}

static char *put_counter(char *at, int64_t n, const struct sample *first, const struct sample *last)
{
	at = put_n_fields(at, 16);
	at = put_owner(at, n, first);
	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++)
		at = put_u64(at, first->totals[i]);
	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++)
		at = put_u64(at, last->totals[i]);
	return at;
}

/* The rows of one slot: neighbours of one hour as one. */
static void put_slot(char **samples, char **counters, int64_t n, const struct sample *first,
		     const struct sample *last)
{
	static const uint64_t zero[WT_REPORT_N_COUNTS];
	const uint64_t *before = zero;
	bool split = false;

	for (const struct sample *sample = first; sample <= last; sample++) {
		split |= sample->split;
		if (sample < last && sample[1].hour_ns == sample->hour_ns)
			continue;
		*samples = put_sample(*samples, n, sample, before, before == zero, split);
		before = sample->totals;
		split = false;
	}
	*counters = put_counter(*counters, n, first, last);
}

static bool ends_slot(const struct sample_list *list, size_t i)
{
	return i + 1 == list->n || !sample_same_slot(&list->samples[i], &list->samples[i + 1]);
}

static int put_samples(struct report_rows *rows, const struct sample_list *list, int64_t n)
{
	size_t first = 0, n_slots = 0;
	char *samples, *counters;

	for (size_t i = 0; i < list->n; i++)
		n_slots += ends_slot(list, i);
	rows->data[SAMPLE_IN] = samples = malloc(list->n * SAMPLE_SIZE + 1);
	rows->data[COUNTER_IN] = counters = malloc(n_slots * COUNTER_SIZE + 1);
	if (!samples || !counters)
		return -ENOMEM;
	for (size_t i = 0; i < list->n; i++) {
		if (!ends_slot(list, i))
			continue;
		put_slot(&samples, &counters, n, &list->samples[first], &list->samples[i]);
		first = i + 1;
	}
	rows->length[SAMPLE_IN] = (size_t)(samples - rows->data[SAMPLE_IN]);
	rows->length[COUNTER_IN] = (size_t)(counters - rows->data[COUNTER_IN]);
	return 0;
}

/* ---- the rest, as text ---- */

static void put_states(FILE *out, const json_t *body, int64_t n)
{
	static const char *const fields[] = {"state", "from", "to"};
	const json_t *state;
	size_t i;

	json_array_foreach (json_object_get(body, "states"), i, state) {
		put_number(out, n);
		putc_unlocked('\t', out);
		put_number(out, (int64_t)i);
		put_fields(out, state, fields, ARRAY_SIZE(fields));
		putc_unlocked('\n', out);
	}
}

static void put_seen(FILE *out, const json_t *body, int64_t n)
{
	static const char *const fields[] = {"peer", "handshake"};
	const json_t *seen;
	size_t i;

	json_array_foreach (json_object_get(body, "status"), i, seen) {
		const char *endpoint = json_string_value(json_object_get(seen, "endpoint"));

		put_number(out, n);
		put_fields(out, seen, fields, ARRAY_SIZE(fields));
		putc_unlocked('\t', out);
		if (endpoint && is_numeric_endpoint(endpoint))
			fputs_unlocked(endpoint, out);
		else
			fputs_unlocked("\\N", out);
		putc_unlocked('\n', out);
	}
}

bool report_table_is_binary(enum report_table table)
{
	return table == SAMPLE_IN || table == COUNTER_IN;
}

static int put_texts(struct report_rows *rows, const json_t *body, const struct sample_list *list,
		     const struct principal *agent, const struct report_frame *frame)
{
	FILE *out[N_REPORT_TABLES] = {NULL};
	int r = 0;

	for (size_t i = 0; i < N_REPORT_TABLES && r == 0; i++) {
		if (report_table_is_binary((enum report_table)i))
			continue;
		out[i] = open_memstream(&rows->data[i], &rows->length[i]);
		r = out[i] ? 0 : -ENOMEM;
	}
	if (r == 0) {
		put_report(out[REPORT_IN], body, agent, frame, list);
		put_states(out[STATE_IN], body, frame->n);
		put_seen(out[SEEN_IN], body, frame->n);
	}
	for (size_t i = 0; i < N_REPORT_TABLES; i++) {
		if (out[i] && fclose(out[i]) != 0)
			r = -ENOMEM;
	}
	return r;
}

int report_rows_write(const json_t *body, const struct sample_list *list, const struct principal *agent,
		      const struct report_frame *frame, struct report_rows *ret_rows)
{
	struct report_rows rows = {.n_samples = list->n};
	int r = put_texts(&rows, body, list, agent, frame);

	if (r == 0)
		r = put_samples(&rows, list, frame->n);
	if (r < 0) {
		report_rows_free(&rows);
		return r;
	}
	*ret_rows = rows;
	return 0;
}

void report_rows_free(struct report_rows *rows)
{
	for (size_t i = 0; i < N_REPORT_TABLES; i++)
		free(rows->data[i]);
	*rows = (struct report_rows){0};
}
