// SPDX-License-Identifier: BSD-2-Clause
/*
 * Limits as grants. A limit is of bytes used in a period of the calendar, a grant of bytes counted in a cycle
 * that the kernel began; so each grant says: as many as are counted now, and what is left. Both are read in
 * the order that errs towards less while packets flow.
 */
#include "standalone/station_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>

/* How far wall clock and boot clock may drift apart before the next grant is laid down anew. */
#define DRIFT_NS (NSEC_PER_SEC / 2)

/* One limit: a peer's, or, without a record, the interface's. */
struct holder {
	struct station *station;
	struct record *record;
	struct limit *limit;
};

static struct holder interface_of(struct station *station)
{
	return (struct holder){station, NULL, &station->history.limit};
}

static struct holder peer_of(struct station *station, struct record *record)
{
	return (struct holder){station, record, &record->limit};
}

static int read_state(const struct holder *holder, struct meter_limit_state *ret_state)
{
	if (holder->record)
		return meter_read_peer_limit(holder->station->meter, holder->record->slot, ret_state);
	meter_read_limit(holder->station->meter, ret_state);
	return 0;
}

static int grant(const struct holder *holder, uint64_t cycle, uint64_t grant_seq, uint64_t ceiling)
{
	const struct meter_grant new_grant = {.cycle = cycle,
					      .grant_seq = grant_seq,
					      .ceiling = ceiling,
					      .mask = holder->station->history.accounting};

	if (holder->record)
		return meter_grant_peer(holder->station->meter, holder->record->slot, &new_grant);
	return meter_grant(holder->station->meter, &new_grant);
}

static int grant_next(const struct holder *holder, uint64_t cycle, int64_t boot_ns)
{
	const struct meter_grant next = {.cycle = cycle,
					 .grant_seq = 1,
					 .ceiling = holder->limit->amount.bytes,
					 .mask = holder->station->history.accounting};

	if (holder->record)
		return meter_grant_peer_next(holder->station->meter, holder->record->slot, &next,
					     (uint64_t)boot_ns);
	return meter_grant_next(holder->station->meter, &next, (uint64_t)boot_ns);
}

static void read_counts(const struct holder *holder)
{
	if (holder->record) {
		station_read(holder->station, holder->record);
		return;
	}
	for (size_t i = 0; i < holder->station->history.n_records; i++)
		station_read(holder->station, holder->station->history.records[i]);
}

static uint64_t used(const struct holder *holder)
{
	return holder->record ? record_used(&holder->station->history, holder->record)
			      : history_used(&holder->station->history);
}

/* Given back since the period began: it makes the limit worth as much more. */
static uint64_t given_back(const struct holder *holder)
{
	const struct history *history = &holder->station->history;
	enum period period = holder->limit->amount.period;

	if (!(history->accounting & WT_DOWNLOADS))
		return 0;
	return holder->record
		       ? holder->record->delivery.undelivered - holder->record->period_undelivered[period]
		       : history_undelivered(history) - history->interface_undelivered[period];
}

/* ---- telling --------------------------------------------------------------------------------------------
 */

/* A cycle's exact grant: counted is read before used, so that what passes in between is taken off, not given.
 */
static int grant_rest(const struct holder *holder)
{
	uint64_t bytes = holder->limit->amount.bytes, spent;
	struct meter_limit_state state;
	int r = read_state(holder, &state);

	if (r < 0)
		return r;
	read_counts(holder);
	spent = used(holder);
	r = grant(holder, state.grant.cycle, state.grant.grant_seq + 1,
		  state.cycle_counted + (bytes > spent ? bytes - spent : 0));
	if (r == 0)
		holder->limit->told = bytes + given_back(holder);
	return r;
}

/* Where a cycle begins is known only when it has begun: half of the rest serves for that moment. */
static int begin_cycle(const struct holder *holder, const struct meter_limit_state *state, int64_t began)
{
	struct limit *limit = holder->limit;
	uint64_t cycle = state->grant.cycle > limit->cycle ? state->grant.cycle : limit->cycle;
	uint64_t spent = used(holder);
	uint64_t rest = limit->amount.bytes > spent ? limit->amount.bytes - spent : 0;
	int r = grant(holder, cycle + 1, 2, rest / 2);

	if (r < 0)
		return r;
	limit->cycle = cycle + 1;
	limit->cycle_period = limit->amount.period;
	limit->cycle_began = began;
	limit->told_next_boot_ns = 0;
	holder->station->dirty = true;
	return grant_rest(holder);
}

