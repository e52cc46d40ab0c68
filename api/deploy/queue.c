// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/queue.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONNECTION_STRING 4096
#define TEXT_OF_VALUE(x)      #x
#define TEXT_OF(x)            TEXT_OF_VALUE(x)
#define LEASE                 TEXT_OF(QUEUE_LEASE_SECONDS) " seconds"

struct queue {
	char *database_file;
	char *worker;
	PGconn *connection;
	char error[256];
};

static void cleanup_result(PGresult **result)
{
	PQclear(*result);
}
#define _cleanup_result_ WT_CLEANUP(cleanup_result)

int queue_new(const char *database_file, const char *worker, struct queue **ret_queue)
{
	struct queue *queue = calloc(1, sizeof(*queue));

	if (queue) {
		queue->database_file = strdup(database_file);
		queue->worker = strdup(worker);
	}
	if (!queue || !queue->database_file || !queue->worker) {
		queue_free(queue);
		return -ENOMEM;
	}
	*ret_queue = queue;
	return 0;
}

static void disconnect(struct queue *queue)
{
	PQfinish(TAKE_PTR(queue->connection));
}

void queue_free(struct queue *queue)
{
	if (!queue)
		return;
	disconnect(queue);
	free(queue->database_file);
	free(queue->worker);
	free(queue);
}

const char *queue_error(const struct queue *queue)
{
	return queue->error;
}

/* One line of the server's words. */
static void keep_error(struct queue *queue, const char *message)
{
	snprintf(queue->error, sizeof(queue->error), "%.*s", (int)strcspn(message, "\n"), message);
}

static int wait_readable(PGconn *connection, int64_t end_ns)
{
	struct pollfd wait = {.fd = PQsocket(connection), .events = POLLIN};
	int64_t left = (end_ns - clock_boot_ns()) / 1000000;

	if (left <= 0)
		return -ETIMEDOUT;
	return poll(&wait, 1, (int)left) < 0 && errno != EINTR ? -errno : 0;
}

static int wait_result(PGconn *connection, int64_t end_ns)
{
	while (PQisBusy(connection)) {
		int r = wait_readable(connection, end_ns);

		if (r < 0)
			return r;
		if (!PQconsumeInput(connection))
			return -ENOTCONN;
	}
	return 0;
}

static int collect(PGconn *connection, PGresult **ret_result)
{
	int64_t end = clock_boot_ns() + QUEUE_TIMEOUT_MS * 1000000LL;
	_cleanup_result_ PGresult *last = NULL;

	for (;;) {
		PGresult *next;
		int r = wait_result(connection, end);

		if (r < 0)
			return r;
		next = PQgetResult(connection);
		if (!next)
			break;
		PQclear(last);
		last = next;
	}
	*ret_result = TAKE_PTR(last);
	return 0;
}

/* After -EIO the statement was refused; after -ENOTCONN nobody knows whether it was carried out. */
static int run(struct queue *queue, const char *sql, int n, const char *const *values, PGresult **ret_result)
{
	_cleanup_result_ PGresult *result = NULL;
	ExecStatusType status;

	if (!queue->connection)
		return -ENOTCONN;
	if (!PQsendQueryParams(queue->connection, sql, n, NULL, values, NULL, NULL, 0) ||
	    collect(queue->connection, &result) < 0 || !result) {
		keep_error(queue, PQerrorMessage(queue->connection));
		disconnect(queue);
		return -ENOTCONN;
	}
	status = PQresultStatus(result);
	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
		keep_error(queue, PQresultErrorMessage(result));
		if (PQstatus(queue->connection) == CONNECTION_OK)
			return -EIO;
		disconnect(queue);
		return -ENOTCONN;
	}
	*ret_result = TAKE_PTR(result);
	return 0;
}

/* As the API asks it: a pooler drops settings, and hands the session of a LISTEN to others. */
static bool is_direct(PGconn *connection)
{
	_cleanup_result_ PGresult *row =
		PQexec(connection,
		       "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('TimeZone') = 'UTC'");

	return PQresultStatus(row) == PGRES_TUPLES_OK &&
	       atoi(PQgetvalue(row, 0, 0)) == PQbackendPID(connection) && PQgetvalue(row, 0, 1)[0] == 't';
}

