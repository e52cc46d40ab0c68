// SPDX-License-Identifier: BSD-2-Clause
/* A7: users, their role and their limit on gateways. */
#include "resources/common.h"
#include "resources/in_use.h"
#include "resources/resources.h"
#include "token.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define LOGIN_TOKEN_LIFETIME "24 hours"

#define USER_OBJECT                                                                                          \
	"json_build_object('id', u.id, 'external_id', u.external_id, 'name', u.name, 'email', u.email, "     \
	"'role', u.role, "                                                                                   \
	"'max_gateways', a.max_gateways, 'gateways', a.gateways, 'created', " SQL_TIME("u.created") ")"
#define USER_FROM " FROM gateway.app_user u JOIN gateway.account a ON a.owner = u.id "

static const char *const roles[] = {"admin", "user", "billing", "service", NULL};

struct user {
	const char *name, *email, *role, *max_gateways;
	const char *has_email; /* "true" when the body names it, be it null */
	struct form form;      /* keeps the number's text */
};

static int read_user(struct request *request, struct response *response, enum need need, struct user *user)
{
	struct form *form = &user->form;

	*form = form_of(request, response);
	user->name = form_name(form, "name", need);
	user->email = form_text(form, "email", OPTIONAL, 254);
	user->has_email = form_takes_null(form, "email") ? "true" : "false";
	user->role = form_choice(form, "role", OPTIONAL, roles);
	user->max_gateways = form_integer(form, "max_gateways", OPTIONAL, 0, 1000000);
	if (user->email && !strchr(user->email, '@'))
		form_refuse(form, "email", "email is \"%.200s\"; accepted is an address with an @",
			    user->email);
	return form_end(form);
}

static int list_users(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT " USER_OBJECT ", u.name, u.id" USER_FROM "WHERE " SQL_AFTER("u")
				   SQL_PAGE("u"),
			   0, NULL);
}

static int answer_user(struct request *request, struct response *response, unsigned status, const char *id)
{
	return ANSWER_OBJECT(request, response, status, "SELECT " USER_OBJECT USER_FROM "WHERE u.id = $1",
			     id);
}

static int get_user(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	int r = find_noun(request, response, USER, NULL, request->arguments[0], id);

	return r < 0 ? r : answer_user(request, response, 200, id);
}

static int insert_user(struct request *request, const struct user *user, const char *id,
		       const char *external_id)
{
	int r;

	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.app_user (id, external_id, name, email, role) "
		       "VALUES ($1, $2, $3, $4, coalesce($5, 'user'))",
		       id, external_id, user->name, user->email, user->role);
	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "INSERT INTO gateway.account (owner, max_gateways) VALUES ($1, "
			       "coalesce($2::integer, 5))",
			       id, user->max_gateways);
	return r < 0 ? r : 0;
}

/*
 * Without an admin nobody could make one but the host's root. In a transaction: two admins who demote each
 * other come one behind the other.
 */
static int check_another_admin(struct request *request, struct response *response, const char *id,
			       const char *key, const char *what)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_EXECUTE(request->db, "SELECT pg_advisory_xact_lock(hashtext('wiretoll admins'))");
	if (r >= 0)
		r = DB_QUERY(request->db, &row,
			     "SELECT count(*) FILTER (WHERE id = $1) = 1 AND count(*) = 1 FROM "
			     "gateway.app_user WHERE role = 'admin'",
			     id);
	if (r < 0 || PQgetvalue(row, 0, 0)[0] == 'f')
		return r;
	return refuse(
		response, 409, strcmp(what, "deleted") == 0 ? NULL : "role",
		"\"%.64s\" is the last admin and cannot be %s; accepted is that once there is another one",
		key, what);
}

static int check_role(struct request *request, struct response *response, const struct user *user,
		      const char *id)
{
	char what[48];

	if (!user->role || strcmp(user->role, "admin") == 0)
		return 0;
	snprintf(what, sizeof(what), "given role %s", user->role);
	return check_another_admin(request, response, id, request->arguments[0], what);
}

/* Lowering the limit is always allowed: it only stops new gateways. */
static int update_user(struct request *request, const struct user *user, const char *id)
{
	int r;

	r = DB_EXECUTE(request->db,
		       "UPDATE gateway.app_user SET name = coalesce($2, name), email = CASE WHEN "
		       "$5::boolean THEN $3 ELSE email END, role = coalesce($4, role) WHERE id = $1",
		       id, user->name, user->email, user->role, user->has_email);
	if (r >= 0)
		r = DB_EXECUTE(
			request->db,
			"UPDATE gateway.account SET max_gateways = coalesce($2::integer, max_gateways) "
			"WHERE owner = $1",
			id, user->max_gateways);
	return r < 0 ? r : 0;
}

static int finish(struct request *request, struct response *response, unsigned status, const char *action,
		  const char *id)
{
	int r = audit(request, action, request->path, id, request->body);

	if (r == 0)
		r = answer_user(request, response, status, id);
	return r < 0 ? r : db_commit(request->db);
}

