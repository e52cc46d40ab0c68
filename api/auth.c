// SPDX-License-Identifier: BSD-2-Clause
#include "auth.h"

#include "base/text.h"
#include "resources/form.h"
#include "token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ACT_FOR "Wiretoll-Act-For"

static const char token_sql[] =
	"SELECT t.kind, t.owner, t.gateway, t.attempt, t.generation, u.id AS user_id, u.role "
	"FROM gateway.token t LEFT JOIN gateway.app_user u ON u.id = t.user_id "
	"WHERE t.hash = $1 AND t.kind IN ('session', 'agent') AND t.expires > now()";

/* An id compared as text, so that a name need not look like one. */
static const char act_for_sql[] =
	"SELECT id FROM gateway.app_user WHERE role = 'user' AND (name = $1 OR id::text = lower($1))";

const char *bearer_token(const struct request *request)
{
	const char *value = request_header(request, "Authorization");

	if (!value || strncasecmp(value, "Bearer ", 7) != 0)
		return NULL;
	value += 7 + strspn(value + 7, " ");
	return *value ? value : NULL;
}

static enum role role_of(const char *name)
{
	static const struct {
		const char *name;
		enum role role;
	} roles[] = {
		{"admin", ROLE_ADMIN},
		{"user", ROLE_USER},
		{"billing", ROLE_BILLING},
		{"service", ROLE_SERVICE},
	};

	for (size_t i = 0; name && i < ARRAY_SIZE(roles); i++) {
		if (strcmp(roles[i].name, name) == 0)
			return roles[i].role;
	}
	return ROLE_NONE;
}

static void copy_id(char target[static UUID_TEXT_SIZE], const char *id)
{
	snprintf(target, UUID_TEXT_SIZE, "%s", id ? id : "");
}

static void read_principal(const PGresult *row, struct principal *principal)
{
	const char *user = db_value(row, 0, "user_id");

	if (strcmp(db_value(row, 0, "kind"), "agent") == 0) {
		const char *generation = db_value(row, 0, "generation");

		principal->role = ROLE_GATEWAY;
		copy_id(principal->owner, db_value(row, 0, "owner"));
		copy_id(principal->gateway, db_value(row, 0, "gateway"));
		principal->attempt = atoi(db_value(row, 0, "attempt"));
		principal->generation = generation ? strtoll(generation, NULL, 10) : 0;
		return;
	}
	principal->role = role_of(db_value(row, 0, "role"));
	copy_id(principal->user, user);
	/* A service that names nobody sees what is its own: nothing. */
	if (principal->role == ROLE_USER || principal->role == ROLE_SERVICE)
		copy_id(principal->owner, user);
}

/* Whom a service acts for. Where nothing is about a user's own, it need not act for anyone. */
static int act_for(struct request *request, unsigned roles, struct response *response)
{
	const char *name = request_header(request, ACT_FOR);
	bool service = request->principal.role == ROLE_SERVICE;
	_cleanup_result_ PGresult *row = NULL;
	int r;

	if (name && !service)
		return refuse(response, 403, ACT_FOR,
			      ACT_FOR " is accepted from a token of role service only: leave it out");
	if (!name && service && roles & ROUTE_FOR_USER)
		return refuse(response, 422, ACT_FOR,
			      ACT_FOR " is required: a service has nothing of its own; accepted is the name "
				      "or id of a user of role user");
	if (!name)
		return 0;
	if (text_is_printable(name))
		r = DB_QUERY(request->db, &row, act_for_sql, name);
	else
		r = 0;
	if (r < 0)
		return r;
	if (!row || PQntuples(row) == 0)
		return refuse(response, 422, ACT_FOR,
			      ACT_FOR " is \"%.64s\"; accepted is the name or id of a user of role user",
			      name);
	copy_id(request->principal.owner, db_value(row, 0, "id"));
	return 0;
}

static int unauthorized(struct response *response, const char *detail)
{
	response_problem(response, 401, NULL, "%s", detail);
	return -EACCES;
}

int authenticate(struct request *request, unsigned roles, struct response *response)
{
	const char *token = bearer_token(request);
	_cleanup_result_ PGresult *row = NULL;
	char hash[TOKEN_HASH_SIZE];
	int r;

	memset(&request->principal, 0, sizeof(request->principal));
	if (!token)
		return unauthorized(response, "a bearer token is required: Authorization: Bearer TOKEN");
	token_hash(token, hash);
	r = DB_QUERY(request->db, &row, token_sql, hash);
	if (r < 0)
		return r;
	if (PQntuples(row) == 0)
		return unauthorized(response, "the token is unknown, revoked or expired");
	read_principal(row, &request->principal);
	if (!(request->principal.role & roles)) {
		response_problem(response, 403, NULL, "this token's role may not %s %s", request->method,
				 request->path);
		return -EACCES;
	}
	return act_for(request, roles, response);
}
