// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define RETRY_NS NSEC_PER_SEC
/* Batches in the queue; of more, at 10 s each two days, the queue itself would be what grows. */
#define PENDING_MAX 16384

/* Behind what is covered already: a clock that was set back makes no empty or negative interval. */
static int64_t not_before_covered(const struct report *report, int64_t utc_ns)
{
	int64_t covered = report->covered_to_ns;

	if (report->states.n > 0 && report->states.list[report->states.n - 1].from_ns > covered)
		covered = report->states.list[report->states.n - 1].from_ns;
	return utc_ns > covered ? utc_ns : covered + 1000;
}

void report_state(struct agent *agent, enum gateway_state state)
{
	struct report *report = &agent->epoch.report;

	states_set(&report->states, state, not_before_covered(report, clock_utc_ns()));
}

static void fill_head(struct agent *agent, struct epoch *epoch, int64_t utc_to_ns, bool final,
		      struct batch_head *head)
{
	const struct meter_identity *identity = meter_identity(epoch->meter);
	struct report *report = &epoch->report;
	struct meter_interface_totals totals;
	struct meter_limit_state heir;

	*head = (struct batch_head){.generation = agent->config.generation,
				    .final = final,
				    .whole = final || report->whole_due,
				    .seq = report->next_seq,
				    .covered_from_ns = report->covered_to_ns,
				    .covered_to_ns = not_before_covered(report, utc_to_ns),
				    .boot_from_ns = report->boot_to_ns,
				    .boot_to_ns = clock_boot_ns(),
				    .utc_to_ns = utc_to_ns,
				    .active_since_ns = agent->config.active_since_ns,
				    .public_key = agent->public_key,
				    .applied_revision = agent->applied_revision,
				    .now_ns = clock_utc_ns()};
	memcpy(head->epoch, identity->map_uuid, UUID_SIZE);
	memcpy(head->boot_id, identity->boot_id, UUID_SIZE);
	meter_read_interface(epoch->meter, &totals);
	head->counted = totals.counted;
	meter_read_limit(epoch->meter, &head->limit);
	/* For the time of a hand-over a smaller grant stood in: whether the true one is used up, its heir
	 * knows. */
	if (epoch->successor) {
		meter_read_limit(epoch->successor, &heir);
		head->limit.exhausted = heir.exhausted && heir.grant.cycle == head->limit.grant.cycle;
	}
	/* What it has no room for is said by the next one, at once. */
	if (states_take(&report->states, head))
		report->due = true;
}

bool report_is_writing(const struct agent *agent)
{
	return agent->epoch.report.writing.n > 0;
}

/* Builds the next batch. From here on it exists, and is written until it is in the journal. */
static int build(struct agent *agent, struct epoch *epoch, int64_t utc_to_ns, bool final, json_t *status)
{
	struct report *report = &epoch->report;
	struct batch_head head;
	int r;

	fill_head(agent, epoch, utc_to_ns, final, &head);
	reconcile_fill(agent, epoch, &head);
	r = batch_build(&head, &epoch->slots, status, agent->cannot_apply, &report->writing);
	if (r < 0)
		return r;
	report->next_seq += report->writing.n;
	batch_settled(&epoch->slots, report->next_seq - 1);
	samples_cover(agent);
	report->final = final;
	report->whole_due = false;
	report->covered_to_ns = head.covered_to_ns;
	report->boot_to_ns = head.boot_to_ns;
	return 0;
}

/* The parts of a sample are committed together. Returns their number, 0 without memory. */
static size_t fill_entries(const struct batch_list *list, struct journal_entry **ret_entries)
{
	struct journal_entry *entries = calloc(list->n, sizeof(*entries));

	for (size_t i = 0; entries && i < list->n; i++)
		entries[i] = batch_entry(&list->parts[i]);
	*ret_entries = entries;
	return entries ? list->n : 0;
}

static int queue_parts(struct agent *agent, const struct batch_list *list, uint64_t sequence)
{
	int r = 0;

	for (size_t i = 0; i < list->n && r == 0; i++)
		r = uplink_add(agent, sequence + i, &list->parts[i].summary);
	return r;
}

static int to_uplink(struct agent *agent, struct epoch *epoch, uint64_t sequence)
{
	struct batch_list list = epoch->report.writing;
	int r = queue_parts(agent, &list, sequence);

	epoch->report.writing = (struct batch_list){0};
	batch_list_free(&list);
	return r;
}

static int append(struct agent *agent, const struct batch_list *list, uint64_t *ret_sequence)
{
	struct journal_entry *entries _cleanup_free_ = NULL;
	size_t n = fill_entries(list, &entries);

	return n ? journal_append_entries(agent->journal, entries, n, ret_sequence) : -ENOMEM;
}

int report_append(struct agent *agent, const struct batch_list *list)
{
	uint64_t sequence;
	int r = append(agent, list, &sequence);

	return r < 0 ? r : queue_parts(agent, list, sequence);
}

int report_append_final(struct agent *agent, struct epoch *epoch)
{
	uint64_t sequence;
	int r;

	if (epoch->report.final)
		return 0;
	sample_take(agent, epoch);
	r = build(agent, epoch, clock_utc_ns(), true, NULL);
	if (r == 0)
		r = append(agent, &epoch->report.writing, &sequence);
	return r < 0 ? r : to_uplink(agent, epoch, sequence);
}

