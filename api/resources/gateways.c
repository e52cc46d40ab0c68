// SPDX-License-Identifier: BSD-2-Clause
/* Gateways: what can be done with one that exists. */
#include "resources/common.h"
#include "resources/gateway_create.h"
#include "resources/gateway_view.h"
#include "resources/owned.h"
#include "resources/resources.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int get_gateway(struct request *request, struct response *response)
{
	struct owned gateway;
	int r = find_gateway(request, response, &gateway);

	return r < 0 ? r : answer_gateway(request, response, 200, &gateway);
}

/* The change is in the database: announce, note, answer, commit. */
static int finish(struct request *request, struct response *response, unsigned status, const char *action,
		  const struct owned *gateway)
{
	int r = announce_revision(request, gateway);

	if (r == 0)
		r = audit(request, action, gateway->id, gateway->owner, request->body);
	if (r == 0)
		r = answer_gateway(request, response, status, gateway);
	return r < 0 ? r : db_commit(request->db);
}

/* B4: each actor clears only its own reason. */
static const char change_sql[] =
	"UPDATE gateway.gateway SET name = coalesce($3, name), masquerade = coalesce($4, masquerade), "
	"suspended_reasons = "
	"CASE $5::boolean WHEN true THEN array_append(array_remove(suspended_reasons, 'admin'), 'admin') "
	"WHEN false THEN array_remove(suspended_reasons, 'admin') ELSE suspended_reasons END WHERE owner = "
	"$1 AND id = $2";

static int change_gateway(struct request *request, struct response *response)
{
	struct form form = form_of(request, response);
	const char *name = form_name(&form, "name", OPTIONAL);
	const char *masquerade = form_choice(&form, "masquerade_into_vpc", OPTIONAL, masquerades);
	const char *suspended = form_bool(&form, "suspended", OPTIONAL);
	struct owned gateway;
	int r;

	r = form_end(&form);
	if (r < 0)
		return r;
	if (suspended && request->principal.role != ROLE_ADMIN)
		return refuse(response, 403, "suspended", "suspended can be set by an admin only");
	r = lock_gateway(request, response, &gateway);
	if (r == 0)
		r = DB_EXECUTE(request->db, change_sql, gateway.owner, gateway.id, name, masquerade,
			       suspended);
	return r < 0 ? r : finish(request, response, 200, "change", &gateway);
}

/*
 * Locks are taken in one order everywhere: the job before the gateway. The status is read by a statement of
 * its own: one that waits for a lock sees the locked row as it is then, but all others as they were before.
 */
static int lock_job(struct request *request, const struct owned *gateway, PGresult **ret_row)
{
	int r = db_begin(request->db);

	if (r >= 0)
		r = DB_EXECUTE(request->db, "SELECT FROM gateway.job WHERE gateway = $1 FOR UPDATE",
			       gateway->id);
	if (r < 0)
		return r;
	return DB_QUERY(request->db, ret_row,
			"SELECT g.status, (g.status = 'error' OR (g.status = 'deploying' AND j.deadline < "
			"now())) AS can_retry "
			"FROM gateway.job j JOIN gateway.gateway g ON g.owner = j.owner AND g.id = j.gateway "
			"WHERE j.gateway = $1",
			gateway->id);
}

/* G7. A worker that is still deploying sees the new goal at its next step. Twice is the same as once. */
static int delete_gateway(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	struct owned gateway;
	int r;

	r = find_gateway(request, response, &gateway);
	if (r == 0)
		r = lock_job(request, &gateway, &row);
	if (r < 0)
		return r;
	if (PQntuples(row) == 0 || strcmp(db_value(row, 0, "status"), "deleted") == 0)
		return refuse(response, 404, NULL, "this gateway is deleted");
	if (strcmp(db_value(row, 0, "status"), "deleting") == 0)
		return answer_gateway(request, response, 202, &gateway);
	r = DB_EXECUTE(
		request->db,
		"UPDATE gateway.job SET goal = 'absent', step = 'deleting', finished = false, tries = 0, "
		"not_before = now(), deadline = now() + interval '" DEPLOY_DEADLINE "' WHERE gateway = $1",
		gateway.id);
	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "UPDATE gateway.gateway SET status = 'deleting', error = NULL WHERE owner = "
			       "$1 AND id = $2",
			       gateway.owner, gateway.id);
	return r < 0 ? r : finish(request, response, 202, "delete", &gateway);
}

