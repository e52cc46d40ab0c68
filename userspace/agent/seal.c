// SPDX-License-Identifier: BSD-2-Clause
/* Where epochs end and go on. */
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/sample_record.h"
#include "base/clock.h"
#include "base/log.h"

void seal_or_continue(const struct agent *agent, struct epoch *epoch, const struct batch_summary *last)
{
	const struct meter_identity *identity = meter_identity(epoch->meter);
	struct report *report = &epoch->report;

	report->next_seq = 1;
	report->covered_to_ns = clock_utc_ns();
	report->boot_to_ns = clock_boot_ns();
	if (!uuid_equal(last->epoch, identity->map_uuid))
		return;
	report->next_seq = last->seq + 1;
	/* Parts without their last one have covered nothing yet. */
	report->covered_to_ns = last->flags & BATCH_MORE ? last->covered_from_ns : last->covered_to_ns;
	report->boot_to_ns = last->boot_ns;
	/* Killed on the way out: nothing follows its final batch. */
	report->final = last->flags & BATCH_FINAL;
	epoch->known = true;
	for (size_t i = 0; i < agent->uplink.n_pending; i++)
		if (agent->uplink.pending[i].seq == 1 &&
		    uuid_equal(agent->uplink.pending[i].epoch, identity->map_uuid))
			epoch->known = false;
}

int seal_write_down(struct agent *agent, struct epoch *epoch)
{
	int r = restore_owners(agent, epoch);

	if (r == 0)
		r = report_append_final(agent, epoch);
	slots_free(&epoch->slots);
	batch_list_free(&epoch->report.writing);
	return r;
}

int seal_stale(struct agent *agent, const struct batch_summary *last)
{
	struct epoch stale = {.meter = TAKE_PTR(agent->epoch.meter)};
	int r;

	seal_or_continue(agent, &stale, last);
	r = seal_write_down(agent, &stale);
	if (r == 0)
		return meter_remove(stale.meter);
	meter_close(stale.meter);
	return r;
}

/* What the journal of samples knows of an epoch that nothing else remembers. */
struct memory {
	struct agent *agent;
	const struct batch_summary *last;
	struct slots slots;
	struct sample_head head; /* of the last sample */
	uint32_t highest;        /* slot */
};

static bool is_of_epoch(const struct memory *memory, const struct journal_record *record,
			struct sample_head *ret_head)
{
	return record->kind == JOURNAL_SAMPLE &&
	       sample_record_check(record->payload, record->length, ret_head) == 0 &&
	       uuid_equal(ret_head->epoch, memory->last->epoch);
}

static int measure(const struct journal_record *record, void *data)
{
	struct memory *memory = data;
	struct sample_head head;

	if (!is_of_epoch(memory, record, &head))
		return 0;
	memory->head = head;
	for (uint32_t i = 0; i < head.n; i++) {
		struct sample_entry entry = sample_record_entry(record->payload, i);

		if (entry.slot > memory->highest)
			memory->highest = entry.slot;
	}
	return 0;
}

static void remember(struct slots *slots, const struct sample_entry *entry)
{
	struct wt_owner owner = {.incarnation = entry->incarnation, .flags = WT_OWNER_IN_USE};
	struct slot *at = &slots->slots[entry->slot];

	memcpy(owner.peer_id, entry->peer_id, UUID_SIZE);
	if (entry->slot != WT_SLOT_UNATTRIBUTED && at->incarnation != entry->incarnation)
		slots_restore(slots, entry->slot, &owner);
	at->sampled = (struct meter_totals){.upload_bytes = entry->upload_bytes,
					    .download_bytes = entry->download_bytes,
					    .upload_packets = entry->upload_packets,
					    .download_packets = entry->download_packets,
					    .refused_bytes = entry->refused_bytes};
	at->undelivered = entry->undelivered;
}

static int recall(const struct journal_record *record, void *data)
{
	struct memory *memory = data;
	struct sample_head head;

	if (!is_of_epoch(memory, record, &head))
		return 0;
	for (uint32_t i = 0; i < head.n; i++) {
		struct sample_entry entry = sample_record_entry(record->payload, i);

		remember(&memory->slots, &entry);
	}
	return 0;
}

