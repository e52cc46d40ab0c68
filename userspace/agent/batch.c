// SPDX-License-Identifier: BSD-2-Clause
#include "agent/batch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/split.h"
#include "base/clock.h"
#include "base/crc32c.h"

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

/*
 * A report in the making. Its text is written as it goes: a tree of JSON objects of a thousand records would
 * take megabytes that the process keeps.
 */
struct builder {
	const struct batch_head *head;
	const struct slots *slots;
	const json_t *status, *cannot_apply;
	size_t n_status; /* told so far */
	struct split split;
	uint64_t parts[WT_REPORT_N_COUNTS][SPLIT_HOURS_MAX]; /* of the slot at hand, by hour */
	struct batch_list list;
	FILE *out; /* the body of the last part */
	unsigned n_records;
};

static void put_uuid(FILE *out, const char *field, const uint8_t *uuid)
{
	char text[UUID_TEXT_SIZE];

	fprintf(out, "\"%s\":\"%s\"", field, uuid_format(uuid, text));
}

static void put_instant(FILE *out, const char *field, int64_t utc_ns)
{
	char text[CLOCK_TEXT_SIZE];

	if (utc_ns == 0)
		fprintf(out, ",\"%s\":null", field);
	else
		fprintf(out, ",\"%s\":\"%s\"", field, clock_format(utc_ns, text));
}

static void put_states(FILE *out, const struct batch_head *head)
{
	fputs(",\"states\":[", out);
	for (size_t i = 0; i < head->n_states; i++) {
		const struct batch_state *state = &head->states[i];

		fprintf(out, "%s{\"state\":\"%s\"", i ? "," : "", gateway_state_name(state->state));
		put_instant(out, "from", state->from_ns);
		put_instant(out, "to", state->to_ns);
		fputc('}', out);
	}
	fputc(']', out);
}

static void put_grant(FILE *out, const struct meter_limit_state *limit)
{
	if (limit->grant.cycle == 0) {
		fputs(",\"grant\":null", out);
		return;
	}
	fprintf(out,
		",\"grant\":{\"cycle\":%" PRIu64 ",\"grant_seq\":%" PRIu64 ",\"cycle_counted\":\"%" PRIu64
		"\",\"exhausted\":%s}",
		(uint64_t)limit->grant.cycle, (uint64_t)limit->grant.grant_seq, limit->cycle_counted,
		limit->exhausted ? "true" : "false");
}

/* At most `max` elements of the array from `from` on. Returns how many. */
static size_t put_array(FILE *out, const char *field, const json_t *array, size_t from, size_t max)
{
	size_t n = 0;

	fprintf(out, ",\"%s\":[", field);
	for (; n < max && from + n < json_array_size(array); n++) {
		if (n > 0)
			fputc(',', out);
		/* What fails here fails the stream, which is asked at the end. */
		(void)json_dumpf(json_array_get(array, from + n), out, JSON_COMPACT | JSON_ENCODE_ANY);
	}
	fputc(']', out);
	return n;
}

static void put_head(FILE *out, const struct batch_head *head, bool last)
{
	char key[KEY_TEXT_SIZE];

	fputs("\"epoch\":{", out);
	put_uuid(out, "id", head->epoch);
	fputc(',', out);
	put_uuid(out, "boot_id", head->boot_id);
	fprintf(out, ",\"final\":%s}", last && head->final ? "true" : "false");
	put_instant(out, "covered_from", head->covered_from_ns);
	put_instant(out, "covered_to", head->covered_to_ns);
	put_instant(out, "active_since", head->active_since_ns);
	fprintf(out, ",\"public_key\":\"%s\",\"applied_revision\":%" PRIu64 ",\"counted\":\"%" PRIu64 "\"",
		key_format(&head->public_key, key), head->applied_revision, head->counted);
	put_grant(out, &head->limit);
}

static void put_link(FILE *out, const char *field, const struct reconcile_link *link, bool encrypted)
{
	fprintf(out, ",\"%s\":{\"rx_bytes\":\"%" PRIu64 "\",\"tx_bytes\":\"%" PRIu64 "\"%s}", field,
		link->rx_bytes, link->tx_bytes, encrypted ? ",\"encrypted\":true" : "");
}