static void write_batch(struct agent *agent);

static void on_retry(void *data, int result)
{
	struct agent *agent = data;

	(void)result;
	agent->epoch.report.retry = 0;
	write_batch(agent);
}

static void write_failed(struct agent *agent, int error)
{
	if (!agent->epoch.report.complained)
		log_error("could not write the journal, trying again each second: %s", strerror(-error));
	agent->epoch.report.complained = true;
	if (loop_at_boot(agent->loop, clock_boot_ns() + RETRY_NS, on_retry, agent,
			 &agent->epoch.report.retry) < 0)
		agent_exit(agent, 1);
}

static void on_written(void *data, int result)
{
	struct agent *agent = data;
	int r = journal_finish(agent->journal, result);

	if (r < 0) {
		write_failed(agent, r);
		return;
	}
	agent->epoch.report.complained = false;
	samples_give_up(agent);
	reconcile_durable(agent, agent->epoch.report.next_seq - 1);
	r = to_uplink(agent, &agent->epoch, agent->epoch.report.sequence);
	if (r < 0) {
		log_error("could not queue a batch: %s", strerror(-r));
		agent_exit(agent, 1);
		return;
	}
	uplink_send(agent);
	if (agent->epoch.report.due)
		report_make(agent);
}

static void write_batch(struct agent *agent)
{
	struct journal_entry *entries _cleanup_free_ = NULL;
	struct journal_write write;
	size_t n = fill_entries(&agent->epoch.report.writing, &entries);
	loop_tag tag;
	int r = n ? journal_prepare(agent->journal, entries, n, &write) : -ENOMEM;

	if (r < 0) {
		write_failed(agent, r);
		return;
	}
	agent->epoch.report.sequence = write.sequence;
	r = loop_write_durably(agent->loop, write.fd, write.data, write.length, write.offset, on_written,
			       agent, &tag);
	if (r < 0)
		write_failed(agent, journal_finish(agent->journal, r));
}

/* A program in front of the meter's may hide packets from it. Returns whether the meter is there. */
static bool watch_chain(struct agent *agent)
{
	int r = meter_is_shadowed(agent->epoch.meter);
	bool shadowed = r == 1;

	if (r == -ENOLINK && agent->leaving == STAYING) {
		/* The next start seals this epoch, and attaches anew. */
		log_error("the meter was taken off %s: starting over", agent->config.interface);
		agent_exit(agent, 1);
		return false;
	}
	if (shadowed && !agent->shadowed)
		cannot_add(agent, "meter",
			   "shadowed: a program that runs before it may hide packets from it");
	if (!shadowed && agent->shadowed)
		cannot_remove(agent, "meter");
	agent->shadowed = shadowed;
	return true;
}

/*
 * While the journal runs short of room and the API does not take what is in it, one batch an hour: a record
 * for each peer, direction and hour. Nothing is lost by that, as counts are cumulative, and each second's
 * sample is kept apart.
 */
static bool is_spared(struct agent *agent, int64_t utc_to_ns)
{
	struct report *report = &agent->epoch.report;
	bool tight = journal_is_tight(agent->journal) || agent->uplink.n_pending > PENDING_MAX;

	if (tight && !report->sparing)
		log_warning("the journal runs short of room: what waits for the API is kept by the hour");
	if (!tight && report->sparing)
		log_info("the journal has room again");
	report->sparing = tight;
	return tight && agent->uplink.n_pending > 0 && agent->leaving == STAYING &&
	       clock_hour_start(utc_to_ns) == clock_hour_start(report->covered_to_ns);
}

void report_make_at(struct agent *agent, int64_t utc_to_ns)
{
	json_t *status _cleanup_json_ = NULL;
	int r;

	/* Nothing follows the final batch of an epoch. */
	if (agent->epoch.report.final)
		return;
	if (report_is_writing(agent)) {
		agent->epoch.report.due = true;
		return;
	}
	agent->epoch.report.due = false;
	agent->epoch.report.next_boot_ns = clock_boot_ns() + agent->config.report_every * NSEC_PER_SEC;
	if (!watch_chain(agent) || is_spared(agent, utc_to_ns))
		return;
	status = status_collect(agent);
	r = build(agent, &agent->epoch, utc_to_ns, agent->leaving == LEAVING_GONE, status);
	if (r < 0) {
		log_error("could not build a batch: %s", strerror(-r));
		return;
	}
	write_batch(agent);
}

void report_make(struct agent *agent)
{
	if (!report_is_writing(agent))
		sample_take(agent, &agent->epoch);
	report_make_at(agent, clock_utc_ns());
}

void report_watch_limit(struct agent *agent)
{
	struct meter_limit_state limit;
	bool turned;

	meter_read_limit(agent->epoch.meter, &limit);
	turned = limit.exhausted && !agent->epoch.report.exhausted;
	agent->epoch.report.exhausted = limit.exhausted;
	if (!agent->up)
		return;
	report_state(agent, limit.exhausted || limit.refuse ? GATEWAY_SUSPENDED : GATEWAY_ACTIVE);
	if (turned) {
		log_info("the limit of cycle %" PRIu64 " is reached", (uint64_t)limit.grant.cycle);
		report_make(agent);
	}
}
