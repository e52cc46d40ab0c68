// SPDX-License-Identifier: BSD-2-Clause
/* One batch in flight, in order, the same bytes until they are answered for good. */
#include "agent/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define TIMEOUT_SECONDS 15
#define RENEW_EVERY_NS  (30 * NSEC_PER_SEC)

bool uplink_is_idle(const struct agent *agent)
{
	return agent->uplink.n_pending == 0;
}

/* A batch that stands twice was renewed: the later bytes are sent in its place. */
static struct pending *find_renewed(struct uplink *uplink, const struct batch_summary *summary)
{
	const struct pending *last = uplink->n_pending ? &uplink->pending[uplink->n_pending - 1] : NULL;

	if (!last || (last->seq < summary->seq && uuid_equal(last->epoch, summary->epoch)))
		return NULL;
	for (size_t i = uplink->n_pending; i-- > 0;)
		if (uplink->pending[i].seq == summary->seq &&
		    uuid_equal(uplink->pending[i].epoch, summary->epoch))
			return &uplink->pending[i];
	return NULL;
}

int uplink_add(struct agent *agent, uint64_t sequence, const struct batch_summary *summary)
{
	struct uplink *uplink = &agent->uplink;
	struct pending pending = {.sequence = sequence, .seq = summary->seq, .checksum = summary->checksum};
	struct pending *before = find_renewed(uplink, summary);

	memcpy(pending.epoch, summary->epoch, UUID_SIZE);
	if (before) {
		pending.checksum_before = before->checksum;
		pending.kept_from = before->kept_from;
		*before = pending;
		return 0;
	}
	if (uplink->n_pending == uplink->size) {
		size_t size = uplink->size ? uplink->size * 2 : 16;
		struct pending *larger = realloc(uplink->pending, size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		uplink->pending = larger;
		uplink->size = size;
	}
	uplink->pending[uplink->n_pending++] = pending;
	return 0;
}

static void on_retry(void *data, int result)
{
	struct agent *agent = data;

	(void)result;
	agent->uplink.attempts.retry = 0;
	uplink_send(agent);
}

static void retry_later(struct agent *agent, const char *reason)
{
	attempts_failed(agent, &agent->uplink.attempts, "report to the API", reason, on_retry, agent);
	agent->uplink.events->failed(agent);
}

/* What is no longer pending is acknowledged in the journal, up to the oldest that is. */
static void acknowledge_journal(struct agent *agent)
{
	const struct uplink *uplink = &agent->uplink;
	uint64_t oldest = UINT64_MAX;

	for (size_t i = 0; i < uplink->n_pending; i++)
		if (uplink->pending[i].sequence < oldest)
			oldest = uplink->pending[i].sequence;
	if (oldest == UINT64_MAX)
		journal_acknowledge_all(agent->journal);
	else
		journal_acknowledge(agent->journal, oldest - 1);
}

static void drop_first(struct agent *agent, size_t n)
{
	struct uplink *uplink = &agent->uplink;

	uplink->n_pending -= n;
	memmove(uplink->pending, uplink->pending + n, uplink->n_pending * sizeof(*uplink->pending));
	acknowledge_journal(agent);
}

static bool is_current_epoch(const struct agent *agent, const struct pending *pending)
{
	return agent->epoch.meter && uuid_equal(pending->epoch, meter_identity(agent->epoch.meter)->map_uuid);
}

/* The first n are held by the API. */
static void accepted(struct agent *agent, size_t n)
{
	struct pending last = agent->uplink.pending[n - 1];
	bool was_known = agent->epoch.known;

	if (agent->uplink.attempts.failures > 0)
		log_info("the API answers again");
	agent->uplink.attempts.failures = 0;
	drop_first(agent, n);
	if (is_current_epoch(agent, &last)) {
		agent->epoch.known = true;
		agent->uplink.events->acknowledged(agent, last.seq, !was_known);
	}
	if (agent->uplink.n_pending == 0)
		agent->uplink.events->drained(agent);
	uplink_send(agent);
}

static void take_watch(struct agent *agent, const json_t *answer)
{
	const char *until = json_string_value(json_object_get(answer, "watch_until"));
	int64_t until_ns = 0;

	if (until && clock_parse(until, &until_ns) < 0)
		until_ns = 0;
	agent->epoch.report.watch_until_ns = until_ns;
}

/* The index behind the batch that the API says it holds, with the checksum of ours; 0: it is none of these.
 */
static size_t held_by_api(const struct agent *agent, const json_t *answer)
{
	const struct uplink *uplink = &agent->uplink;
	uint64_t held_seq = (uint64_t)json_integer_value(json_object_get(answer, "held_seq"));
	const json_t *held_crc = json_object_get(answer, "held_crc");
	uint32_t checksum = (uint32_t)json_integer_value(held_crc);

	if (!json_is_integer(held_crc))
		return 0;
	for (size_t i = 0; i < uplink->n_pending; i++) {
		const struct pending *pending = &uplink->pending[i];

		if (pending->seq == held_seq && uuid_equal(pending->epoch, uplink->pending[0].epoch) &&
		    (pending->checksum == checksum ||
		     (pending->checksum_before && pending->checksum_before == checksum)))
			return i + 1;
	}
	return 0;
}

/* An epoch whose numbers the API cannot follow. What it still takes of it is sent before the new one's. */
static void epoch_refused(struct agent *agent, const char *reason)
{
	struct pending first = agent->uplink.pending[0];
	size_t n = 0;

	if (is_current_epoch(agent, &first)) {
		log_error("the API refuses this epoch (%s): a new one begins", reason);
		upgrade_begin_anew(agent, false);
		return;
	}
	log_error("the API refuses the rest of an earlier epoch (%s): it is left in the journal only",
		  reason);
	while (n < agent->uplink.n_pending && uuid_equal(agent->uplink.pending[n].epoch, first.epoch))
		n++;
	drop_first(agent, n);
	uplink_send(agent);
}

/* Once: an API that does not take what is kept, and is told so, cannot follow this epoch. */
static int rewind_to(struct agent *agent, const struct pending *first, uint64_t held_seq)
{
	struct held_epoch held = {.seq = held_seq};

	if (first->kept_from == first->seq || held_seq >= first->seq)
		return -EINVAL;
	memcpy(held.id, first->epoch, UUID_SIZE);
	return agent->uplink.events->gap(agent, &held);
}

/* A machine that went back in time, to a snapshot of its disk and memory. */
static bool is_beyond_us(const struct agent *agent, const json_t *answer)
{
	return is_current_epoch(agent, &agent->uplink.pending[0]) &&
	       (uint64_t)json_integer_value(json_object_get(answer, "held_seq")) >=
		       agent->epoch.report.next_seq;
}

/* A proxy may confuse answers, or make one up: this one says that the first batch is held. */
static bool is_acknowledged(const struct agent *agent, const json_t *answer)
{
	return (uint64_t)json_integer_value(json_object_get(answer, "held_seq")) >=
	       agent->uplink.pending[0].seq;
}

static void conflict(struct agent *agent, const json_t *answer)
{
	const char *reason = json_string_value(json_object_get(answer, "reason"));
	uint64_t held_seq = (uint64_t)json_integer_value(json_object_get(answer, "held_seq"));
	const struct pending first = agent->uplink.pending[0];
	size_t held = held_by_api(agent, answer);

	if (!reason) {
		retry_later(agent, "status 409 without a reason");
	} else if (strcmp(reason, "fenced") == 0) {
		log_error("another agent has taken this gateway over (generation %" PRId64 " is fenced)",
			  agent->config.generation);
		agent_exit(agent, 1);
	} else if (held > 0) {
		accepted(agent, held);
	} else if (strcmp(reason, "gap") == 0 && rewind_to(agent, &first, held_seq) == 0) {
		log_warning("the API holds batch %" PRIu64 " only: what follows is sent again", held_seq);
		uplink_send(agent);
	} else {
		epoch_refused(agent, reason);
	}
}

/*
 * New bytes for a batch that was refused for good: its counts stay, its date is today's. One that may have
 * been taken keeps its bytes, also under a later generation: the API knows it by their checksum.
 */
static int renew(struct agent *agent)
{
	struct uplink *uplink = &agent->uplink;
	struct batch renewed = {0};
	struct journal_entry entry;
	uint64_t sequence;
	int r = batch_renew(&uplink->summary, uplink->body, uplink->length, clock_utc_ns(), &renewed);

	if (r < 0)
		return r;
	entry = batch_entry(&renewed);
	r = journal_append_entries(agent->journal, &entry, 1, &sequence);
	if (r == 0)
		r = uplink_add(agent, sequence, &renewed.summary);
	free(renewed.body);
	return r;
}

static void refused(struct agent *agent, const struct http_answer *answer)
{
	int64_t now = clock_boot_ns();

	if (agent->uplink.attempts.failures == 0)
		log_warning("the API refuses a batch with status %d: %.200s", answer->status, answer->body);
	/* Each renewal is another record in the journal. */
	if (agent->uplink.renewed_boot_ns == 0 || now - agent->uplink.renewed_boot_ns > RENEW_EVERY_NS) {
		int r = renew(agent);

		if (r < 0)
			log_warning("could not renew the batch: %s", strerror(-r));
		else
			agent->uplink.renewed_boot_ns = now;
	}
	retry_later(agent, "the batch is refused");
}

static void on_answer(const struct http_answer *answer, void *data)
{
	struct agent *agent = data;
	json_t *json _cleanup_json_ = json_loadb(answer->body, answer->length, 0, NULL);
	__attribute__((unused)) char *payload _cleanup_free_ = TAKE_PTR(agent->uplink.payload);
	char reason[64];

	agent->uplink.request = NULL;
	if (answer->status == 200 || answer->status == 409)
		agent->uplink.events->answered(agent, json);
	switch (answer->status) {
	case 200:
		take_watch(agent, json);
		if (is_beyond_us(agent, json))
			epoch_refused(agent, "it holds more than this machine has made");
		else if (is_acknowledged(agent, json))
			accepted(agent, 1);
		else
			retry_later(agent, "the answer is to another batch");
		break;
	case 400:
		refused(agent, answer);
		break;
	case 409:
		conflict(agent, json);
		break;
	case 410:
		agent->uplink.events->gone(agent);
		break;
	case 0:
		retry_later(agent, answer->error);
		break;
	default:
		snprintf(reason, sizeof(reason), "status %d", answer->status);
		retry_later(agent, reason);
	}
}

static int read_first(struct agent *agent)
{
	struct uplink *uplink = &agent->uplink;
	enum journal_kind kind;
	size_t length;
	int r = journal_read(agent->journal, uplink->pending[0].sequence, &kind, &uplink->payload, &length);

	return r < 0 ? r
		     : batch_from_record(kind, uplink->payload, length, &uplink->summary, &uplink->body,
					 &uplink->length);
}

/*
 * Acknowledged before a restore and given up for space since, or damaged on the disk. What is kept follows
 * and says so; of the epoch that goes on there is always something to follow.
 */
static void skip_lost(struct agent *agent)
{
	struct uplink *uplink = &agent->uplink;
	bool is_followed =
		uplink->n_pending > 1 && uuid_equal(uplink->pending[0].epoch, uplink->pending[1].epoch);

	if (!is_followed && is_current_epoch(agent, &uplink->pending[0]) && !agent->epoch.report.final)
		return;
	log_warning("batch %" PRIu64 " cannot be read back from the journal: it is left out",
		    uplink->pending[0].seq);
	if (is_followed)
		uplink->pending[1].kept_from = uplink->pending[1].seq;
	agent->epoch.report.whole_due = true;
	drop_first(agent, 1);
}

static int load_first(struct agent *agent)
{
	int r = read_first(agent);

	if (r == -ENOENT || r == -EIO || r == -EINVAL)
		skip_lost(agent);
	return r;
}

void uplink_send(struct agent *agent)
{
	struct uplink *uplink = &agent->uplink;
	struct http_call call;
	int r;

	if (uplink->n_pending == 0 || uplink->request || uplink->held_request || uplink->attempts.retry ||
	    !agent->config.token)
		return;
	r = load_first(agent);
	if (r == 0) {
		call = attempts_call(agent, &uplink->attempts);
		call.path = "/v1/agent/report";
		call.body = uplink->body;
		call.length = uplink->length;
		call.has_checksum = true;
		call.checksum = uplink->pending[0].checksum;
		call.kept_from = uplink->pending[0].kept_from;
		call.epoch_over = !is_current_epoch(agent, &uplink->pending[0]);
		call.timeout_seconds = TIMEOUT_SECONDS;
		r = http_begin(agent->http, &call, on_answer, agent, &uplink->request);
	}
	if (r < 0) {
		free(TAKE_PTR(uplink->payload));
		retry_later(agent, strerror(-r));
	}
}