static int open_connection(struct queue *queue)
{
	_cleanup_free_ char *text = NULL;
	bool connected;
	size_t length;
	int r = file_read(queue->database_file, MAX_CONNECTION_STRING, &text, &length);

	if (r < 0) {
		snprintf(queue->error, sizeof(queue->error), "%s: %s", queue->database_file, strerror(-r));
		return -ENOTCONN;
	}
	text[strcspn(text, "\n")] = '\0';

	const char *const keywords[] = {"dbname", "connect_timeout", "application_name", "options", NULL};
	const char *const values[] = {text, "3", "wiretoll-deployd", "-c TimeZone=UTC", NULL};

	queue->connection = PQconnectdbParams(keywords, values, 1);
	sodium_memzero(text, length);
	connected = PQstatus(queue->connection) == CONNECTION_OK;
	if (!connected)
		keep_error(queue, PQerrorMessage(queue->connection));
	else if (is_direct(queue->connection))
		return 0;
	else
		keep_error(queue, "the session's TimeZone is not UTC, or it is not ours alone: it has to be "
				  "connected to PostgreSQL directly, not through a pooler");
	disconnect(queue);
	return connected ? -EPROTO : -ENOTCONN;
}

int queue_connect(struct queue *queue)
{
	_cleanup_result_ PGresult *result = NULL;
	int r;

	if (queue->connection)
		return 0;
	r = open_connection(queue);
	if (r == 0)
		r = run(queue, "LISTEN wiretoll_job", 0, NULL, &result);
	return r == -EIO ? -ENOTCONN : r;
}

int queue_fd(const struct queue *queue)
{
	return queue->connection ? PQsocket(queue->connection) : -1;
}

bool queue_has_news(struct queue *queue)
{
	bool news = false;
	PGnotify *notice;

	if (!queue->connection)
		return false;
	if (!PQconsumeInput(queue->connection)) {
		keep_error(queue, PQerrorMessage(queue->connection));
		disconnect(queue);
		return true;
	}
	while ((notice = PQnotifies(queue->connection))) {
		PQfreemem(notice);
		news = true;
	}
	return news;
}

int queue_register(struct queue *queue, const char *name, const char *driver, char id[static GATEWAY_ID_SIZE])
{
	_cleanup_result_ PGresult *result = NULL;
	const char *values[] = {name, driver};
	int r = run(queue, "SELECT gateway.register_hypervisor($1, $2)", 2, values, &result);

	if (r < 0)
		return r;
	if (PQntuples(result) != 1 || PQgetisnull(result, 0, 0))
		return -ENOENT;
	snprintf(id, GATEWAY_ID_SIZE, "%s", PQgetvalue(result, 0, 0));
	return 0;
}

void queue_job_clear(struct queue_job *job)
{
	free(TAKE_PTR(job->spec));
}

/* Columns gateway, attempt, goal, spec. */
static int read_job(const PGresult *result, int row, struct queue_job *ret_job)
{
	struct queue_job job = {.attempt = (unsigned)strtoul(PQgetvalue(result, row, 1), NULL, 10)};

	snprintf(job.gateway, sizeof(job.gateway), "%s", PQgetvalue(result, row, 0));
	if (!deploy_gateway_id_valid(job.gateway) || job.attempt == 0)
		return -EPROTO;
	job.absent = strcmp(PQgetvalue(result, row, 2), "absent") == 0;
	job.spec = strdup(PQgetvalue(result, row, 3));
	if (!job.spec)
		return -ENOMEM;
	*ret_job = job;
	return 0;
}

int queue_claim(struct queue *queue, const char *hypervisor, struct queue_job *ret_job)
{
	static const char sql[] = "SELECT gateway, attempt, goal, spec FROM gateway.claim_job($1, $2, $3)";
	_cleanup_result_ PGresult *result = NULL;
	const char *values[] = {queue->worker, hypervisor, LEASE};
	int r = run(queue, sql, 3, values, &result);

	if (r < 0)
		return r;
	return PQntuples(result) == 0 ? -ENOENT : read_job(result, 0, ret_job);
}

