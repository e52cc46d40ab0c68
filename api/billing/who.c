// SPDX-License-Identifier: BSD-2-Clause
#include "billing/who.h"

#include "billing/fields.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Of a name, the living gateway; several of several owners are none. */
static const char gateway_sql[] =
	"SELECT owner, id FROM gateway.gateway g "
	"WHERE ($1::uuid IS NULL OR owner = $1) AND (id = $2::uuid OR ($2::uuid IS NULL AND name = $3)) "
	"ORDER BY status = 'deleted', deleted DESC LIMIT 2";

static const char user_sql[] = "SELECT id FROM gateway.app_user "
			       "WHERE ($1::uuid IS NULL OR id = $1) "
			       "AND (id = $2::uuid OR ($2::uuid IS NULL AND name = $3))";

static const char *nonempty(const char *text)
{
	return text[0] ? text : NULL;
}

int find_gateway(struct request *request, const char *argument, struct response *response,
		 char ret_owner[static UUID_TEXT_SIZE], char ret_id[static UUID_TEXT_SIZE])
{
	_cleanup_result_ PGresult *rows = NULL;
	const char *owner = nonempty(request->principal.owner);
	int n, r;

	r = DB_QUERY(request->db, &rows, gateway_sql, owner, is_uuid(argument) ? argument : NULL, argument);
	if (r < 0)
		return r;
	n = PQntuples(rows);
	if (n == 0 || (n == 2 && strcmp(db_value(rows, 0, "owner"), db_value(rows, 1, "owner")) != 0)) {
		response_problem(response, 404, NULL,
				 "there is no gateway \"%.64s\"; accepted is an id or a unique name",
				 argument);
		return -ENOENT;
	}
	snprintf(ret_owner, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "owner"));
	snprintf(ret_id, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "id"));
	return 0;
}

int find_user(struct request *request, const char *argument, struct response *response,
	      char ret_user[static UUID_TEXT_SIZE])
{
	_cleanup_result_ PGresult *rows = NULL;
	const char *owner = nonempty(request->principal.owner);
	int r;

	r = DB_QUERY(request->db, &rows, user_sql, owner, is_uuid(argument) ? argument : NULL, argument);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0) {
		response_problem(response, 404, NULL,
				 "there is no user \"%.64s\"; accepted is an id or a name", argument);
		return -ENOENT;
	}
	snprintf(ret_user, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "id"));
	return 0;
}
