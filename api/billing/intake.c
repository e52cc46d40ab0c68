// SPDX-License-Identifier: BSD-2-Clause
#include "billing/intake.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "billing/records.h"
#include "billing/report.h"
#include "billing/rows.h"
#include "metrics.h"

#include <wiretoll/report.h>

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_CHARACTERS "65536" /* of a report that was refused */
#define FIRST_PLANS_NS  (2 * NSEC_PER_SEC)
#define OFTEN_SECONDS   600
#define LAST_PLANS_NS   (300 * NSEC_PER_SEC)

struct prepared {
	struct report_rows rows;
	int64_t n;
};

static void free_prepared(void *data)
{
	struct prepared *prepared = data;

	report_rows_free(&prepared->rows);
	free(prepared);
}

/* False when the header names another checksum than the body's. */
static bool check_crc(const struct request *request, uint32_t *ret_crc)
{
	const char *claimed = request_header(request, WT_HEADER_CRC);
	char text[16];

	*ret_crc = crc32c(0, request->raw_body, request->raw_body_length);
	snprintf(text, sizeof(text), "%" PRIu32, *ret_crc);
	return claimed && strcmp(claimed, text) == 0;
}

/* 0: there is no such header; -EINVAL: it is no sequence number. */
static int read_kept_from(const struct request *request, uint64_t *ret)
{
	const char *text = request_header(request, WT_HEADER_KEPT_FROM);
	size_t length = text ? strlen(text) : 0;

	*ret = 0;
	if (!text)
		return 0;
	if (length == 0 || length > 18 || strspn(text, "0123456789") != length ||
	    strtoull(text, NULL, 10) == 0)
		return -EINVAL;
	*ret = strtoull(text, NULL, 10);
	return 0;
}

/* As agents write it, or as any JSON: nearly all of a report are its records. */
static int read_body(struct request *request, struct response *response, struct sample_list *ret_list)
{
	struct json_problem problem = {0};
	_cleanup_free_ char *rest = NULL;
	size_t rest_length;
	int r = records_take(request->raw_body, request->raw_body_length, ret_list, &rest, &rest_length);

	if (r == 0 && request_parse(request, rest, rest_length, response) == 0 &&
	    report_check(request->body, &problem) == 0)
		return 0;
	if (r == -ENOMEM)
		return r;
	cleanup_samples(ret_list);
	r = request_parse(request, request->raw_body, request->raw_body_length, response);
	if (r < 0)
		return r;
	if (report_check(request->body, &problem) < 0) {
		response_problem(response, 400, problem.field, "%s", problem.message);
		return -EBADMSG;
	}
	return samples_read(json_object_get(request->body, "records"), ret_list);
}

static size_t weight(const struct request *request)
{
	const struct prepared *prepared = request->prepared;

	return prepared->rows.n_samples;
}

/*
 * Once a connection: the layouts are the migrations'. What is large is reached by its key, always: what a
 * batch has is few rows against all that there are, also while the statistics do not say so yet.
 */
static int open_tables(struct db *db)
{
	static const char *const tables[] = {"report_in",    "sample_in",    "counter_in",
					     "counter_base", "state_in",     "seen_in",
					     "report_work",  "settle_piece", "hour_sum"};
	static const char *const settings[] = {"SET seq_page_cost = 10", "SET enable_mergejoin = off",
					       "SET random_page_cost = 0.1", "SET jit = off"};
	char sql[160];
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(settings) && r >= 0; i++)
		r = DB_EXECUTE(db, settings[i]);
	for (size_t i = 0; i < ARRAY_SIZE(tables) && r >= 0; i++) {
		snprintf(sql, sizeof(sql),
			 "CREATE TEMP TABLE IF NOT EXISTS %s OF billing.%s ON COMMIT DELETE ROWS", tables[i],
			 tables[i]);
		r = DB_EXECUTE(db, sql);
	}
	if (r < 0)
		return r;
	db_made_ready(db);
	return 0;
}

/*
 * Statements without parameters keep the plan of their first run for as long as nothing is known to have
 * changed. That may have been on tables nearly empty, so plans are made anew while a connection is young,
 * ever more seldom: about 50 ms each time.
 */
static int renew_plans(struct db *db, bool is_new)
{
	static _Thread_local int64_t next_ns, interval_ns;
	int64_t now_ns = clock_boot_ns();
	int r;

	if (is_new)
		interval_ns = FIRST_PLANS_NS;
	else if (now_ns < next_ns)
		return 0;
	else if (interval_ns < LAST_PLANS_NS)
		interval_ns *= 2;
	next_ns = now_ns + interval_ns;
	r = DB_EXECUTE(db, "DISCARD PLANS");
	return r < 0 ? r : 0;
}

