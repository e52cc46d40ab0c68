// SPDX-License-Identifier: BSD-2-Clause
#include "agent/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define NSEC_PER_HOUR (3600 * NSEC_PER_SEC)
/* A gap longer than this is one the agent slept through: its growth is told for the last hours only. */
#define SPLIT_HOURS_MAX 72

const char *gateway_state_name(enum gateway_state state)
{
	switch (state) {
	case GATEWAY_ACTIVE:
		return "active";
	case GATEWAY_SUSPENDED:
		return "suspended";
	case GATEWAY_DOWN:
		break;
	}
	return NULL;
}

static json_t *instant(int64_t utc_ns)
{
	char text[CLOCK_TEXT_SIZE];

	return utc_ns == 0 ? json_null() : json_string(clock_format(utc_ns, text));
}

static json_t *uuid_json(const uint8_t *uuid)
{
	char text[UUID_TEXT_SIZE];

	return json_string(uuid_format(uuid, text));
}

static json_t *key_json(const struct key *key)
{
	char text[KEY_TEXT_SIZE];

	return json_string(key_format(key, text));
}

static json_t *record_json(const struct slots *slots, uint32_t slot, int64_t hour_ns,
			   const struct meter_totals *totals, uint64_t undelivered)
{
	const struct slot *at = &slots->slots[slot];

	return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "slot", (json_int_t)slot,
			 "incarnation", (json_int_t)at->incarnation, "peer",
			 slot == WT_SLOT_UNATTRIBUTED ? json_null() : uuid_json(at->peer_id), "hour",
			 instant(hour_ns), "upload_bytes", json_u64(totals->upload_bytes), "download_bytes",
			 json_u64(totals->download_bytes), "upload_packets", json_u64(totals->upload_packets),
			 "download_packets", json_u64(totals->download_packets), "undelivered_bytes",
			 json_u64(undelivered), "refused_bytes", json_u64(totals->refused_bytes));
}

static uint64_t share(uint64_t from, uint64_t to, int64_t elapsed, int64_t whole)
{
	return from + (uint64_t)((unsigned __int128)(to - from) * (uint64_t)elapsed / (uint64_t)whole);
}

/* The totals that were reached, in proportion, `elapsed` of `whole` after `from`. */
static struct meter_totals totals_between(const struct meter_totals *from, const struct meter_totals *to,
					  int64_t elapsed, int64_t whole)
{
	return (struct meter_totals){
		.upload_bytes = share(from->upload_bytes, to->upload_bytes, elapsed, whole),
		.upload_packets = share(from->upload_packets, to->upload_packets, elapsed, whole),
		.download_bytes = share(from->download_bytes, to->download_bytes, elapsed, whole),
		.download_packets = share(from->download_packets, to->download_packets, elapsed, whole),
		.refused_bytes = share(from->refused_bytes, to->refused_bytes, elapsed, whole),
		.refused_packets = share(from->refused_packets, to->refused_packets, elapsed, whole),
	};
}

static int append_records(const struct batch_head *head, const struct slots *slots, uint32_t slot,
			  json_t *records)
{
	const struct slot *at = &slots->slots[slot];
	int64_t from = head->covered_from_ns, to = head->covered_to_ns;
	/* An interval that ends at an hour's edge belongs to the hour before it. */
	int64_t last_hour = clock_hour_start(to > from ? to - 1 : to);
	int64_t hour = clock_hour_start(from);

	/* Without the total at its beginning, the growth cannot be shared out: it goes to the last hour. */
	if (!at->known || hour > last_hour)
		hour = last_hour;
	if (hour < last_hour - SPLIT_HOURS_MAX * NSEC_PER_HOUR)
		hour = last_hour - SPLIT_HOURS_MAX * NSEC_PER_HOUR;
	for (; hour < last_hour; hour += NSEC_PER_HOUR) {
		int64_t elapsed = hour + NSEC_PER_HOUR - from;
		struct meter_totals reached = totals_between(&at->batched, &at->sampled, elapsed, to - from);
		uint64_t undelivered = share(at->undelivered_batched, at->undelivered, elapsed, to - from);

		if (json_array_append_new(records, record_json(slots, slot, hour, &reached, undelivered)) < 0)
			return -ENOMEM;
	}
	return json_array_append_new(records,
				     record_json(slots, slot, last_hour, &at->sampled, at->undelivered)) < 0
		       ? -ENOMEM
		       : 0;
}

static json_t *records_json(const struct batch_head *head, const struct slots *slots)
{
	json_t *records = json_array();

	for (uint32_t slot = 0; records && slot < slots->end; slot++) {
		const struct slot *at = &slots->slots[slot];

		if (totals_equal(&at->batched, &at->sampled) && at->undelivered == at->undelivered_batched)
			continue;
		if (append_records(head, slots, slot, records) < 0) {
			json_decref(records);
			return NULL;
		}
	}
	return records;
}

static json_t *states_json(const struct batch_head *head)
{
	json_t *states = json_array();

	for (size_t i = 0; states && i < head->n_states; i++) {
		const struct batch_state *state = &head->states[i];

		if (json_array_append_new(states,
					  json_pack("{s:o, s:o, s:s}", "from", instant(state->from_ns), "to",
						    instant(state->to_ns), "state",
						    gateway_state_name(state->state))) < 0) {
			json_decref(states);
			return NULL;
		}
	}
	return states;
}

