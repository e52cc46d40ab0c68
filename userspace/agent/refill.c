// SPDX-License-Identifier: BSD-2-Clause
/* The API's database was put back to an earlier point: what the journal keeps fills it again. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#define TIMEOUT_SECONDS 15

struct refill {
	struct agent *agent;
	struct held_epoch *held;
	size_t n_held;
	bool listed_only; /* epochs that are not listed stay as they were queued */
};

static const struct held_epoch *find_held(const struct refill *refill, const uint8_t *epoch)
{
	for (size_t i = 0; i < refill->n_held; i++)
		if (uuid_equal(refill->held[i].id, epoch))
			return &refill->held[i];
	return NULL;
}

static bool was_queued(const struct uplink *before, uint64_t sequence)
{
	for (size_t i = 0; i < before->n_pending; i++)
		if (before->pending[i].sequence == sequence)
			return true;
	return false;
}

struct requeue {
	const struct refill *refill;
	const struct uplink *before;
};

static int requeue_record(const struct journal_record *record, void *data)
{
	const struct requeue *requeue = data;
	const struct refill *refill = requeue->refill;
	struct batch_summary summary;
	const struct held_epoch *held;
	const char *body;
	size_t length;
	int r = batch_from_record(record->kind, record->payload, record->length, &summary, &body, &length);

	if (r < 0)
		return r;
	held = find_held(refill, summary.epoch);
	if (!held && refill->listed_only)
		return was_queued(requeue->before, record->sequence)
			       ? uplink_add(refill->agent, record->sequence, &summary)
			       : 0;
	/* What no database knows is sent from the first batch on. */
	if (held && summary.seq <= held->seq)
		return 0;
	return uplink_add(refill->agent, record->sequence, &summary);
}

/* Where an epoch's first batch is not the one that follows what is held, the journal keeps no more. */
static void mark_kept(const struct refill *refill, struct uplink *uplink)
{
	for (size_t i = 0; i < uplink->n_pending; i++) {
		struct pending *pending = &uplink->pending[i];
		const struct held_epoch *held = find_held(refill, pending->epoch);

		if (i > 0 && uuid_equal(uplink->pending[i - 1].epoch, pending->epoch))
			continue;
		if ((held || !refill->listed_only) && pending->seq > (held ? held->seq : 0) + 1) {
			pending->kept_from = pending->seq;
			refill->agent->epoch.report.whole_due = true;
		}
	}
}

/* The queue anew, in the journal's order. It stays as it was when that fails. */
static int requeue(const struct refill *refill)
{
	struct agent *agent = refill->agent;
	struct uplink before = agent->uplink;
	struct requeue walk = {refill, &before};
	int r;

	agent->uplink.pending = NULL;
	agent->uplink.n_pending = agent->uplink.size = 0;
	r = journal_for_each(agent->journal, requeue_record, &walk);
	if (r < 0) {
		free(agent->uplink.pending);
		agent->uplink.pending = before.pending;
		agent->uplink.n_pending = before.n_pending;
		agent->uplink.size = before.size;
		return r;
	}
	free(before.pending);
	mark_kept(refill, &agent->uplink);
	return 0;
}

int refill_epoch(struct agent *agent, const struct held_epoch *held)
{
	struct held_epoch copy = *held;
	struct refill refill = {.agent = agent, .held = &copy, .n_held = 1, .listed_only = true};

	return requeue(&refill);
}

static int save(const struct agent *agent, int64_t restored)
{
	char path[PATH_MAX], text[32];

	snprintf(path, sizeof(path), "%s/restored", agent->base);
	snprintf(text, sizeof(text), "%" PRId64 "\n", restored);
	return file_replace(path, text, strlen(text), 0600);
}

void refill_load(struct agent *agent)
{
	char path[PATH_MAX], *text _cleanup_free_ = NULL, *end = NULL;

	agent->uplink.restored = -1;
	snprintf(path, sizeof(path), "%s/restored", agent->base);
	if (file_read(path, 64, &text, NULL) < 0)
		return;
	agent->uplink.restored = strtoll(text, &end, 10);
	if (end == text || agent->uplink.restored < 0)
		agent->uplink.restored = -1;
}

static void note_restored(const struct agent *agent)
{
	int r = save(agent, agent->uplink.restored);

	/* In memory at least: after a restart the same is asked for once more. */
	if (r < 0)
		log_warning("could not write the file 'restored': %s", strerror(-r));
}

void refill_through(struct agent *agent)
{
	if (!agent->uplink.refilling)
		return;
	agent->uplink.refilling = false;
	note_restored(agent);
}

static int parse_held(const json_t *answer, struct refill *ret_refill, int64_t *ret_restored)
{
	const json_t *epochs = json_object_get(answer, "epochs"), *item;
	struct held_epoch *held;
	size_t i;

	if (!json_is_integer(json_object_get(answer, "restored")) || !json_is_array(epochs))
		return -EINVAL;
	held = calloc(json_array_size(epochs) + 1, sizeof(*held));
	if (!held)
		return -ENOMEM;
	json_array_foreach (epochs, i, item) {
		const char *id = json_string_value(json_object_get(item, "id"));

		held[i].seq = (uint64_t)json_integer_value(json_object_get(item, "held_seq"));
		if (!id || uuid_parse(id, held[i].id) < 0) {
			free(held);
			return -EINVAL;
		}
	}
	ret_refill->held = held;
	ret_refill->n_held = json_array_size(epochs);
	*ret_restored = json_integer_value(json_object_get(answer, "restored"));
	return 0;
}

static void on_held(const struct http_answer *answer, void *data)
{
	struct agent *agent = data;
	struct refill refill = {.agent = agent};
	json_t *json _cleanup_json_ = NULL;
	int64_t restored;
	int r = -EAGAIN;

	agent->uplink.held_request = NULL;
	if (answer->status == 200) {
		json = json_loadb(answer->body, answer->length, 0, NULL);
		r = json ? parse_held(json, &refill, &restored) : -EINVAL;
	}
	if (r == 0)
		r = requeue(&refill);
	if (r == 0) {
		/* Not on disk yet: the queue is in memory only, and a process that dies now begins it anew.
		 */
		agent->uplink.restored = restored;
		agent->uplink.refilling = true;
		log_warning("the API's database was restored: %zu batches are sent again or still to be sent",
			    agent->uplink.n_pending);
	}
	free(refill.held);
	/* Without an answer the next report's says again that there was a restore. */
	uplink_send(agent);
}

void refill_notice(struct agent *agent, const json_t *answer)
{
	const json_t *restored = json_object_get(answer, "restored");
	struct uplink *uplink = &agent->uplink;
	struct http_call call = attempts_call(agent, &uplink->attempts);

	call.path = "/v1/agent/held";
	call.timeout_seconds = TIMEOUT_SECONDS;
	if (!json_is_integer(restored) || uplink->held_request)
		return;
	if (uplink->restored < 0) {
		uplink->restored = json_integer_value(restored);
		note_restored(agent);
	}
	if (json_integer_value(restored) != uplink->restored &&
	    http_begin(agent->http, &call, on_held, agent, &uplink->held_request) < 0)
		log_warning("could not ask what the API holds; it is asked again");
}
