// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of the acknowledged batches, which may be a week of them, only the last few are parsed. */
#define RECENT_RECORDS 64
/* Epochs that a journal is likely to hold: one for each boot. Of more, the oldest are not remembered. */
#define EPOCHS_MAX 64

/* The highest number of each epoch: a batch that was renewed stands behind others, and is not the last. */
struct epoch_mark {
	uint8_t id[UUID_SIZE];
	uint64_t seq;
};

struct pending_walk {
	struct agent *agent; /* of replay_pending() */
	struct slots *slots; /* and of replay_slots(): */
	const uint8_t *epoch;
	struct batch_summary last;
	uint64_t last_sequence;
	struct epoch_mark marks[EPOCHS_MAX];
	size_t n_marks;
};

static struct epoch_mark *mark_of(struct pending_walk *walk, const uint8_t *epoch)
{
	for (size_t i = walk->n_marks; i-- > 0;)
		if (uuid_equal(walk->marks[i].id, epoch))
			return &walk->marks[i];
	if (walk->n_marks == EPOCHS_MAX) {
		walk->n_marks--;
		memmove(walk->marks, walk->marks + 1, walk->n_marks * sizeof(*walk->marks));
	}
	walk->marks[walk->n_marks] = (struct epoch_mark){0};
	memcpy(walk->marks[walk->n_marks].id, epoch, UUID_SIZE);
	return &walk->marks[walk->n_marks++];
}

static int take_pending(const struct journal_record *record, void *data)
{
	struct pending_walk *walk = data;
	struct batch_summary summary;
	struct epoch_mark *mark;
	const char *body;
	size_t length;
	int r = batch_from_record(record->kind, record->payload, record->length, &summary, &body, &length);

	if (r < 0)
		return r;
	walk->last_sequence = record->sequence;
	mark = mark_of(walk, summary.epoch);
	if (summary.seq > mark->seq) {
		mark->seq = summary.seq;
		walk->last = summary;
	}
	return record->acknowledged ? 0 : uplink_add(walk->agent, record->sequence, &summary);
}

int replay_pending(struct agent *agent, struct batch_summary *ret_last)
{
	struct pending_walk walk = {.agent = agent};
	int r = journal_for_each(agent->journal, take_pending, &walk);

	if (r < 0)
		return r;
	if (walk.last_sequence == 0)
		return -ENOENT;
	*ret_last = walk.last;
	return 0;
}

static uint64_t bytes_of(const struct meter_totals *totals, uint64_t undelivered)
{
	return totals->upload_bytes + totals->download_bytes + totals->refused_bytes + undelivered;
}

static void restore_record(struct slots *slots, const struct batch_record *record)
{
	struct slot *slot;

	if (record->slot >= slots->end)
		return;
	slot = &slots->slots[record->slot];
	if (slot->incarnation != record->incarnation)
		return;
	/* An earlier batch that was renewed behind later ones. */
	if (slot->known && bytes_of(&record->totals, record->undelivered) <
				   bytes_of(&slot->batched, slot->undelivered_batched))
		return;
	slot->batched = record->totals;
	slot->undelivered_batched = record->undelivered;
	slot->known = true;
}

static int take_totals(const struct journal_record *record, void *data)
{
	struct pending_walk *walk = data;
	json_t *batch _cleanup_json_ = NULL;
	struct batch_summary summary;
	struct batch_record counts;
	const json_t *item;
	const char *body;
	size_t length, i;
	int r;

	if (record->acknowledged && record->sequence + RECENT_RECORDS <= walk->last_sequence)
		return 0;
	r = batch_from_record(record->kind, record->payload, record->length, &summary, &body, &length);
	if (r < 0)
		return r;
	if (!uuid_equal(summary.epoch, walk->epoch))
		return 0;
	batch = json_loadb(body, length, 0, NULL);
	json_array_foreach (json_object_get(batch, "records"), i, item) {
		r = batch_parse_record(item, &counts);
		if (r < 0)
			return r;
		restore_record(walk->slots, &counts);
	}
	return 0;
}

int replay_slots(struct journal *journal, struct slots *slots, const uint8_t epoch[static UUID_SIZE])
{
	struct pending_walk walk = {.slots = slots, .epoch = epoch, .last_sequence = journal_last(journal)};

	return journal_for_each(journal, take_totals, &walk);
}
