// SPDX-License-Identifier: BSD-2-Clause
#include "billing/report.h"

#include "base/clock.h"
#include "base/key.h"
#include "billing/fields.h"

#include <wiretoll/report.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int require_int(const json_t *object, const char *field, int64_t min, int64_t max, int64_t *ret,
		       struct json_problem *problem)
{
	return json_require(json_read_int(object, field, min, max, ret, problem), field, problem);
}

static int require_count(const json_t *object, const char *field, struct json_problem *problem)
{
	return json_require(read_count(object, field, problem), field, problem);
}

static int require_instant(const json_t *object, const char *field, int64_t *ret,
			   struct json_problem *problem)
{
	return json_require(read_instant(object, field, ret, problem), field, problem);
}

static int check_key(const json_t *body, struct json_problem *problem)
{
	struct key key;

	return json_require(read_key(body, "public_key", &key, problem), "public_key", problem);
}

static int check_epoch(const json_t *body, struct json_problem *problem)
{
	const json_t *epoch;
	const char *text;
	bool final;
	int r = json_require(json_read_object(body, "epoch", &epoch, problem), "epoch", problem);

	if (r == 0)
		r = json_require(read_uuid(epoch, "id", &text, problem), "id", problem);
	if (r == 0)
		r = json_require(read_uuid(epoch, "boot_id", &text, problem), "boot_id", problem);
	if (r == 0)
		r = json_require(json_read_bool(epoch, "final", &final, problem), "final", problem);
	return r;
}

static int check_grant(const json_t *body, struct json_problem *problem)
{
	const json_t *grant;
	int64_t number;
	bool exhausted;
	int r = json_read_object(body, "grant", &grant, problem);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = require_int(grant, "cycle", 197001, 999912, &number, problem);
	if (r == 0)
		r = require_int(grant, "grant_seq", 0, INT64_MAX, &number, problem);
	if (r == 0)
		r = require_count(grant, "cycle_counted", problem);
	if (r == 0)
		r = json_require(json_read_bool(grant, "exhausted", &exhausted, problem), "exhausted",
				 problem);
	return r;
}

/* Absent, it is false. */
static int check_flag(const json_t *object, const char *field, struct json_problem *problem)
{
	bool flag;
	int r = json_read_bool(object, field, &flag, problem);

	return r == -ENOENT ? 0 : r;
}

/* Slot 0, and only it, belongs to no peer. */
static int check_slot(const json_t *record, struct json_problem *problem)
{
	const char *peer = NULL;
	int64_t slot, incarnation;
	int r = require_int(record, "slot", 0, INT32_MAX, &slot, problem);

	if (r == 0)
		r = require_int(record, "incarnation", 0, INT64_MAX, &incarnation, problem);
	if (r == 0)
		r = read_uuid(record, "peer", &peer, problem);
	if (r < 0 && r != -ENOENT)
		return r;
	if ((slot == 0) != (peer == NULL)) {
		json_problem_set(problem, "peer",
				 "peer is %s in slot %" PRId64
				 "; accepted is null in slot 0 and a peer's id elsewhere",
				 peer ? peer : "null", slot);
		return -EINVAL;
	}
	return 0;
}

static int check_record(const json_t *record, struct json_problem *problem)
{
	static const char *const counts[] = WT_REPORT_COUNT_NAMES;
	int64_t hour;
	int r = check_slot(record, problem);

	if (r == 0)
		r = require_instant(record, "hour", &hour, problem);
	if (r == 0 && clock_hour_start(hour) != hour) {
		json_problem_set(problem, "hour",
				 "hour is \"%.64s\"; accepted is the beginning of a UTC hour",
				 json_string_value(json_object_get(record, "hour")));
		return -EINVAL;
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(counts); i++)
		r = require_count(record, counts[i], problem);
	return r == 0 ? check_flag(record, "split", problem) : r;
}

static int check_status(const json_t *status, struct json_problem *problem)
{
	const char *text;
	int64_t handshake;
	int r = json_require(read_uuid(status, "peer", &text, problem), "peer", problem);

	if (r == 0)
		r = read_instant(status, "handshake", &handshake, problem);
	if (r == 0 || r == -ENOENT)
		r = json_read_string(status, "endpoint", &text, problem);
	return r == -ENOENT ? 0 : r;
}

static int check_complaint(const json_t *complaint, struct json_problem *problem)
{
	const char *text;
	int r = json_require(json_read_string(complaint, "what", &text, problem), "what", problem);

	if (r == 0)
		r = json_require(json_read_string(complaint, "reason", &text, problem), "reason", problem);
	return r;
}

static int check_state(const json_t *state, struct json_problem *problem)
{
	const char *name;
	int64_t from, to;
	int r = require_instant(state, "from", &from, problem);

	if (r == 0)
		r = require_instant(state, "to", &to, problem);
	if (r == 0)
		r = json_require(json_read_string(state, "state", &name, problem), "state", problem);
	if (r < 0)
		return r;
	if (strcmp(name, "active") != 0 && strcmp(name, "suspended") != 0) {
		json_problem_set(problem, "state", "state is \"%.32s\"; accepted are active and suspended",
				 name);
		return -EINVAL;
	}
	return 0;
}

