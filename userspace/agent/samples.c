// SPDX-License-Identifier: BSD-2-Clause
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/sample_record.h"
#include "base/clock.h"
#include "base/log.h"

/* Samples live until the next batch is durable. A batch that cannot be written keeps them: 64 MiB of them. */
#define SEGMENT_BYTES (1u << 20)
#define MAX_BYTES     (64u << 20)

int samples_open(struct agent *agent)
{
	char folder[PATH_MAX];

	snprintf(folder, sizeof(folder), "%s/journal/samples", agent->base);
	return journal_open(&(struct journal_options){.folder = folder,
						      .segment_bytes = SEGMENT_BYTES,
						      .max_bytes = MAX_BYTES},
			    &agent->samples.journal);
}

void samples_close(struct agent *agent)
{
	journal_close(TAKE_PTR(agent->samples.journal));
	free(TAKE_PTR(agent->samples.record));
}

/* Grows with the slots in use, and so in the long run not at all. */
static int reserve(struct samples *samples, uint32_t n_slots)
{
	size_t size = sizeof(struct sample_head) + n_slots * sizeof(struct sample_entry);
	char *larger;

	if (size <= samples->size)
		return 0;
	larger = realloc(samples->record, size);
	if (!larger)
		return -ENOMEM;
	samples->record = larger;
	samples->size = size;
	return 0;
}

static struct sample_head head_of(const struct agent *agent, const struct meter_limit_state *limit)
{
	const struct meter_identity *identity = meter_identity(agent->epoch.meter);
	struct sample_head head = {.utc_ns = clock_utc_ns(),
				   .boot_ns = clock_boot_ns(),
				   .cycle = limit->grant.cycle,
				   .grant_seq = limit->grant.grant_seq,
				   .cycle_counted = limit->cycle_counted,
				   .flags = limit->exhausted ? SAMPLE_EXHAUSTED : 0};
	struct meter_interface_totals totals;

	memcpy(head.epoch, identity->map_uuid, UUID_SIZE);
	memcpy(head.boot_id, identity->boot_id, UUID_SIZE);
	meter_read_interface(agent->epoch.meter, &totals);
	head.counted = totals.counted;
	if (agent->up)
		head.flags |= limit->exhausted || limit->refuse ? SAMPLE_SUSPENDED : SAMPLE_ACTIVE;
	return head;
}

/*
 * The slots that changed since the last sample, or all of them: which makes the samples before superfluous,
 * as when no batch does so for long. Returns the record's length, 0 when nothing changed.
 */
static size_t fill(struct agent *agent)
{
	struct samples *samples = &agent->samples;
	char *next = samples->record + sizeof(struct sample_head);
	struct meter_limit_state limit;
	struct sample_head head;

	samples->whole = samples->all_due || journal_is_tight(samples->journal);
	meter_read_limit(agent->epoch.meter, &limit);
	head = head_of(agent, &limit);
	for (uint32_t slot = 0; slot < agent->epoch.slots.end; slot++) {
		struct sample_entry entry = sample_entry_of(&agent->epoch.slots, slot);
		uint64_t sum = sample_entry_sum(&entry);

		if (sum == agent->epoch.slots.slots[slot].journaled && !(samples->whole && sum > 0))
			continue;
		agent->epoch.slots.slots[slot].journaled = sum;
		memcpy(next, &entry, sizeof(entry));
		next += sizeof(entry);
		head.n++;
	}
	if (head.n == 0 && head.counted == samples->counted)
		return 0;
	samples->counted = head.counted;
	memcpy(samples->record, &head, sizeof(head));
	return (size_t)(next - samples->record);
}

static void failed(struct agent *agent, int error)
{
	/* Said again in the next second, whole: what was noted as written is not. */
	agent->samples.all_due = true;
	if (!agent->samples.complained)
		log_error("could not write a sample, trying again each second: %s", strerror(-error));
	agent->samples.complained = true;
}

static void give_up_to(struct agent *agent, uint64_t sequence)
{
	int r;

	journal_acknowledge(agent->samples.journal, sequence);
	r = journal_expire(agent->samples.journal, INT64_MAX);
	if (r < 0)
		log_warning("could not delete old samples: %s", strerror(-r));
}

static void on_written(void *data, int result)
{
	struct agent *agent = data;
	struct samples *samples = &agent->samples;
	int r = journal_finish(samples->journal, result);

	samples->writing = false;
	if (r < 0) {
		failed(agent, r);
		return;
	}
	samples->complained = false;
	if (samples->whole) {
		samples->all_due = false;
		give_up_to(agent, samples->sequence - 1);
	}
}

void samples_write(struct agent *agent)
{
	struct samples *samples = &agent->samples;
	struct journal_entry entry = {.kind = JOURNAL_SAMPLE};
	struct journal_write write;
	loop_tag tag;
	int r;

	if (samples->writing)
		return;
	r = reserve(samples, agent->epoch.slots.end);
	if (r < 0) {
		failed(agent, r);
		return;
	}
	entry.length = fill(agent);
	if (entry.length == 0)
		return;
	entry.payload = samples->record;
	r = journal_prepare(samples->journal, &entry, 1, &write);
	if (r < 0) {
		failed(agent, r);
		return;
	}
	samples->writing = true;
	samples->sequence = write.sequence;
	r = loop_write_durably(agent->loop, write.fd, write.data, write.length, write.offset, on_written,
			       agent, &tag);
	if (r < 0)
		on_written(agent, r);
}

void samples_cover(struct agent *agent)
{
	agent->samples.covered = journal_last(agent->samples.journal);
}

void samples_give_up(struct agent *agent)
{
	give_up_to(agent, agent->samples.covered);
}
