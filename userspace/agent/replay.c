// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of the acknowledged batches, which may be a week of them, only the last few are parsed. */
#define RECENT_RECORDS 64

struct pending_walk {
	struct agent *agent;
	struct batch_summary last;
	uint64_t last_sequence;
};

static bool is_recent(const struct journal_record *record, const struct pending_walk *walk)
{
	return !record->acknowledged || record->sequence + RECENT_RECORDS > walk->last_sequence;
}

static int take_pending(const struct journal_record *record, void *data)
{
	struct pending_walk *walk = data;

	walk->last_sequence = record->sequence;
	if (record->acknowledged)
		return 0;
	return uplink_add(walk->agent, record->sequence, record->payload, record->length);
}

static int parse_record(const struct journal_record *record, json_t **ret_batch,
			struct batch_summary *ret_summary)
{
	*ret_batch = json_loadb(record->payload, record->length, 0, NULL);
	return *ret_batch ? batch_parse(*ret_batch, ret_summary) : -EINVAL;
}

/* The batch that covers the latest time: a renewed one of an earlier epoch may stand behind it. */
static int take_last(const struct journal_record *record, void *data)
{
	struct pending_walk *walk = data;
	json_t *batch _cleanup_json_ = NULL;
	struct batch_summary summary;
	int r;

	if (!is_recent(record, walk))
		return 0;
	r = parse_record(record, &batch, &summary);
	if (r < 0)
		return r;
	if (summary.covered_to_ns >= walk->last.covered_to_ns)
		walk->last = summary;
	return 0;
}

int replay_pending(struct agent *agent, struct batch_summary *ret_last)
{
	struct pending_walk walk = {.agent = agent};
	int r = journal_for_each(agent->journal, take_pending, &walk);

	if (r < 0)
		return r;
	if (walk.last_sequence == 0)
		return -ENOENT;
	r = journal_for_each(agent->journal, take_last, &walk);
	if (r == 0)
		*ret_last = walk.last;
	return r;
}

static void restore_record(struct slots *slots, const struct batch_record *record)
{
	struct slot *slot;

	if (record->slot >= slots->end)
		return;
	slot = &slots->slots[record->slot];
	if (slot->incarnation != record->incarnation)
		return;
	slot->batched = record->totals;
	slot->undelivered_batched = record->undelivered;
	slot->known = true;
}

static int take_totals(const struct journal_record *record, void *data)
{
	struct pending_walk *walk = data;
	struct agent *agent = walk->agent;
	json_t *batch _cleanup_json_ = NULL;
	struct batch_summary summary;
	struct batch_record counts;
	const json_t *item;
	size_t i;
	int r;

	if (!is_recent(record, walk))
		return 0;
	r = parse_record(record, &batch, &summary);
	if (r < 0)
		return r;
	if (!uuid_equal(summary.epoch, meter_identity(agent->meter)->map_uuid))
		return 0;
	json_array_foreach (json_object_get(batch, "records"), i, item) {
		r = batch_parse_record(item, &counts);
		if (r < 0)
			return r;
		restore_record(&agent->slots, &counts);
	}
	return 0;
}

static int note_last(const struct journal_record *record, void *data)
{
	struct pending_walk *walk = data;

	walk->last_sequence = record->sequence;
	return 0;
}

int replay_slots(struct agent *agent)
{
	struct pending_walk walk = {.agent = agent};
	int r = journal_for_each(agent->journal, note_last, &walk);

	return r < 0 ? r : journal_for_each(agent->journal, take_totals, &walk);
}

struct rewind_walk {
	struct agent *agent;
	const uint8_t *epoch;
	uint64_t held_seq;
	uint64_t lowest;
};

static int take_behind(const struct journal_record *record, void *data)
{
	struct rewind_walk *walk = data;
	json_t *batch _cleanup_json_ = NULL;
	struct batch_summary summary;
	int r = parse_record(record, &batch, &summary);

	if (r < 0)
		return r;
	if (!uuid_equal(summary.epoch, walk->epoch) || summary.seq <= walk->held_seq)
		return 0;
	if (walk->lowest == 0 || summary.seq < walk->lowest)
		walk->lowest = summary.seq;
	return uplink_add(walk->agent, record->sequence, record->payload, record->length);
}

int replay_from(struct agent *agent, const uint8_t epoch[static UUID_SIZE], uint64_t held_seq)
{
	struct rewind_walk walk = {.agent = agent, .epoch = epoch, .held_seq = held_seq};
	struct uplink before = agent->uplink;
	int r;

	/* All of them anew, in order; batches of later epochs stay behind the journal's order. */
	agent->uplink.pending = NULL;
	agent->uplink.n_pending = 0;
	agent->uplink.size = 0;
	r = journal_for_each(agent->journal, take_behind, &walk);
	if (r == 0 && walk.lowest != held_seq + 1)
		r = -ENOENT;
	for (size_t i = 0; r == 0 && i < before.n_pending; i++)
		if (!uuid_equal(before.pending[i].epoch, epoch)) {
			char *body _cleanup_free_ = NULL;
			size_t length;

			r = journal_read(agent->journal, before.pending[i].sequence, &body, &length);
			if (r == 0)
				r = uplink_add(agent, before.pending[i].sequence, body, length);
		}
	if (r < 0) {
		free(agent->uplink.pending);
		agent->uplink = before;
		return r;
	}
	free(before.pending);
	return 0;
}