static void put_reconcile(FILE *out, const struct batch_reconcile *reconcile)
{
	const struct meter_totals *meter = &reconcile->meter;

	if (!reconcile->said)
		return;
	fprintf(out,
		",\"reconcile\":{\"meter\":{\"upload_bytes\":\"%" PRIu64 "\",\"download_bytes\":\"%" PRIu64
		"\",\"upload_packets\":\"%" PRIu64 "\",\"download_packets\":\"%" PRIu64 "\"}",
		meter->upload_bytes, meter->download_bytes, meter->upload_packets, meter->download_packets);
	if (reconcile->has_wireguard)
		put_link(out, "wireguard", &reconcile->wireguard, false);
	if (reconcile->has_interface)
		put_link(out, "interface", &reconcile->interface, reconcile->interface_is_encrypted);
	if (reconcile->journal.seq)
		fprintf(out,
			",\"journal\":{\"seq\":%" PRIu64 ",\"upload_bytes\":\"%" PRIu64
			"\",\"download_bytes\":\"%" PRIu64 "\"}",
			reconcile->journal.seq, reconcile->journal.upload_bytes,
			reconcile->journal.download_bytes);
	fputc('}', out);
}

static int begin_part(struct builder *builder)
{
	struct batch_list *list = &builder->list;
	const struct batch_head *head = builder->head;
	struct batch *larger = realloc(list->parts, (list->n + 1) * sizeof(*list->parts)), *part;

	if (!larger)
		return -ENOMEM;
	list->parts = larger;
	part = &larger[list->n];
	*part = (struct batch){.summary = {.seq = head->seq + list->n,
					   .covered_from_ns = head->covered_from_ns,
					   .covered_to_ns = head->covered_to_ns,
					   .boot_ns = head->boot_to_ns,
					   .applied_revision = head->applied_revision,
					   .counted = head->counted,
					   .cycle = head->limit.grant.cycle,
					   .grant_seq = head->limit.grant.grant_seq,
					   .cycle_counted = head->limit.cycle_counted,
					   .flags = head->limit.exhausted ? BATCH_EXHAUSTED : 0}};
	memcpy(part->summary.epoch, head->epoch, UUID_SIZE);
	memcpy(part->summary.boot_id, head->boot_id, UUID_SIZE);
	list->n++;
	builder->n_records = 0;
	builder->out = open_memstream(&part->body, &part->length);
	if (!builder->out)
		return -ENOMEM;
	fprintf(builder->out, "{\"generation\":%" PRId64 ",\"seq\":%" PRIu64 ",\"records\":[",
		head->generation, part->summary.seq);
	return 0;
}

static int end_part(struct builder *builder, bool more)
{
	static const struct batch_head nothing;
	struct batch *part = &builder->list.parts[builder->list.n - 1];
	FILE *out = TAKE_PTR(builder->out);
	bool failed;

	fputs("],", out);
	put_head(out, builder->head, !more);
	put_states(out, more ? &nothing : builder->head);
	builder->n_status +=
		put_array(out, "status", builder->status, builder->n_status, WT_REPORT_MAX_STATUS);
	put_array(out, "cannot_apply", more ? NULL : builder->cannot_apply, 0, WT_REPORT_MAX_COMPLAINTS);
	if (!more)
		put_reconcile(out, &builder->head->reconcile);
	put_instant(out, "now", builder->head->now_ns);
	fputs(more ? ",\"more\":true}" : "}", out);
	failed = ferror(out);
	if (fclose(out) != 0 || failed)
		return -ENOMEM;
	part->summary.checksum = crc32c(0, part->body, part->length);
	if (more)
		part->summary.flags |= BATCH_MORE;
	else if (builder->head->final)
		part->summary.flags |= BATCH_FINAL;
	return 0;
}

static int next_part(struct builder *builder)
{
	int r = end_part(builder, true);

	return r < 0 ? r : begin_part(builder);
}

/* The counts of a slot, by enum wt_report_count. */
struct reached {
	uint64_t counts[WT_REPORT_N_COUNTS];
};

static struct reached reached_of(const struct meter_totals *totals, uint64_t undelivered)
{
	return (struct reached){{
		[WT_REPORT_upload_bytes] = totals->upload_bytes,
		[WT_REPORT_download_bytes] = totals->download_bytes,
		[WT_REPORT_upload_packets] = totals->upload_packets,
		[WT_REPORT_download_packets] = totals->download_packets,
		[WT_REPORT_undelivered_bytes] = undelivered,
		[WT_REPORT_refused_bytes] = totals->refused_bytes,
	}};
}

