// SPDX-License-Identifier: BSD-2-Clause
#include "store/db.h"

#include "base/file.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONNECTION_FILE 8192

struct db {
	PGconn *connection;
	struct db_error error;
	bool is_new;
	bool read_only; /* what was the primary is a standby now */
	bool indirect;  /* not the session that was asked for */
};

static void ignore_notice(void *context, const PGresult *result)
{
	(void)context;
	(void)result;
}

/*
 * What stands before the file's text is a default, what stands behind it is fixed: nothing may resolve a name
 * outside pg_catalog, and a hung statement or a forgotten transaction ends by itself. A server that has
 * vanished is noticed within half a minute also by who only listens.
 */
static PGconn *connect_with(const char *text)
{
	static const char *const keywords[] = {
		"connect_timeout",
		"keepalives_idle",
		"keepalives_interval",
		"keepalives_count",
		"tcp_user_timeout",
		"dbname",
		"application_name",
		"client_encoding",
		"options",
		NULL,
	};
	const char *const values[] = {
		"5",
		"10",
		"5",
		"3",
		"20000",
		text,
		"wiretoll",
		"UTF8",
		"-c search_path=pg_catalog -c TimeZone=UTC -c DateStyle=ISO -c bytea_output=hex -c "
		"statement_timeout=30s "
		"-c idle_in_transaction_session_timeout=60s",
		NULL,
	};
	PGconn *connection = PQconnectdbParams(keywords, values, 1);

	if (connection)
		PQsetNoticeReceiver(connection, ignore_notice, NULL);
	return connection;
}

/*
 * Whether the session is what was asked for: a pooler between may drop its settings, so that times would be
 * read in another zone, and hands the session of a LISTEN to others.
 */
static bool is_direct(PGconn *connection)
{
	_cleanup_result_ PGresult *row = PQexec(
		connection,
		"SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('TimeZone') = 'UTC' AND "
		"pg_catalog.current_setting('search_path') = 'pg_catalog' AND "
		"pg_catalog.current_setting('statement_timeout') = '30s'");

	return PQresultStatus(row) == PGRES_TUPLES_OK && PQntuples(row) == 1 &&
	       atoi(PQgetvalue(row, 0, 0)) == PQbackendPID(connection) && PQgetvalue(row, 0, 1)[0] == 't';
}

/* libpq's text without the trailing newline; it never holds a password. */
static void set_message(struct db *db, const char *text)
{
	snprintf(db->error.message, sizeof(db->error.message), "%.*s", (int)strcspn(text, "\n"), text);
}

int db_open(const char *connection_file, struct db **ret_db)
{
	char *text = NULL;
	size_t length = 0;
	struct db *db;
	int r;

	r = file_read(connection_file, MAX_CONNECTION_FILE, &text, &length);
	if (r < 0)
		return r;
	text[strcspn(text, "\r\n")] = '\0';
	db = calloc(1, sizeof(*db));
	if (db)
		db->connection = connect_with(text);
	sodium_memzero(text, length);
	free(text);
	if (!db || !db->connection) {
		free(db);
		return -ENOMEM;
	}
	if (PQstatus(db->connection) != CONNECTION_OK) {
		db_close(db);
		return -ECONNREFUSED;
	}
	if (!is_direct(db->connection)) {
		db_close(db);
		return -EPROTO;
	}
	db->is_new = true;
	*ret_db = db;
	return 0;
}

const char *db_open_reason(int error)
{
	if (error == -EPROTO)
		return "the session has not the settings that were asked for (TimeZone=UTC and others), or "
		       "is not "
		       "ours alone; it has to be connected to PostgreSQL directly, not through a pooler";
	return strerror(-error);
}

void db_close(struct db *db)
{
	if (!db)
		return;
	PQfinish(db->connection);
	free(db);
}

/* Whether the server has closed the connection while it lay idle; reading is cheaper than asking. */
static bool is_broken(struct db *db)
{
	struct pollfd poller = {.fd = PQsocket(db->connection), .events = POLLIN};

	/* A server that ends says so first: the end itself comes behind what there is to read. */
	while (PQstatus(db->connection) == CONNECTION_OK && poll(&poller, 1, 0) > 0) {
		if (PQconsumeInput(db->connection) == 0)
			return true;
	}
	return db->read_only || db->indirect || PQstatus(db->connection) != CONNECTION_OK;
}

int db_ensure(struct db *db)
{
	if (!is_broken(db))
		return 0;
	PQreset(db->connection);
	db->is_new = true;
	db->read_only = false;
	db->indirect = PQstatus(db->connection) == CONNECTION_OK && !is_direct(db->connection);
	if (PQstatus(db->connection) == CONNECTION_OK && !db->indirect)
		return 0;
	set_message(db, PQerrorMessage(db->connection));
	return -ECONNREFUSED;
}

