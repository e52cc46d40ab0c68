// SPDX-License-Identifier: BSD-2-Clause
/* Health, signing in and out, and who one is. */
#include "auth.h"
#include "resources/common.h"
#include "resources/resources.h"
#include "store/migrate.h"
#include "token.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>

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
			"INSERT INTO gateway.token (hash, kind, user_id, expires, address) "
			"VALUES ($1, 'session', $2, now() + interval '" SESSION_LIFETIME "', $3) "
			"RETURNING " SQL_TIME("expires") " AS expires",
			hash, user, or_null(request->client_address));
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
	struct form form = form_of(request, response);
	char hash[TOKEN_HASH_SIZE];
	int r = form_end(&form);

	if (r < 0)
		return r;
	token_hash(bearer_token(request), hash);
	r = DB_EXECUTE(request->db, "DELETE FROM gateway.token WHERE hash = $1", hash);
	return r < 0 ? r : answer_nothing(response);
}

/*
 * What can be used now: sessions, and one-time tokens that nobody has traded. The order is that of their
 * making, which stands where other pages have a name. $4: whose (NULL: all), $5: the asker's own token.
 */
static const char sessions_sql[] =
	"SELECT json_build_object('id', s.id, 'kind', CASE s.kind WHEN 'login' THEN 'one_time_token' ELSE "
	"'session' END, 'user', s.user_id, 'user_name', u.name, 'created', s.name, "
	"'expires', " SQL_TIME(
		"s.expires") ", 'address', host(s.address), 'current', s.hash = $5::bytea), "
			     "s.name, s.id FROM (SELECT t.*, " SQL_TIME(
				     "t.created") " AS name FROM gateway.token t) s "
						  "JOIN gateway.app_user u ON u.id = s.user_id "
						  "WHERE " SQL_AFTER(
							  "s") " AND s.kind IN ('session', 'login') "
							       "AND s.used IS NULL AND s.expires > now() AND "
							       "($4::uuid IS NULL OR s.user_id = "
							       "$4::uuid)" SQL_PAGE("s");

static int list_sessions(struct request *request, struct response *response)
{
	const char *wanted = request_query(request, "user");
	char hash[TOKEN_HASH_SIZE], user[UUID_TEXT_SIZE];
	const char *params[] = {user, hash};
	int r = 0;

	snprintf(user, sizeof(user), "%s", request->principal.user);
	if (request->principal.role == ROLE_ADMIN && wanted)
		r = find_noun(request, response, USER, "user", wanted, user);
	else if (request->principal.role == ROLE_ADMIN)
		params[0] = NULL;
	else if (wanted)
		return refuse(response, 403, "user", "user is accepted from an admin only: leave it out");
	if (r < 0)
		return r;
	token_hash(bearer_token(request), hash);
	return answer_page(request, response, sessions_sql, ARRAY_SIZE(params), params);
}

static int delete_session(struct request *request, struct response *response)
{
	const char *id = request->arguments[0];
	const char *whose = request->principal.role == ROLE_ADMIN ? NULL : request->principal.user;
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = db_begin(request->db);
	if (r == 0)
		r = DB_QUERY(
			request->db, &row,
			"DELETE FROM gateway.token WHERE id = $1::uuid AND kind IN ('session', 'login') AND "
			"used IS NULL AND ($2::uuid IS NULL OR user_id = $2::uuid) RETURNING user_id",
			is_uuid(id) ? id : NULL, whose);
	if (r < 0)
		return r;
	if (PQntuples(row) == 0)
		return refuse(response, 404, NULL,
			      "\"%.64s\" is not the id of a session or an unused one-time token%s "
			      "(GET /v1/sessions)",
			      id, whose ? " of yours" : "");
	r = audit(request, "session.end", id, PQgetvalue(row, 0, 0), NULL);
	if (r == 0)
		r = db_commit(request->db);
	return r < 0 ? r : answer_nothing(response);
}

const struct route session_routes[] = {
	{"GET", "/v1/health", ROLE_NONE, get_health, NULL},
	{"POST", "/v1/login", ROLE_NONE, post_login, NULL},
	{"GET", "/v1/me", ROLE_ANY_USER, get_me, NULL},
	{"POST", "/v1/logout", ROLE_ANY_USER, post_logout, NULL},
	{"GET", "/v1/sessions", ROLE_ANY_USER, list_sessions, QUERY_PAGE " user"},
	{"DELETE", "/v1/sessions/{session}", ROLE_ANY_USER, delete_session, NULL},
	{0},
};