/* A batch may say more of a slot than the last sample did. */
static void forget_what_batches_said(struct slots *slots)
{
	for (uint32_t number = 0; number < slots->end; number++) {
		struct slot *at = &slots->slots[number];

		if (at->known && (at->batched.upload_bytes > at->sampled.upload_bytes ||
				  at->batched.download_bytes > at->sampled.download_bytes ||
				  at->batched.refused_bytes > at->sampled.refused_bytes ||
				  at->undelivered_batched > at->undelivered)) {
			at->sampled = at->batched;
			at->undelivered = at->undelivered_batched;
		}
	}
}

static int recall_slots(struct memory *memory)
{
	struct agent *agent = memory->agent;
	int r = journal_for_each(agent->samples.journal, measure, memory);

	if (r == 0)
		r = slots_create(memory->highest + 1, &memory->slots);
	if (r == 0)
		r = journal_for_each(agent->samples.journal, recall, memory);
	if (r == 0)
		r = replay_slots(agent->journal, &memory->slots, memory->last->epoch);
	if (r == 0)
		forget_what_batches_said(&memory->slots);
	return r;
}

static void put_state(const struct memory *memory, struct batch_head *head)
{
	uint32_t flags = memory->head.flags;

	if (!(flags & (SAMPLE_ACTIVE | SAMPLE_SUSPENDED)))
		return;
	head->states[head->n_states++] =
		(struct batch_state){.from_ns = head->covered_from_ns,
				     .to_ns = head->covered_to_ns,
				     .state = flags & SAMPLE_ACTIVE ? GATEWAY_ACTIVE : GATEWAY_SUSPENDED};
}

/* The later one of last batch and last sample. */
static struct batch_head final_head(const struct memory *memory)
{
	const struct batch_summary *last = memory->last;
	const struct sample_head *sample = &memory->head;
	bool sampled_later = sample->boot_ns > last->boot_ns;
	struct batch_head head = {
		.generation = memory->agent->config.generation,
		.final = true,
		.whole = true,
		.seq = last->seq + 1,
		.covered_from_ns = last->flags & BATCH_MORE ? last->covered_from_ns : last->covered_to_ns,
		.boot_from_ns = last->boot_ns,
		.boot_to_ns = sampled_later ? sample->boot_ns : last->boot_ns,
		.utc_to_ns = sampled_later ? sample->utc_ns : last->covered_to_ns,
		.public_key = memory->agent->public_key,
		.applied_revision = last->applied_revision,
		.counted = sample->counted > last->counted ? sample->counted : last->counted,
		.now_ns = clock_utc_ns()};

	head.limit = (struct meter_limit_state){
		.grant = {.cycle = sampled_later ? sample->cycle : last->cycle,
			  .grant_seq = sampled_later ? sample->grant_seq : last->grant_seq},
		.cycle_counted = sampled_later ? sample->cycle_counted : last->cycle_counted,
		.exhausted =
			sampled_later ? sample->flags & SAMPLE_EXHAUSTED : last->flags & BATCH_EXHAUSTED};
	head.covered_to_ns =
		head.utc_to_ns > head.covered_from_ns ? head.utc_to_ns : head.covered_from_ns + 1000;
	memcpy(head.epoch, last->epoch, UUID_SIZE);
	memcpy(head.boot_id, last->boot_id, UUID_SIZE);
	put_state(memory, &head);
	return head;
}

int seal_forgotten(struct agent *agent, const struct batch_summary *last)
{
	struct memory memory = {.agent = agent, .last = last};
	struct batch_list list = {0};
	struct batch_head head;
	int r = recall_slots(&memory);

	if (r == 0) {
		head = final_head(&memory);
		r = batch_build(&head, &memory.slots, NULL, NULL, &list);
	}
	if (r == 0) {
		log_info("the epoch before is sealed at its last sample, %u of its slots known",
			 memory.slots.end);
		r = report_append(agent, &list);
	}
	batch_list_free(&list);
	slots_free(&memory.slots);
	return r;
}