bool db_is_new(const struct db *db)
{
	return db->is_new;
}

void db_made_ready(struct db *db)
{
	db->is_new = false;
}

int db_socket(const struct db *db)
{
	return PQsocket(db->connection);
}

PGconn *db_connection(struct db *db)
{
	return db->connection;
}

static int error_of_state(const char *state)
{
	if (strcmp(state, "23505") == 0 || strcmp(state, "23P01") == 0)
		return -EEXIST;
	if (strncmp(state, "23", 2) == 0)
		return -EDOM;
	if (strncmp(state, "22", 2) == 0)
		return -EINVAL;
	if (strncmp(state, "40", 2) == 0)
		return -EAGAIN;
	if (strcmp(state, "55P03") == 0)
		return -EBUSY;
	if (strcmp(state, "57014") == 0)
		return -ETIMEDOUT;
	if (strncmp(state, "08", 2) == 0 || strncmp(state, "57P", 3) == 0)
		return -ENOTCONN;
	return -EIO;
}

int db_note_error(struct db *db, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	memset(&db->error, 0, sizeof(db->error));
	snprintf(db->error.sqlstate, sizeof(db->error.sqlstate), "%s", state ? state : "");
	snprintf(db->error.constraint, sizeof(db->error.constraint), "%s", constraint ? constraint : "");
	set_message(db, message ? message : PQerrorMessage(db->connection));
	db->read_only = strcmp(db->error.sqlstate, "25006") == 0;
	if (db->read_only || PQstatus(db->connection) != CONNECTION_OK)
		return -ENOTCONN;
	return error_of_state(db->error.sqlstate);
}

int db_query(struct db *db, PGresult **ret_result, const char *sql, int n_params, const char *const *params)
{
	PGresult *result = PQexecParams(db->connection, sql, n_params, NULL, params, NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);
	int r;

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
		*ret_result = result;
		return 0;
	}
	r = db_note_error(db, result);
	PQclear(result);
	return r;
}

int db_execute(struct db *db, const char *sql, int n_params, const char *const *params)
{
	_cleanup_result_ PGresult *result = NULL;
	int r = db_query(db, &result, sql, n_params, params);

	return r < 0 ? r : atoi(PQcmdTuples(result));
}

/* Takes the result of a COPY that has ended, and the end of results behind it. */
static int finish_copy(struct db *db)
{
	PGresult *result;
	int r = 0;

	while ((result = PQgetResult(db->connection))) {
		if (r == 0 && PQresultStatus(result) != PGRES_COMMAND_OK)
			r = db_note_error(db, result);
		PQclear(result);
	}
	return r == 0 && PQstatus(db->connection) != CONNECTION_OK ? -ENOTCONN : r;
}

int db_copy(struct db *db, const char *sql, const struct db_piece *pieces, size_t n_pieces)
{
	_cleanup_result_ PGresult *begun = PQexec(db->connection, sql);
	bool sent = true;

	if (PQresultStatus(begun) != PGRES_COPY_IN)
		return db_note_error(db, begun);
	for (size_t i = 0; i < n_pieces && sent; i++)
		sent = pieces[i].length == 0 ||
		       PQputCopyData(db->connection, pieces[i].data, (int)pieces[i].length) == 1;
	if (PQputCopyEnd(db->connection, sent ? NULL : "not sent") != 1)
		sent = false;
	return sent ? finish_copy(db) : -ENOTCONN;
}

int db_begin(struct db *db)
{
	int r = DB_EXECUTE(db, "BEGIN");

	return r < 0 ? r : 0;
}

/*
 * A commit that waits for a synchronous standby is not cut off by a timeout: PostgreSQL would call it done,
 * and a standby that is promoted then would know nothing of what has been answered.
 */
int db_commit(struct db *db)
{
	_cleanup_result_ PGresult *result = NULL;
	int r = DB_EXECUTE(db, "SET LOCAL statement_timeout = 0");

	if (r >= 0)
		r = DB_QUERY(db, &result, "COMMIT");

	if (r < 0)
		return r;
	/* A transaction that had failed answers COMMIT with ROLLBACK and calls that a success. */
	return strcmp(PQcmdStatus(result), "COMMIT") == 0 ? 0 : -EIO;
}

void db_rollback(struct db *db)
{
	PGTransactionStatusType state = PQtransactionStatus(db->connection);

	if (state == PQTRANS_INTRANS || state == PQTRANS_INERROR)
		PQclear(PQexec(db->connection, "ROLLBACK"));
}

const struct db_error *db_last_error(const struct db *db)
{
	return &db->error;
}

const char *db_value(const PGresult *result, int row, const char *column)
{
	int number = PQfnumber(result, column);

	assert(number >= 0);
	return PQgetisnull(result, row, number) ? NULL : PQgetvalue(result, row, number);
}

void cleanup_result(PGresult **result)
{
	PQclear(*result);
}