static int create_user(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	struct user user;
	int r;

	uuid_generate(id);
	r = read_user(request, response, REQUIRED, &user);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = insert_user(request, &user, id, NULL);
	return r < 0 ? r : finish(request, response, 201, "create", id);
}

static int change_user(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	struct user user;
	int r;

	r = find_noun(request, response, USER, NULL, request->arguments[0], id);
	if (r == 0)
		r = read_user(request, response, OPTIONAL, &user);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = check_role(request, response, &user, id);
	if (r == 0)
		r = update_user(request, &user, id);
	return r < 0 ? r : finish(request, response, 200, "change", id);
}

/* A9: the cloud's own id names the user; the same request twice changes nothing. */
static int put_user(struct request *request, struct response *response)
{
	const char *external = external_id(request, response);
	_cleanup_result_ PGresult *rows = NULL;
	char id[UUID_TEXT_SIZE];
	struct user user;
	int r;

	if (!external)
		return -EBADMSG;
	uuid_generate(id);
	r = read_user(request, response, REQUIRED, &user);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_QUERY(request->db, &rows, "SELECT id FROM gateway.app_user WHERE external_id = $1",
			     external);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 1)
		memcpy(id, PQgetvalue(rows, 0, 0), sizeof(id));
	if (PQntuples(rows) == 1) {
		r = check_role(request, response, &user, id);
		if (r == 0)
			r = update_user(request, &user, id);
	} else {
		r = insert_user(request, &user, id, external);
	}
	return r < 0 ? r : finish(request, response, PQntuples(rows) == 1 ? 200 : 201, "put", id);
}

static int delete_rows(struct request *request, const char *id)
{
	int r = DB_EXECUTE(request->db, "DELETE FROM gateway.account WHERE owner = $1", id);

	if (r >= 0)
		r = DB_EXECUTE(request->db, "DELETE FROM gateway.app_user WHERE id = $1", id);
	return r < 0 ? r : 0;
}

static int delete_user(struct request *request, struct response *response)
{
	const char *key = request->arguments[0];
	char id[UUID_TEXT_SIZE];
	int r;

	r = find_noun(request, response, USER, NULL, key, id);
	if (r < 0)
		return r;
	if (strcmp(id, request->principal.user) == 0)
		return refuse(response, 409, NULL, "\"%.64s\" is who asks: another admin has to delete it",
			      key);
	r = check_unused(request, response, USER, id, key);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = check_another_admin(request, response, id, key, "deleted");
	if (r == 0)
		r = delete_rows(request, id);
	if (r == -EDOM)
		return refuse_deletion(request, response, USER, id, key);
	if (r >= 0)
		r = audit(request, "delete", request->path, id, NULL);
	if (r == 0)
		r = db_commit(request->db);
	return r < 0 ? r : answer_nothing(response);
}

static int insert_login_token(struct request *request, struct response *response, const char *id,
			      const char *token)
{
	_cleanup_result_ PGresult *row = NULL;
	char hash[TOKEN_HASH_SIZE];
	int r;

	token_hash(token, hash);
	r = DB_QUERY(request->db, &row,
		     "INSERT INTO gateway.token (hash, kind, user_id, expires) "
		     "VALUES ($1, 'login', $2, now() + interval '" LOGIN_TOKEN_LIFETIME "') "
		     "RETURNING id, " SQL_TIME("expires") " AS expires",
		     hash, id);
	if (r < 0)
		return r;
	response->json = json_pack("{s:s, s:s, s:s}", "one_time_token", token, "id", db_value(row, 0, "id"),
				   "expires", db_value(row, 0, "expires"));
	response->status = 201;
	response->wipe = true;
	return response->json ? 0 : -ENOMEM;
}

static int create_login_token(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE], token[TOKEN_TEXT_SIZE];
	struct form form = form_of(request, response);
	int r;

	r = form_end(&form);
	if (r == 0)
		r = find_noun(request, response, USER, NULL, request->arguments[0], id);
	if (r == 0)
		r = db_begin(request->db);
	if (r < 0)
		return r;
	token_generate(token);
	r = insert_login_token(request, response, id, token);
	sodium_memzero(token, sizeof(token));
	if (r == 0)
		r = audit(request, "login-token", request->path, id, NULL);
	return r < 0 ? r : db_commit(request->db);
}

const struct route user_routes[] = {
	{"GET", "/v1/users", ROLE_ADMIN, list_users, QUERY_PAGE},
	{"POST", "/v1/users", ROLE_ADMIN, create_user, NULL},
	{"GET", "/v1/users/{user}", ROLE_ADMIN, get_user, NULL},
	{"PATCH", "/v1/users/{user}", ROLE_ADMIN, change_user, NULL},
	{"PUT", "/v1/users/{user}", ROLE_ADMIN, put_user, NULL},
	{"DELETE", "/v1/users/{user}", ROLE_ADMIN, delete_user, NULL},
	{"POST", "/v1/users/{user}/login-token", ROLE_ADMIN, create_login_token, NULL},
	{0},
};