/* Calls FUNCTION(worker, gateway, attempt, …) with up to three more values. */
static int call(struct queue *queue, const char *sql, const struct queue_job *job, int n_more,
		const char *const *more, PGresult **ret_result)
{
	const char *values[6] = {queue->worker, job->gateway};
	char attempt[16];

	snprintf(attempt, sizeof(attempt), "%u", job->attempt);
	values[2] = attempt;
	for (int i = 0; i < n_more; i++)
		values[3 + i] = more[i];
	return run(queue, sql, 3 + n_more, values, ret_result);
}

static int call_for_boolean(struct queue *queue, const char *sql, const struct queue_job *job, int n_more,
			    const char *const *more)
{
	_cleanup_result_ PGresult *result = NULL;
	int r = call(queue, sql, job, n_more, more, &result);

	if (r < 0)
		return r;
	return PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "t") == 0 ? 0 : -ESTALE;
}

int queue_renew(struct queue *queue, const struct queue_job *job, bool *ret_absent)
{
	_cleanup_result_ PGresult *result = NULL;
	const char *more[] = {LEASE};
	int r = call(queue, "SELECT gateway.renew_job($1, $2, $3, $4)", job, 1, more, &result);

	if (r < 0)
		return r;
	if (PQntuples(result) != 1 || PQgetisnull(result, 0, 0))
		return -ESTALE;
	*ret_absent = strcmp(PQgetvalue(result, 0, 0), "absent") == 0;
	return 0;
}

int queue_log(struct queue *queue, const struct queue_job *job, const char *step, const char *line)
{
	const char *more[] = {step, line};

	return call_for_boolean(queue, "SELECT gateway.log_job($1, $2, $3, $4, $5)", job, 2, more);
}

int queue_set_token(struct queue *queue, const struct queue_job *job, const unsigned char *hash,
		    size_t hash_size, int64_t lifetime_ns)
{
	char hex[2 + 2 * 32 + 1] = "\\x", expires[CLOCK_TEXT_SIZE];
	const char *more[] = {hex, expires};

	if (hash_size > 32)
		return -EINVAL;
	sodium_bin2hex(hex + 2, sizeof(hex) - 2, hash, hash_size);
	clock_format(clock_utc_ns() + lifetime_ns, expires);
	return call_for_boolean(queue, "SELECT gateway.set_enroll_token($1, $2, $3, $4, $5)", job, 2, more);
}

int queue_finish(struct queue *queue, const struct queue_job *job, const char *error, bool transient)
{
	const char *more[] = {job->absent ? "absent" : "active", error, transient ? "true" : "false"};

	return call_for_boolean(queue, "SELECT gateway.finish_job($1, $2, $3, $4, $5, $6)", job, 3, more);
}

int queue_note_routes(struct queue *queue, const struct queue_job *job, const json_t *refused)
{
	_cleanup_result_ PGresult *result = NULL;
	_cleanup_free_ char *list = refused ? json_dumps(refused, JSON_COMPACT) : strdup("[]");
	const char *values[] = {job->gateway, NULL, list};
	char attempt[16];

	if (!list)
		return -ENOMEM;
	snprintf(attempt, sizeof(attempt), "%u", job->attempt);
	values[1] = attempt;
	return run(queue, "SELECT gateway.note_routes($1, $2, $3)", 3, values, &result);
}

int queue_assigned(struct queue *queue, const char *hypervisor, struct queue_assigned **ret_list,
		   size_t *ret_n)
{
	static const char sql[] = "SELECT gateway, attempt, goal, spec, status FROM gateway.assigned($1)";
	_cleanup_result_ PGresult *result = NULL;
	const char *values[] = {hypervisor};
	struct queue_assigned *list;
	int r = run(queue, sql, 1, values, &result);
	size_t n = 0;

	if (r < 0)
		return r;
	list = calloc((size_t)PQntuples(result) + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (int row = 0; row < PQntuples(result) && r == 0; row++) {
		const char *status = PQgetvalue(result, row, 4);

		list[n].alive = strcmp(status, "deploying") == 0 || strcmp(status, "active") == 0;
		r = read_job(result, row, &list[n].job);
		if (r == 0)
			n++;
	}
	if (r < 0) {
		while (n-- > 0)
			queue_job_clear(&list[n].job);
		free(list);
		return r;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}
