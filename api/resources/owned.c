// SPDX-License-Identifier: BSD-2-Clause
#include "resources/owned.h"

#include "resources/common.h"

#include <stdio.h>
#include <string.h>

static int find_owned(struct request *request, struct response *response, const char *sql, const char *word,
		      const char *field, const char *key, struct owned *ret)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows, sql, key, is_uuid(key) ? key : NULL,
		     or_null(request->principal.owner));
	if (r < 0)
		return r;
	if (PQntuples(rows) > 1)
		return refuse(response, 409, field, "several users have a %s named \"%.64s\": use its id",
			      word, key);
	if (PQntuples(rows) == 1) {
		snprintf(ret->owner, sizeof(ret->owner), "%s", db_value(rows, 0, "owner"));
		snprintf(ret->id, sizeof(ret->id), "%s", db_value(rows, 0, "id"));
		return 0;
	}
	if (!field)
		return refuse(response, 404, NULL, "\"%.64s\" is not the id or name of a %s of yours", key,
			      word);
	return refuse(response, 422, field, "%s is \"%.64s\"; accepted is the id or name of a %s of yours",
		      field, key, word);
}

int find_vpc(struct request *request, struct response *response, const char *field, const char *key,
	     struct owned *ret_vpc)
{
	return find_owned(request, response,
			  "SELECT v.owner, v.id FROM gateway.vpc v WHERE (v.id = $2::uuid OR v.name = $1 OR "
			  "v.external_id = $1) "
			  "AND v.deleted IS NULL AND ($3::uuid IS NULL OR v.owner = $3::uuid) LIMIT 2",
			  "VPC", field, key, ret_vpc);
}

int find_gateway(struct request *request, struct response *response, struct owned *ret_gateway)
{
	return find_owned(request, response,
			  "SELECT g.owner, g.id FROM gateway.gateway g "
			  "WHERE (g.id = $2::uuid OR (g.name = $1 AND g.status <> 'deleted')) "
			  "AND ($3::uuid IS NULL OR g.owner = $3::uuid) LIMIT 2",
			  "gateway", NULL, request->arguments[0], ret_gateway);
}

int lock_gateway(struct request *request, struct response *response, struct owned *ret_gateway)
{
	_cleanup_result_ PGresult *row = NULL;
	const char *status;
	int r;

	r = find_gateway(request, response, ret_gateway);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_QUERY(request->db, &row,
			     "SELECT status FROM gateway.gateway WHERE owner = $1 AND id = $2 FOR UPDATE",
			     ret_gateway->owner, ret_gateway->id);
	if (r < 0)
		return r;
	status = PQntuples(row) == 1 ? db_value(row, 0, "status") : "deleted";
	if (strcmp(status, "deleted") == 0 || strcmp(status, "deleting") == 0)
		return refuse(response, 409, NULL, "this gateway is %s", status);
	return 0;
}

int announce_revision(struct request *request, const struct owned *gateway)
{
	int r = DB_EXECUTE(request->db,
			   "UPDATE gateway.gateway SET revision = revision + 1 WHERE owner = $1 AND id = $2",
			   gateway->owner, gateway->id);

	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "SELECT pg_notify('wiretoll_revision', $1), pg_notify('wiretoll_job', $1)",
			       gateway->id);
	return r < 0 ? r : 0;
}
