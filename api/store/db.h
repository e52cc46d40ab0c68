/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One connection to PostgreSQL. Parameters and results are text; SQL is written with $1 … and every table
 * with its schema (search_path is pg_catalog). A worker owns its connection: not thread-safe.
 */
#ifndef WIRETOLL_STORE_DB_H
#define WIRETOLL_STORE_DB_H

#include "base/base.h"

#include <libpq-fe.h>

struct db;

/* What PostgreSQL said of the last failed statement. */
struct db_error {
	char sqlstate[6];
	char constraint[64];
	char message[256];
};

/* Connects with what is in the file (a libpq connection string, 0600). -ECONNREFUSED; -EPROTO when it is
 * not the session that was asked for, as behind a pooler; or -errno of the file.
 */
WT_MUST_CHECK int db_open(const char *connection_file, struct db **ret_db);
/* What an error of db_open() means, for a log. */
const char *db_open_reason(int error);
void db_close(struct db *db);

/* Whether it is usable; reconnects if not. -ECONNREFUSED. */
WT_MUST_CHECK int db_ensure(struct db *db);
/* Whether it was connected anew since db_made_ready(): what a session holds has to be made. */
bool db_is_new(const struct db *db);
void db_made_ready(struct db *db);
int db_socket(const struct db *db);
PGconn *db_connection(struct db *db);

/*
 * Runs one statement. Returns -EEXIST for a violated unique or exclusion constraint, -EDOM for another
 * constraint, -EINVAL for a value PostgreSQL cannot read, -EAGAIN for a deadlock or serialization failure,
 * -EBUSY for a lock that others held for longer than lock_timeout, -ETIMEDOUT for a statement that took too
 * long, -ENOTCONN when the connection is lost, -EIO otherwise; db_last_error() says more. The caller frees
 * the result with PQclear() or _cleanup_result_.
 */
WT_MUST_CHECK int db_query(struct db *db, PGresult **ret_result, const char *sql, int n_params,
			   const char *const *params);

/* db_query with the parameters as arguments: DB_QUERY(db, &result, "SELECT $1", text). */
#define DB_QUERY(db, ret_result, sql, ...)                                                                   \
	db_query(db, ret_result, sql, (int)ARRAY_SIZE(((const char *[]){NULL, ##__VA_ARGS__})) - 1,          \
		 ((const char *[]){NULL, ##__VA_ARGS__}) + 1)

/* The same where no rows are wanted: the number of rows changed, or an error as above. */
WT_MUST_CHECK int db_execute(struct db *db, const char *sql, int n_params, const char *const *params);
#define DB_EXECUTE(db, sql, ...)                                                                             \
	db_execute(db, sql, (int)ARRAY_SIZE(((const char *[]){NULL, ##__VA_ARGS__})) - 1,                    \
		   ((const char *[]){NULL, ##__VA_ARGS__}) + 1)

struct db_piece {
	const char *data;
	size_t length;
};

/* Runs a COPY … FROM STDIN with the pieces, one behind the other, as its data. Errors as of db_query(). */
WT_MUST_CHECK int db_copy(struct db *db, const char *sql, const struct db_piece *pieces, size_t n_pieces);

WT_MUST_CHECK int db_begin(struct db *db);
WT_MUST_CHECK int db_commit(struct db *db);
/* Harmless when no transaction is open. */
void db_rollback(struct db *db);

const struct db_error *db_last_error(const struct db *db);

/* Keeps the error of a result got from db_connection() directly, and returns what db_query() would. */
int db_note_error(struct db *db, const PGresult *result);

/* A field by column name; NULL for SQL NULL. The column must exist. */
const char *db_value(const PGresult *result, int row, const char *column);

void cleanup_result(PGresult **result);
#define _cleanup_result_ WT_CLEANUP(cleanup_result)

#endif