static int copy_table(struct db *db, enum report_table table, struct request *const *requests, size_t n)
{
	static const char *const sql[N_REPORT_TABLES] = {
		[REPORT_IN] = "COPY pg_temp.report_in FROM STDIN",
		[SAMPLE_IN] = "COPY pg_temp.sample_in FROM STDIN (FORMAT binary)",
		[COUNTER_IN] = "COPY pg_temp.counter_in FROM STDIN (FORMAT binary)",
		[STATE_IN] = "COPY pg_temp.state_in FROM STDIN",
		[SEEN_IN] = "COPY pg_temp.seen_in FROM STDIN",
	};
	/* The frame of the binary form: its signature, no flags, no extension; and its end. */
	static const char begins[] = "PGCOPY\n\377\r\n\0"
				     "\0\0\0\0"
				     "\0\0\0\0",
			  ends[] = "\377\377";
	bool framed = report_table_is_binary(table);
	struct db_piece *pieces = calloc(n + 2, sizeof(*pieces));
	size_t total = 0;
	int r;

	if (!pieces)
		return -ENOMEM;
	if (framed) {
		pieces[0] = (struct db_piece){begins, sizeof(begins) - 1};
		pieces[n + 1] = (struct db_piece){ends, sizeof(ends) - 1};
	}
	for (size_t i = 0; i < n; i++) {
		const struct prepared *prepared = requests[i]->prepared;

		pieces[i + 1] = (struct db_piece){prepared->rows.data[table], prepared->rows.length[table]};
		total += pieces[i + 1].length;
	}
	r = total > 0 ? db_copy(db, sql[table], pieces, n + 2) : 0;
	free(pieces);
	return r;
}

/* What contradicts what is held is kept as it came. A body is UTF-8 without a NUL, or it would have been no
 * JSON. */
static int keep_refused(struct db *db, const struct request *request, const char *n)
{
	_cleanup_free_ char *body = strndup(request->raw_body, request->raw_body_length);

	if (!body)
		return -ENOMEM;
	return DB_EXECUTE(
		db,
		"INSERT INTO billing.quarantine (owner, gateway, epoch, seq, crc, reason, held_seq, "
		"held_crc, body) "
		"SELECT r.owner, r.gateway, r.epoch, r.seq, r.crc, w.verdict, w.held_seq, (SELECT b.crc FROM "
		"billing.epoch_batch b WHERE b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = "
		"w.epoch AND "
		"b.seq = w.held_seq), left($2, " KEPT_CHARACTERS
		") FROM pg_temp.report_in r JOIN pg_temp.report_work w ON w.n = r.n "
		"WHERE r.n = $1 ON CONFLICT DO NOTHING",
		n, body);
}

/* Nothing is lost: it is taken when it comes again. Without a detail the epoch is one too many. */
static int answer_often(struct response *response, const char *detail)
{
	response->retry_after = OFTEN_SECONDS;
	if (detail)
		return response_problem(response, 503, "records", "%s", detail);
	return response_problem(response, 503, "epoch",
				"the gateway begins new epochs too often; accepted are 1000, and 100 "
				"more for each day of its life");
}

static int answer(struct response *response, const PGresult *verdicts, int row)
{
	const char *body = db_value(verdicts, row, "body");

	response->status = (unsigned)strtoul(db_value(verdicts, row, "status"), NULL, 10);
	metrics_count_report(response->status);
	if (response->status == 400)
		return response_problem(response, 400, "active_since", "%s",
					db_value(verdicts, row, "detail"));
	if (response->status == 503)
		return answer_often(response, db_value(verdicts, row, "detail"));
	if (response->status == 410) {
		_cleanup_json_ json_t *held = json_loads(body, 0, NULL);

		response_problem(response, 410, NULL,
				 "the gateway is deleted, or another attempt has replaced this one");
		return json_object_set(response->json, "held_seq", json_object_get(held, "held_seq")) < 0
			       ? -ENOMEM
			       : 0;
	}
	response->content_type = "application/json";
	response->text = strdup(body);
	return response->text ? 0 : -ENOMEM;
}

static int find(struct request *const *requests, size_t n, const char *name)
{
	int64_t wanted = strtoll(name, NULL, 10);

	for (size_t i = 0; i < n; i++) {
		const struct prepared *prepared = requests[i]->prepared;

		if (prepared->n == wanted)
			return (int)i;
	}
	return -1;
}

static int apply(struct db *db, struct request *const *requests, size_t n, PGresult **ret_verdicts)
{
	_cleanup_result_ PGresult *verdicts = NULL;
	bool is_new = db_is_new(db);
	int r = is_new ? open_tables(db) : 0;

	if (r == 0)
		r = renew_plans(db, is_new);
	if (r == 0)
		r = db_begin(db);
	for (size_t i = 0; i < N_REPORT_TABLES && r == 0; i++)
		r = copy_table(db, (enum report_table)i, requests, n);
	if (r == 0)
		r = DB_QUERY(db, &verdicts,
			     "SELECT n, status, body, detail, keep FROM billing.apply_reports()");
	for (int row = 0; r >= 0 && row < PQntuples(verdicts); row++) {
		const char *name = db_value(verdicts, row, "n");

		if (strcmp(db_value(verdicts, row, "keep"), "t") == 0)
			r = keep_refused(db, requests[find(requests, n, name)], name);
	}
	if (r >= 0)
		r = db_commit(db);
	if (r < 0) {
		db_rollback(db);
		return r;
	}
	*ret_verdicts = TAKE_PTR(verdicts);
	return 0;
}