static json_t *grant_json(const struct meter_limit_state *limit)
{
	if (limit->grant.cycle == 0)
		return json_null();
	return json_pack("{s:I, s:I, s:o, s:b}", "cycle", (json_int_t)limit->grant.cycle, "grant_seq",
			 (json_int_t)limit->grant.grant_seq, "cycle_counted", json_u64(limit->cycle_counted),
			 "exhausted", limit->exhausted);
}

int batch_build(const struct batch_head *head, const struct slots *slots, json_t *status,
		json_t *cannot_apply, char **ret_body, size_t *ret_length)
{
	json_t *body _cleanup_json_ = NULL;
	char *text;

	body = json_pack(
		"{s:I, s:{s:o, s:o, s:b}, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, "
		"s:o}",
		"generation", (json_int_t)head->generation, "epoch", "id", uuid_json(head->epoch), "boot_id",
		uuid_json(head->boot_id), "final", head->final, "seq", (json_int_t)head->seq, "covered_from",
		instant(head->covered_from_ns), "covered_to", instant(head->covered_to_ns), "states",
		states_json(head), "active_since", instant(head->active_since_ns), "public_key",
		key_json(&head->public_key), "applied_revision", (json_int_t)head->applied_revision,
		"cannot_apply", cannot_apply ? json_incref(cannot_apply) : json_array(), "counted",
		json_u64(head->counted), "grant", grant_json(&head->limit), "records",
		records_json(head, slots), "status", status ? json_incref(status) : json_array(), "now",
		instant(head->now_ns));
	text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	if (!text)
		return -ENOMEM;
	*ret_body = text;
	*ret_length = strlen(text);
	return 0;
}

void batch_settled(struct slots *slots, uint64_t seq)
{
	for (uint32_t slot = 0; slot < slots->end; slot++) {
		struct slot *at = &slots->slots[slot];

		at->batched = at->sampled;
		at->undelivered_batched = at->undelivered;
		at->known = true;
		if (at->flags == WT_OWNER_RETIRING && at->retire_seq == 0)
			at->retire_seq = seq;
	}
}

static int read_uuid(const json_t *object, const char *field, uint8_t *ret_uuid)
{
	const char *text = json_string_value(json_object_get(object, field));

	return text ? uuid_parse(text, ret_uuid) : -EINVAL;
}

int batch_parse(const json_t *body, struct batch_summary *ret_summary)
{
	const json_t *epoch = json_object_get(body, "epoch");
	const char *covered_to = json_string_value(json_object_get(body, "covered_to"));
	struct batch_summary summary = {
		.final = json_is_true(json_object_get(epoch, "final")),
		.seq = (uint64_t)json_integer_value(json_object_get(body, "seq")),
		.generation = json_integer_value(json_object_get(body, "generation")),
		.applied_revision = (uint64_t)json_integer_value(json_object_get(body, "applied_revision")),
	};

	if (read_uuid(epoch, "id", summary.epoch) < 0 || read_uuid(epoch, "boot_id", summary.boot_id) < 0)
		return -EINVAL;
	if (json_read_u64(body, "counted", &summary.counted, NULL) < 0)
		return -EINVAL;
	if (!covered_to || clock_parse(covered_to, &summary.covered_to_ns) < 0 || summary.seq == 0)
		return -EINVAL;
	*ret_summary = summary;
	return 0;
}

int batch_parse_record(const json_t *record, struct batch_record *ret_record)
{
	struct batch_record parsed = {
		.slot = (uint32_t)json_integer_value(json_object_get(record, "slot")),
		.incarnation = (uint32_t)json_integer_value(json_object_get(record, "incarnation")),
	};
	const struct {
		const char *field;
		uint64_t *value;
	} counts[] = {
		{"upload_bytes", &parsed.totals.upload_bytes},
		{"download_bytes", &parsed.totals.download_bytes},
		{"upload_packets", &parsed.totals.upload_packets},
		{"download_packets", &parsed.totals.download_packets},
		{"refused_bytes", &parsed.totals.refused_bytes},
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		if (json_read_u64(record, counts[i].field, counts[i].value, NULL) < 0)
			return -EINVAL;
	/* Files of earlier versions do not have it. */
	r = json_read_u64(record, "undelivered_bytes", &parsed.undelivered, NULL);
	if (r < 0 && r != -ENOENT)
		return -EINVAL;
	*ret_record = parsed;
	return 0;
}

int batch_renew(const char *body, size_t length, int64_t generation, int64_t now_ns, char **ret_body,
		size_t *ret_length)
{
	json_t *batch _cleanup_json_ = json_loadb(body, length, 0, NULL);
	char *text;

	if (!batch)
		return -EINVAL;
	if (json_object_set_new(batch, "generation", json_integer(generation)) < 0 ||
	    json_object_set_new(batch, "now", instant(now_ns)) < 0)
		return -ENOMEM;
	text = json_dumps(batch, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	*ret_body = text;
	*ret_length = strlen(text);
	return 0;
}