static void set_back(struct volume *began, uint64_t bytes, uint32_t accounting)
{
	uint64_t download = accounting & WT_DOWNLOADS
				    ? (bytes < began->download_bytes ? bytes : began->download_bytes)
				    : 0;
	uint64_t upload = bytes - download;

	began->download_bytes -= download;
	began->upload_bytes -= upload < began->upload_bytes ? upload : began->upload_bytes;
}

/*
 * The kernel has begun the cycle by itself: what it had counted in it when the period was noted belongs to
 * the new period.
 */
static void follow_cycle(const struct holder *holder, const struct meter_limit_state *state, int64_t began)
{
	struct history *history = &holder->station->history;
	enum period period = holder->limit->amount.period;
	uint64_t noted = holder->limit->turned_at;

	set_back(holder->record ? &holder->record->period_began[period] : &history->interface_began[period],
		 noted > state->began ? noted - state->began : 0, history->accounting);
	holder->limit->cycle = state->grant.cycle;
	holder->limit->cycle_began = began;
	holder->limit->told_next_boot_ns = 0;
	holder->station->dirty = true;
}

/* Whether the kernel has put in force what was laid down for the next period. Nobody else grants a number 1.
 */
static bool taken_up(const struct limit *limit, const struct meter_limit_state *state)
{
	return limit->cycle && limit->cycle_period == limit->amount.period &&
	       state->grant.cycle == limit->cycle + 1 && state->grant.grant_seq == 1;
}

static int lift(const struct holder *holder, const struct meter_limit_state *state)
{
	if (state->grant.cycle == 0 || state->grant.ceiling == WT_NO_CEILING)
		return 0;
	if (holder->record)
		return meter_clear_peer_limit(holder->station->meter, holder->record->slot);
	return grant(holder, state->grant.cycle + 1, 2, WT_NO_CEILING);
}

/* The next period's, so that it begins even if no process lives then. */
static int lay_down_next(const struct holder *holder)
{
	struct limit *limit = holder->limit;
	int64_t utc_ns = clock_utc_ns(), end = period_end(limit->amount.period, utc_ns), boot_ns;
	int r;

	if (end == INT64_MAX)
		return 0;
	boot_ns = clock_boot_ns() + (end - utc_ns);
	if (limit->told_next_boot_ns && llabs(boot_ns - limit->told_next_boot_ns) < DRIFT_NS)
		return 0;
	r = grant_next(holder, limit->cycle + 1, boot_ns);
	if (r == 0)
		limit->told_next_boot_ns = boot_ns;
	/* Taken up this very moment: the next sample sees it. */
	return r == -EALREADY ? 0 : r;
}

static int apply(const struct holder *holder)
{
	struct limit *limit = holder->limit;
	int64_t began = holder->station->history.period_began[limit->amount.period];
	struct meter_limit_state state;
	bool told;
	int r = read_state(holder, &state);

	if (r < 0)
		return r;
	if (!limit->set)
		return holder->station->regrant ? lift(holder, &state) : 0;
	if (taken_up(limit, &state)) {
		/* By its clock the period has turned: ours is a moment behind. */
		if (began <= limit->cycle_began)
			return 0;
		follow_cycle(holder, &state, began);
		limit->told = limit->amount.bytes;
	}
	told = limit->cycle && limit->cycle == state.grant.cycle &&
	       limit->cycle_period == limit->amount.period && limit->cycle_began == began;
	if (!told)
		r = begin_cycle(holder, &state, began);
	else if (holder->station->regrant || limit->told != limit->amount.bytes + given_back(holder))
		r = grant_rest(holder);
	return r < 0 ? r : lay_down_next(holder);
}

static void note(const struct holder *holder)
{
	struct meter_limit_state state;

	if (holder->limit->set && read_state(holder, &state) == 0)
		holder->limit->turned_at = state.began + state.cycle_counted;
}

/* The count before the position: what passes between the two is charged to the new period, not given to it.
 */
void grants_note(struct station *station)
{
	const struct holder whole = interface_of(station);

	for (size_t i = 0; i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];
		const struct holder peer = peer_of(station, record);

		station_read(station, record);
		if (record->slot)
			note(&peer);
	}
	note(&whole);
}

int grants_apply(struct station *station)
{
	struct holder holder = interface_of(station);
	int r = apply(&holder);

	for (size_t i = 1; r == 0 && i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		holder = peer_of(station, record);
		if (record->present && record->slot)
			r = apply(&holder);
	}
	if (r == 0)
		station->regrant = false;
	return r;
}

void grants_read(struct station *station)
{
	struct meter_limit_state state;

	meter_read_limit(station->meter, &state);
	station->limited = state.exhausted || state.refuse;
	for (size_t i = 1; i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		record->limited = record->slot &&
				  meter_read_peer_limit(station->meter, record->slot, &state) == 0 &&
				  (state.exhausted || state.refuse);
	}
}
