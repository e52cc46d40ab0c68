// SPDX-License-Identifier: BSD-2-Clause
#include "cli/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/batch.h"
#include "agent/sample_record.h"
#include "base/clock.h"
#include "base/json.h"

const char *journal_kind_name(enum journal_kind kind)
{
	switch (kind) {
	case JOURNAL_ACK:
		return "acknowledgement";
	case JOURNAL_BATCH:
		return "batch";
	case JOURNAL_SAMPLE:
		return "sample";
	}
	return "unknown";
}

static json_t *uuid_json(const uint8_t *uuid)
{
	char text[UUID_TEXT_SIZE];

	return json_string(uuid_format(uuid, text));
}

static json_t *instant_json(int64_t utc_ns)
{
	char text[CLOCK_TEXT_SIZE];

	return json_string(clock_format(utc_ns, text));
}

static json_t *batch_json(const struct reader_record *record)
{
	struct batch_summary summary;
	const char *body;
	size_t length;

	if (batch_from_record(record->kind, record->payload, record->length, &summary, &body, &length) < 0)
		return json_null();
	return json_pack("{s:o, s:I, s:b, s:b, s:I, s:o?}", "epoch", uuid_json(summary.epoch), "seq",
			 (json_int_t)summary.seq, "final", summary.flags & BATCH_FINAL, "more",
			 summary.flags & BATCH_MORE, "checksum", (json_int_t)summary.checksum, "report",
			 json_loadb(body, length, 0, NULL));
}

static json_t *entry_json(const struct sample_entry *entry)
{
	return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "slot", (json_int_t)entry->slot,
			 "incarnation", (json_int_t)entry->incarnation, "peer",
			 entry->slot == WT_SLOT_UNATTRIBUTED ? json_null() : uuid_json(entry->peer_id),
			 "upload_bytes", json_u64(entry->upload_bytes), "download_bytes",
			 json_u64(entry->download_bytes), "upload_packets", json_u64(entry->upload_packets),
			 "download_packets", json_u64(entry->download_packets), "refused_bytes",
			 json_u64(entry->refused_bytes), "undelivered_bytes", json_u64(entry->undelivered));
}

static json_t *sample_json(const struct reader_record *record)
{
	json_t *slots = json_array();
	struct sample_head head;

	if (!slots || sample_record_check(record->payload, record->length, &head) < 0) {
		json_decref(slots);
		return json_null();
	}
	for (uint32_t i = 0; i < head.n; i++) {
		struct sample_entry entry = sample_record_entry(record->payload, i);

		if (json_array_append_new(slots, entry_json(&entry)) < 0) {
			json_decref(slots);
			return NULL;
		}
	}
	return json_pack("{s:o, s:o, s:o, s:o}", "epoch", uuid_json(head.epoch), "time",
			 instant_json(head.utc_ns), "counted", json_u64(head.counted), "slots", slots);
}

static json_t *acknowledgement_json(const struct reader_record *record)
{
	uint64_t sequence;

	memcpy(&sequence, record->payload, sizeof(sequence));
	return json_pack("{s:I}", "up_to", (json_int_t)sequence);
}

static json_t *content_json(const struct reader_record *record)
{
	switch (record->kind) {
	case JOURNAL_BATCH:
		return batch_json(record);
	case JOURNAL_SAMPLE:
		return sample_json(record);
	case JOURNAL_ACK:
		return acknowledgement_json(record);
	}
	return json_null();
}

json_t *journal_record_json(const struct reader_record *record)
{
	return json_pack("{s:s, s:I, s:I, s:s, s:I, s:I, s:o}", "segment", record->segment, "offset",
			 (json_int_t)record->offset, "sequence", (json_int_t)record->sequence, "kind",
			 journal_kind_name(record->kind), "length", (json_int_t)record->length, "crc",
			 (json_int_t)record->crc, "content", content_json(record));
}

const char *journal_record_words(const struct reader_record *record, char *buffer)
{
	char epoch[UUID_TEXT_SIZE], time[CLOCK_TEXT_SIZE];
	struct batch_summary batch;
	struct sample_head sample;
	uint64_t sequence;
	const char *body;
	size_t length;

	buffer[0] = '\0';
	if (record->kind == JOURNAL_SAMPLE &&
	    sample_record_check(record->payload, record->length, &sample) == 0) {
		snprintf(buffer, JOURNAL_WORDS_SIZE, "epoch %s at %s: %u slots",
			 uuid_format(sample.epoch, epoch), clock_format(sample.utc_ns, time), sample.n);
	} else if (record->kind == JOURNAL_ACK) {
		memcpy(&sequence, record->payload, sizeof(sequence));
		snprintf(buffer, JOURNAL_WORDS_SIZE, "all up to %" PRIu64, sequence);
	} else if (batch_from_record(record->kind, record->payload, record->length, &batch, &body, &length) ==
		   0) {
		snprintf(buffer, JOURNAL_WORDS_SIZE, "epoch %s number %" PRIu64 " until %s%s%s",
			 uuid_format(batch.epoch, epoch), batch.seq, clock_format(batch.covered_to_ns, time),
			 batch.flags & BATCH_MORE ? ", more follows" : "",
			 batch.flags & BATCH_FINAL ? ", final" : "");
	}
	return buffer;
}