#define COUNT_FORMAT(name)   ",\"" #name "\":\"%" PRIu64 "\""
#define COUNT_ARGUMENT(name) , reached->counts[WT_REPORT_##name]

static int put_record(struct builder *builder, uint32_t slot, size_t hour, const struct reached *reached,
		      bool split)
{
	const struct slot *at = &builder->slots->slots[slot];
	int r = builder->n_records == WT_REPORT_MAX_RECORDS ? next_part(builder) : 0;
	FILE *out = builder->out;

	if (r < 0)
		return r;
	fprintf(out, "%s{\"slot\":%u,\"incarnation\":%u,", builder->n_records++ ? "," : "", slot,
		at->incarnation);
	if (slot == WT_SLOT_UNATTRIBUTED)
		fputs("\"peer\":null", out);
	else
		put_uuid(out, "peer", at->peer_id);
	put_instant(out, "hour", builder->split.first_hour_ns + (int64_t)hour * NSEC_PER_HOUR);
	fprintf(out, WT_REPORT_COUNTS(COUNT_FORMAT) WT_REPORT_COUNTS(COUNT_ARGUMENT));
	fputs(split ? ",\"split\":true}" : "}", out);
	return 0;
}

/* The totals of a slot hour by hour, from what batches have said to the sample. */
static int put_hours(struct builder *builder, uint32_t slot)
{
	const struct slot *at = &builder->slots->slots[slot];
	struct reached reached = reached_of(&at->batched, at->undelivered_batched);
	const struct reached end = reached_of(&at->sampled, at->undelivered);
	size_t n = builder->split.n;
	int r = 0;

	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++)
		split_share(&builder->split, end.counts[i] - reached.counts[i], builder->parts[i]);
	for (size_t hour = 0; hour < n && r == 0; hour++) {
		bool grew = hour + 1 == n;

		for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++) {
			reached.counts[i] += builder->parts[i][hour];
			grew = grew || builder->parts[i][hour] > 0;
		}
		if (grew)
			r = put_record(builder, slot, hour, &reached, true);
	}
	return r;
}

static bool has_counted(const struct slot *slot)
{
	static const struct meter_totals nothing;

	return !totals_equal(&slot->sampled, &nothing) || slot->undelivered > 0;
}

static int put_slot(struct builder *builder, uint32_t slot)
{
	const struct slot *at = &builder->slots->slots[slot];
	bool changed =
		!totals_equal(&at->batched, &at->sampled) || at->undelivered != at->undelivered_batched;
	struct reached end;

	if (!changed && !(builder->head->whole && has_counted(at)))
		return 0;
	/* Without the total at its beginning, the growth cannot be shared out: it goes to the last hour. */
	if (changed && at->known && builder->split.n > 1)
		return put_hours(builder, slot);
	end = reached_of(&at->sampled, at->undelivered);
	return put_record(builder, slot, builder->split.n - 1, &end, false);
}

static int put_all(struct builder *builder)
{
	int r = begin_part(builder);

	for (uint32_t slot = 0; r == 0 && slot < builder->slots->end; slot++)
		r = put_slot(builder, slot);
	while (r == 0 && json_array_size(builder->status) > builder->n_status + WT_REPORT_MAX_STATUS)
		r = next_part(builder);
	return r < 0 ? r : end_part(builder, false);
}

int batch_build(const struct batch_head *head, const struct slots *slots, const json_t *status,
		const json_t *cannot_apply, struct batch_list *ret_list)
{
	struct builder *builder = malloc(sizeof(*builder));
	int r;

	if (!builder)
		return -ENOMEM;
	*builder = (struct builder){
		.head = head, .slots = slots, .status = status, .cannot_apply = cannot_apply};
	split_interval(head->boot_from_ns, head->boot_to_ns, head->utc_to_ns, &builder->split);
	r = put_all(builder);
	if (builder->out)
		fclose(builder->out);
	if (r < 0)
		batch_list_free(&builder->list);
	else
		*ret_list = builder->list;
	free(builder);
	return r;
}

void batch_list_free(struct batch_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->parts[i].body);
	free(list->parts);
	*list = (struct batch_list){0};
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

struct journal_entry batch_entry(const struct batch *batch)
{
	return (struct journal_entry){.kind = JOURNAL_BATCH,
				      .head = &batch->summary,
				      .head_length = sizeof(batch->summary),
				      .payload = batch->body,
				      .length = batch->length};
}