/* Counts of the agent's own, all of them optional: "reconcile": {"meter": {"upload_bytes": "1", …}, …}. */
static int check_counts(const json_t *counts, const char *source, const char *const *fields,
			struct json_problem *problem)
{
	const json_t *told;
	int r = json_read_object(counts, source, &told, problem);

	for (size_t i = 0; r == 0 && fields[i]; i++)
		r = require_count(told, fields[i], problem);
	return r == -ENOENT ? 0 : r;
}

/* Whether the interface counts messages, and not packets. */
static int check_encrypted(const json_t *counts, struct json_problem *problem)
{
	const json_t *interface;
	bool encrypted;
	int r = json_read_object(counts, "interface", &interface, problem);

	if (r == 0)
		r = json_read_bool(interface, "encrypted", &encrypted, problem);
	return r == -ENOENT ? 0 : r;
}

static int check_reconcile(const json_t *body, struct json_problem *problem)
{
	static const char *const meter[] = {"upload_bytes", "download_bytes", "upload_packets",
					    "download_packets", NULL};
	static const char *const link[] = {"rx_bytes", "tx_bytes", NULL};
	static const char *const journal[] = {"upload_bytes", "download_bytes", NULL};
	const json_t *counts, *told;
	int64_t seq;
	int r = json_read_object(body, "reconcile", &counts, problem);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = check_counts(counts, "meter", meter, problem);
	if (r == 0)
		r = check_counts(counts, "wireguard", link, problem);
	if (r == 0)
		r = check_counts(counts, "interface", link, problem);
	if (r == 0)
		r = check_encrypted(counts, problem);
	if (r == 0)
		r = check_counts(counts, "journal", journal, problem);
	if (r == 0 && json_read_object(counts, "journal", &told, problem) == 0)
		r = require_int(told, "seq", 0, INT64_MAX, &seq, problem);
	return r;
}

/* Checks each of at most `max` elements and puts "array[index]." before the field of a problem. */
static int check_each(const json_t *body, const char *field, size_t max,
		      int (*check)(const json_t *element, struct json_problem *problem),
		      struct json_problem *problem)
{
	struct json_problem inner;
	const json_t *array, *element;
	size_t i;
	int r = json_require(json_read_array(body, field, &array, problem), field, problem);

	if (r < 0)
		return r;
	if (json_array_size(array) > max) {
		json_problem_set(problem, field, "%s has %zu elements; accepted are at most %zu", field,
				 json_array_size(array), max);
		return -EINVAL;
	}
	json_array_foreach (array, i, element) {
		memset(&inner, 0, sizeof(inner));
		r = json_is_object(element) ? check(element, &inner) : -EINVAL;
		if (r == 0)
			continue;
		if (!json_is_object(element))
			json_problem_set(&inner, "", "%s is no object; accepted is an array of objects",
					 field);
		snprintf(problem->field, sizeof(problem->field), "%s[%zu].%.40s", field, i, inner.field);
		snprintf(problem->message, sizeof(problem->message), "%s[%zu]: %.280s", field, i,
			 inner.message);
		return r;
	}
	return 0;
}

/* Wall clocks step: what turned round by that is no error, only empty. */
static int check_times(const json_t *body, struct json_problem *problem)
{
	int64_t from, to, instant;
	int r = require_instant(body, "covered_from", &from, problem);

	if (r == 0)
		r = require_instant(body, "covered_to", &to, problem);
	if (r == 0)
		r = require_instant(body, "now", &instant, problem);
	if (r == 0)
		r = read_instant(body, "active_since", &instant, problem);
	return r == -ENOENT ? 0 : r;
}

int report_check(const json_t *body, struct json_problem *problem)
{
	int64_t number;
	int r = require_int(body, "generation", 1, INT64_MAX, &number, problem);

	if (r == 0)
		r = check_epoch(body, problem);
	if (r == 0)
		r = require_int(body, "seq", 1, INT64_MAX, &number, problem);
	if (r == 0)
		r = check_flag(body, "more", problem);
	if (r == 0)
		r = check_times(body, problem);
	if (r == 0)
		r = check_key(body, problem);
	if (r == 0)
		r = require_int(body, "applied_revision", 0, INT64_MAX, &number, problem);
	if (r == 0)
		r = require_count(body, "counted", problem);
	if (r == 0)
		r = check_grant(body, problem);
	if (r == 0)
		r = check_each(body, "states", WT_REPORT_MAX_STATES, check_state, problem);
	if (r == 0)
		r = check_each(body, "records", SIZE_MAX, check_record, problem);
	if (r == 0)
		r = check_each(body, "status", WT_REPORT_MAX_STATUS, check_status, problem);
	if (r == 0)
		r = check_each(body, "cannot_apply", WT_REPORT_MAX_COMPLAINTS, check_complaint, problem);
	if (r == 0)
		r = check_reconcile(body, problem);
	return r;
}
