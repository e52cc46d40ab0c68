// SPDX-License-Identifier: BSD-2-Clause
/* Health, signing in and out, and who one is. */
#include "auth.h"
#include "resources/common.h"
#include "resources/resources.h"
#include "store/migrate.h"
#include "token.h"

#include <errno.h>
#include <sodium.h>

#define SESSION_LIFETIME "30 days"

static int get_health(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row, "SELECT 1");
	if (r < 0)
		return r;
	response->json = json_pack("{s:s, s:i}", "status", "ok", "schema", migrate_latest());
	response->status = 200;
	return 0;
}

/* Uses the one-time token up; no row when it is not one that can be used. */
static int take_login_token(struct request *request, const char *one_time_token, PGresult **ret_row)
{
	char hash[TOKEN_HASH_SIZE];

	token_hash(one_time_token, hash);
	return DB_QUERY(request->db, ret_row,
			"UPDATE gateway.token t SET used = now() FROM gateway.app_user u "
			"WHERE t.hash = $1 AND t.kind = 'login' AND t.used IS NULL AND t.expires > now() AND "
			"u.id = t.user_id "
			"RETURNING u.id, u.name, u.role",
			hash);
}

static int open_session(struct request *request, const char *user, const char *token, PGresult **ret_row)
{
	char hash[TOKEN_HASH_SIZE];

	token_hash(token, hash);
	return DB_QUERY(request->db, ret_row,
			"INSERT INTO gateway.token (hash, kind, user_id, expires) "
			"VALUES ($1, 'session', $2, now() + interval '" SESSION_LIFETIME "') "
			"RETURNING " SQL_TIME("expires") " AS expires",
			hash, user);
}

static int answer_session(struct response *response, const PGresult *user, const PGresult *session,
			  const char *token)
{
	response->json =
		json_pack("{s:s, s:s, s:s, s:s}", "token", token, "role", db_value(user, 0, "role"), "user",
			  db_value(user, 0, "id"), "expires", db_value(session, 0, "expires"));
	response->status = 200;
	response->wipe = true;
	return response->json ? 0 : -ENOMEM;
}

static int post_login(struct request *request, struct response *response)
{
	struct form form = form_of(request, response);
	const char *one_time_token = form_secret(&form, "one_time_token", REQUIRED, 200);
	_cleanup_result_ PGresult *user = NULL, *session = NULL;
	char token[TOKEN_TEXT_SIZE];
	int r;

	r = form_end(&form);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = take_login_token(request, one_time_token, &user);
	if (r < 0)
		return r;
	if (PQntuples(user) == 0)
		return refuse(response, 401, "one_time_token",
			      "one_time_token is unknown, expired or used already");
	snprintf(request->principal.user, UUID_TEXT_SIZE, "%s", db_value(user, 0, "id"));
	token_generate(token);
	r = open_session(request, db_value(user, 0, "id"), token, &session);
	if (r == 0)
		r = audit(request, "login", db_value(user, 0, "name"), NULL, NULL);
	if (r == 0)
		r = db_commit(request->db);
	if (r == 0)
		r = answer_session(response, user, session, token);
	sodium_memzero(token, sizeof(token));
	return r;
}

static int get_me(struct request *request, struct response *response)
{
	return ANSWER_OBJECT(request, response, 200,
			     "SELECT json_build_object('user', id, 'name', name, 'role', role) "
			     "FROM gateway.app_user WHERE id = $1",
			     request->principal.user);
}

static int post_logout(struct request *request, struct response *response)
{
	char hash[TOKEN_HASH_SIZE];
	int r;

	token_hash(bearer_token(request), hash);
	r = DB_EXECUTE(request->db, "DELETE FROM gateway.token WHERE hash = $1", hash);
	return r < 0 ? r : answer_nothing(response);
}

const struct route session_routes[] = {
	{"GET", "/v1/health", ROLE_NONE, get_health, NULL},
	{"POST", "/v1/login", ROLE_NONE, post_login, NULL},
	{"GET", "/v1/me", ROLE_ANY_USER, get_me, NULL},
	{"POST", "/v1/logout", ROLE_ANY_USER, post_logout, NULL},
	{0},
};