/* G6: the attempt makes everything of the failed one foreign; the next worker starts afresh, anywhere. */
static int retry_gateway(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	struct form form = form_of(request, response);
	struct owned gateway;
	int r;

	r = form_end(&form);
	if (r == 0)
		r = find_gateway(request, response, &gateway);
	if (r == 0)
		r = lock_job(request, &gateway, &row);
	if (r < 0)
		return r;
	if (PQntuples(row) == 0 || db_value(row, 0, "can_retry")[0] != 't')
		return refuse(response, 409, NULL,
			      "this gateway is %s; a retry is accepted in error, or when deploying past the "
			      "deadline",
			      PQntuples(row) == 0 ? "deleted" : db_value(row, 0, "status"));
	r = DB_EXECUTE(request->db,
		       "UPDATE gateway.job SET attempt = attempt + 1, goal = 'active', hypervisor = NULL, "
		       "step = 'queued', tries = 0, not_before = now(), worker = NULL, lease_until = NULL, "
		       "deadline = now() + interval '" DEPLOY_DEADLINE
		       "', finished = false WHERE gateway = $1",
		       gateway.id);
	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "UPDATE gateway.gateway SET attempt = attempt + 1, status = 'deploying', "
			       "error = NULL, "
			       "hypervisor = NULL, active_since = NULL, cannot_apply = '[]', cannot_route = "
			       "'[]' WHERE owner = $1 AND id = $2",
			       gateway.owner, gateway.id);
	return r < 0 ? r : finish(request, response, 202, "retry", &gateway);
}

/* An extra allowance in this cycle. Whole bytes: a decimal of GB has at most nine places. */
static int add_extra(struct request *request, struct response *response)
{
	struct form form = form_of(request, response);
	const char *gb = form_decimal(&form, "gb", REQUIRED);
	struct owned gateway;
	int r;

	if (gb && strspn(gb, "0.") == strlen(gb))
		form_refuse(&form, "gb", "gb is \"%s\"; accepted is more than 0", gb);
	r = form_end(&form);
	if (r == 0)
		r = lock_gateway(request, response, &gateway);
	if (r == 0)
		r = DB_EXECUTE(
			request->db,
			"UPDATE billing.bucket SET extra = extra + ($3::numeric * 1000000000)::bigint, "
			"grant_seq = grant_seq + 1 WHERE owner = $1 AND holder = $2 AND cycle = "
			"(SELECT max(b.cycle) FROM billing.bucket b WHERE b.owner = $1 AND b.holder = $2)",
			gateway.owner, gateway.id, gb);
	if (r == -EINVAL || (r < 0 && strcmp(db_last_error(request->db)->sqlstate, "22003") == 0))
		return refuse(response, 422, "gb", "gb is \"%s\"; accepted is less: the sum does not fit",
			      gb);
	if (r == 0)
		return refuse(response, 409, NULL, "this gateway holds no bucket of the current cycle");
	return r < 0 ? r : finish(request, response, 200, "extra", &gateway);
}

/* The job log has no names: its ids are the order, and stand where other pages have both. */
#define LOG_ORDER_ID "lpad(to_hex(l.id), 32, '0')::uuid"

static int get_log(struct request *request, struct response *response)
{
	struct owned gateway;
	const char *id = gateway.id;
	int r;

	r = find_gateway(request, response, &gateway);
	if (r < 0)
		return r;
	return answer_page(request, response,
			   "SELECT json_build_object('at', " SQL_TIME(
				   "l.at") ", 'attempt', l.attempt, 'step', l.step, 'line', "
					   "l.line), '' AS name, " LOG_ORDER_ID
					   " AS id FROM gateway.job_log l WHERE l.gateway = $4 AND "
					   "($1::text IS NULL OR " LOG_ORDER_ID
					   " > $2::uuid) ORDER BY l.id LIMIT $3::bigint",
			   1, &id);
}

const struct route gateway_routes[] = {
	{"GET", "/v1/gateways", ROLE_CUSTOMER | ROUTE_FOR_USER, list_gateways, QUERY_PAGE " search status"},
	{"POST", "/v1/gateways", ROLE_CUSTOMER | ROUTE_FOR_USER, create_gateway, NULL},
	{"GET", "/v1/gateways/{gateway}", ROLE_CUSTOMER | ROUTE_FOR_USER, get_gateway, NULL},
	{"PATCH", "/v1/gateways/{gateway}", ROLE_CUSTOMER | ROUTE_FOR_USER, change_gateway, NULL},
	{"DELETE", "/v1/gateways/{gateway}", ROLE_CUSTOMER | ROUTE_FOR_USER, delete_gateway, NULL},
	{"POST", "/v1/gateways/{gateway}/retry", ROLE_CUSTOMER | ROUTE_FOR_USER, retry_gateway, NULL},
	{"POST", "/v1/gateways/{gateway}/extra", ROLE_ADMIN, add_extra, NULL},
	{"GET", "/v1/gateways/{gateway}/log", ROLE_ADMIN, get_log, QUERY_PAGE},
	{0},
};
