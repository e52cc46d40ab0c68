// SPDX-License-Identifier: BSD-2-Clause
#include "billing/who.h"

#include "resources/common.h"

#include <stdio.h>
#include <string.h>

/* Of a name, the living gateway before deleted ones; two alike of two owners are none. */
static const char gateway_sql[] =
	"SELECT owner, id, status = 'deleted' AS gone FROM gateway.gateway g "
	"WHERE ($1::uuid IS NULL OR owner = $1) AND (id = $2::uuid OR ($2::uuid IS NULL AND name = $3)) "
	"ORDER BY status = 'deleted', deleted DESC LIMIT 2";

int billing_find_gateway(struct request *request, const char *argument, struct response *response,
			 char ret_owner[static UUID_TEXT_SIZE], char ret_id[static UUID_TEXT_SIZE])
{
	_cleanup_result_ PGresult *rows = NULL;
	const char *owner = or_null(request->principal.owner);
	int n, r;

	r = DB_QUERY(request->db, &rows, gateway_sql, owner, is_uuid(argument) ? argument : NULL, argument);
	if (r < 0)
		return r;
	n = PQntuples(rows);
	if (n == 0 || (n == 2 && strcmp(db_value(rows, 0, "gone"), db_value(rows, 1, "gone")) == 0 &&
		       strcmp(db_value(rows, 0, "owner"), db_value(rows, 1, "owner")) != 0))
		return refuse(response, 404, NULL,
			      "there is no gateway \"%.64s\"; accepted is an id or a unique name", argument);
	snprintf(ret_owner, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "owner"));
	snprintf(ret_id, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "id"));
	return 0;
}

int billing_find_user(struct request *request, const char *argument, struct response *response,
		      char ret_user[static UUID_TEXT_SIZE])
{
	char user[UUID_TEXT_SIZE];
	int r = find_noun(request, response, USER, NULL, argument, user);

	if (r < 0)
		return r;
	/* Word for word what is said of one that does not exist: names cannot be tried out. */
	if (request->principal.owner[0] && strcmp(user, request->principal.owner) != 0)
		return refuse_unknown_noun(response, USER, argument);
	memcpy(ret_user, user, UUID_TEXT_SIZE);
	return 0;
}