/* A value that does not fit its type or its check: of the report itself, and the same each time. */
static bool is_refused_for_good(struct db *db, int error)
{
	const char *state = db_last_error(db)->sqlstate;

	return (error == -EINVAL && strncmp(state, "22", 2) == 0) ||
	       (error == -EDOM && strcmp(state, "23514") == 0);
}

/* An agent that heard of a status that its protocol does not name would send the same for ever. */
static int refuse(struct db *db, const struct request *request, struct response *response)
{
	const struct principal *agent = &request->principal;
	const json_t *epoch = json_object_get(request->body, "epoch");
	_cleanup_free_ char *content = strndup(request->raw_body, request->raw_body_length);
	_cleanup_result_ PGresult *row = NULL;
	char attempt[16], generation[24], seq[24], crc[16], why[256];
	const char *body;
	int r;

	if (!content)
		return -ENOMEM;
	snprintf(attempt, sizeof(attempt), "%d", agent->attempt);
	snprintf(generation, sizeof(generation), "%" PRId64, agent->generation);
	snprintf(seq, sizeof(seq), "%" JSON_INTEGER_FORMAT,
		 json_integer_value(json_object_get(request->body, "seq")));
	snprintf(crc, sizeof(crc), "%" PRIu32, crc32c(0, request->raw_body, request->raw_body_length));
	snprintf(why, sizeof(why), "%s", db_last_error(db)->message);
	r = DB_QUERY(
		db, &row,
		"SELECT billing.refuse_report($1, $2, $3, $4, $5, $6, $7, $8, $9, left($10, " KEPT_CHARACTERS
		")) AS body",
		agent->owner, agent->gateway, attempt, generation,
		json_string_value(json_object_get(epoch, "id")),
		json_string_value(json_object_get(epoch, "boot_id")), seq, crc, why, content);
	if (r < 0)
		return r;
	body = db_value(row, 0, "body");
	response->status = body ? 409 : 410;
	metrics_count_report(response->status);
	if (!body)
		return response_problem(response, 410, NULL,
					"the gateway is deleted, or another attempt has replaced this one");
	response->content_type = "application/json";
	response->text = strdup(body);
	return response->text ? 0 : -ENOMEM;
}

static int commit(struct db *db, struct request *const *requests, struct response *const *responses, size_t n)
{
	_cleanup_result_ PGresult *verdicts = NULL;
	int r = apply(db, requests, n, &verdicts);

	if (r < 0 && n == 1 && is_refused_for_good(db, r))
		return refuse(db, requests[0], responses[0]);
	/* A row that others have just made: it is there the next time. */
	if (n == 1 && (r == -EEXIST || r == -EDOM))
		return -EAGAIN;
	if (r < 0)
		return r;
	metrics_count_group(n);
	for (int row = 0; row < PQntuples(verdicts); row++) {
		struct response *response = responses[find(requests, n, db_value(verdicts, row, "n"))];

		/* It is committed: an answer that cannot be made is the server's fault, and the repeat gets
		 * it. */
		if (answer(response, verdicts, row) < 0)
			response_problem(response, 503, NULL, "the server is out of memory");
	}
	return 0;
}

static const struct collector reports = {
	.weight = weight,
	.free_prepared = free_prepared,
	.commit = commit,
};

int post_report(struct request *request, struct response *response)
{
	static atomic_int_fast64_t next = 1;
	const char *over = request_header(request, WT_HEADER_EPOCH_OVER);
	struct report_frame frame = {.over = over && strcmp(over, "true") == 0};
	_cleanup_samples_ struct sample_list list = {0};
	struct prepared *prepared;
	int r;

	if (request->raw_body_length == 0 || !check_crc(request, &frame.crc))
		return response_problem(response, 400, WT_HEADER_CRC,
					WT_HEADER_CRC " is not the CRC32C of the body, in decimal digits");
	if (read_kept_from(request, &frame.kept_from) < 0)
		return response_problem(response, 400, WT_HEADER_KEPT_FROM,
					WT_HEADER_KEPT_FROM
					" is \"%.32s\"; accepted is a sequence number from 1",
					request_header(request, WT_HEADER_KEPT_FROM));
	if (over && strcmp(over, "true") != 0 && strcmp(over, "false") != 0)
		return response_problem(response, 400, WT_HEADER_EPOCH_OVER,
					WT_HEADER_EPOCH_OVER " is \"%.32s\"; accepted are true and false",
					over);
	r = read_body(request, response, &list);
	if (r < 0)
		return r;
	prepared = calloc(1, sizeof(*prepared));
	if (!prepared)
		return -ENOMEM;
	prepared->n = frame.n = atomic_fetch_add(&next, 1);
	r = report_rows_write(request->body, &list, &request->principal, &frame, &prepared->rows);
	if (r < 0) {
		free(prepared);
		return r;
	}
	return request_collect(request, &reports, prepared);
}
