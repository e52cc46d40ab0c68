// SPDX-License-Identifier: BSD-2-Clause
#include "init.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"
#include "certificate.h"
#include "seal.h"
#include "store/db.h"
#include "token.h"

#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int make_secrets(const char *folder, char ret_fingerprint[static FINGERPRINT_SIZE])
{
	char path[PATH_MAX];
	int r;

	r = file_make_folder(folder, 0700);
	if (r == 0)
		r = certificate_authority(folder, ret_fingerprint);
	if (r == 0)
		r = certificate_renew(folder);
	snprintf(path, sizeof(path), "%s/" SEALING_KEY_FILE, folder);
	if (r == 0)
		r = sealing_key_create(path);
	if (r < 0)
		log_error("could not make the certificate and keys in %s: %s", folder, strerror(-r));
	return r;
}

/* 1 when the user has been made now. */
static int ensure_admin(struct db *db)
{
	int made, r;

	made = DB_EXECUTE(
		db, "INSERT INTO gateway.app_user (name, role) SELECT 'admin', 'admin' WHERE NOT EXISTS "
		    "(SELECT FROM gateway.app_user WHERE role = 'admin') ON CONFLICT (name) DO NOTHING");
	if (made <= 0)
		return made;
	r = DB_EXECUTE(db, "INSERT INTO gateway.account (owner) "
			   "SELECT id FROM gateway.app_user WHERE name = 'admin'");
	return r < 0 ? r : 1;
}

/*
 * Whom a new token is for: the user `admin`, if it is one, else the oldest admin. When there is none any
 * more, `admin` is made one again: who may run this owns the installation.
 */
static int find_admin(struct db *db, char ret_id[static UUID_TEXT_SIZE])
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_EXECUTE(db, "UPDATE gateway.app_user SET role = 'admin' WHERE name = 'admin' AND NOT EXISTS "
			   "(SELECT FROM gateway.app_user WHERE role = 'admin')");
	if (r > 0)
		log_warning("there was no admin left: the user admin is one again");
	if (r >= 0)
		r = DB_QUERY(
			db, &row,
			"SELECT id, name FROM gateway.app_user WHERE role = 'admin' ORDER BY name = 'admin' "
			"DESC, created, id LIMIT 1");
	if (r < 0)
		return r;
	if (PQntuples(row) == 0)
		return -ENOENT;
	snprintf(ret_id, UUID_TEXT_SIZE, "%s", db_value(row, 0, "id"));
	log_info("the token is for the admin %s", db_value(row, 0, "name"));
	return 0;
}

static int insert_token(struct db *db, const char *user, const char *token)
{
	char hash[TOKEN_HASH_SIZE];
	int r;

	token_hash(token, hash);
	r = DB_EXECUTE(
		db,
		"INSERT INTO gateway.token (hash, kind, user_id, expires) VALUES ($1, 'login', $2, now() + "
		"interval '24 hours')",
		hash, user);
	if (r >= 0)
		r = DB_EXECUTE(db,
			       "INSERT INTO gateway.audit (action, object, owner) VALUES ('login-token', "
			       "'wiretoll-api init', $1)",
			       user);
	return r < 0 ? r : 0;
}

static int make_admin(struct db *db, bool new_token, char token[static TOKEN_TEXT_SIZE])
{
	char user[UUID_TEXT_SIZE];
	int made, r;

	r = db_begin(db);
	if (r < 0)
		return r;
	made = ensure_admin(db);
	if (made < 0)
		return made;
	if (made == 0 && !new_token)
		return 0;
	token_generate(token);
	r = find_admin(db, user);
	if (r == 0)
		r = insert_token(db, user, token);
	return r < 0 ? r : db_commit(db);
}

static int prepare_database(const char *database_file, bool new_token, char token[static TOKEN_TEXT_SIZE])
{
	struct db *db;
	int r;

	r = db_open(database_file, &db);
	if (r < 0) {
		log_error("could not connect to the database named in %s: %s", database_file,
			  db_open_reason(r));
		return r;
	}
	r = make_admin(db, new_token, token);
	if (r < 0)
		log_error("could not make the user admin (has `wiretoll-api migrate` been run?): %s",
			  db_last_error(db)->message);
	db_close(db);
	return r;
}

int init_run(const char *state_folder, const char *database_file, bool new_admin_token)
{
	char fingerprint[FINGERPRINT_SIZE], token[TOKEN_TEXT_SIZE] = "";
	int r;

	r = make_secrets(state_folder, fingerprint);
	if (r == 0 && database_file)
		r = prepare_database(database_file, new_admin_token, token);
	if (r == 0) {
		/* Both are free of characters that JSON would have to escape. */
		printf(token[0] ? "{\"ca_fingerprint\": \"%s\", \"admin_token\": \"%s\"}\n"
				: "{\"ca_fingerprint\": \"%s\", \"admin_token\": null}\n",
		       fingerprint, token);
		r = fflush(stdout) == 0 ? 0 : -errno;
	}
	sodium_memzero(token, sizeof(token));
	return r;
}
