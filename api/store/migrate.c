// SPDX-License-Identifier: BSD-2-Clause
#include "store/migrate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct migration {
	int version;
	const char *name;
	const char *sql;
};

#include "migrations.h"

/* Any number that nothing else in the database uses. */
#define MIGRATION_LOCK "7493001"

int migrate_latest(void)
{
	return embedded_migrations[ARRAY_SIZE(embedded_migrations) - 1].version;
}

int migrate_current(struct db *db, int *ret_version)
{
	_cleanup_result_ PGresult *exists = NULL, *version = NULL;
	int r;

	r = DB_QUERY(db, &exists, "SELECT to_regclass('gateway.schema_migration') IS NOT NULL");
	if (r < 0)
		return r;
	if (PQgetvalue(exists, 0, 0)[0] != 't') {
		*ret_version = 0;
		return 0;
	}
	r = DB_QUERY(db, &version, "SELECT coalesce(max(version), 0) FROM gateway.schema_migration");
	if (r < 0)
		return r;
	*ret_version = atoi(PQgetvalue(version, 0, 0));
	return 0;
}

/* A migration's text holds many statements, which only the simple protocol takes. */
static int run_script(struct db *db, const char *sql)
{
	_cleanup_result_ PGresult *result = PQexec(db_connection(db), sql);

	if (PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK)
		return 0;
	return db_note_error(db, result);
}

static int record(struct db *db, const struct migration *migration)
{
	char version[16];
	int r;

	snprintf(version, sizeof(version), "%d", migration->version);
	r = DB_EXECUTE(db,
		       "CREATE TABLE IF NOT EXISTS gateway.schema_migration (version integer PRIMARY KEY, "
		       "name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())");
	if (r < 0)
		return r;
	r = DB_EXECUTE(db, "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN "
			   "GRANT SELECT ON gateway.schema_migration TO wiretoll_api; END IF; END $$");
	if (r < 0)
		return r;
	r = DB_EXECUTE(db, "INSERT INTO gateway.schema_migration (version, name) VALUES ($1, $2)", version,
		       migration->name);
	return r < 0 ? r : 0;
}

/* One migration, unless somebody else has applied it while we waited for the lock. Returns 1 when applied. */
static int apply(struct db *db, const struct migration *migration)
{
	int version, r;

	r = db_begin(db);
	if (r < 0)
		return r;
	r = DB_EXECUTE(db, "SELECT pg_advisory_xact_lock(" MIGRATION_LOCK ")");
	if (r >= 0)
		r = migrate_current(db, &version);
	if (r < 0 || version >= migration->version)
		goto out;
	/* A migration that has to wait behind a long transaction would block everybody behind itself. */
	r = DB_EXECUTE(
		db,
		"SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '0', true)");
	if (r >= 0)
		r = run_script(db, migration->sql);
	if (r >= 0)
		r = record(db, migration);
	if (r >= 0)
		r = db_commit(db);
	if (r >= 0)
		r = 1;
out:
	db_rollback(db);
	return r;
}

int migrate(struct db *db, const char **ret_failed)
{
	int applied = 0;

	for (size_t i = 0; i < ARRAY_SIZE(embedded_migrations); i++) {
		int r = apply(db, &embedded_migrations[i]);

		if (r < 0) {
			*ret_failed = embedded_migrations[i].name;
			return r;
		}
		applied += r;
	}
	return applied;
}
