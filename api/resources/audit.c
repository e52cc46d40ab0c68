// SPDX-License-Identifier: BSD-2-Clause
/* A8: who changed what, when, from where; the newest first. */
#include "resources/common.h"
#include "resources/resources.h"

/* The log has no names: its ids are the order, and stand where other pages have both. */
#define AUDIT_ORDER_ID "lpad(to_hex(l.id), 32, '0')::uuid"

static int list_audit(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT json_build_object('id', l.id::text, 'at', " SQL_TIME(
				   "l.at") ", 'actor', l.actor, 'actor_name', "
					   "(SELECT u.name FROM gateway.app_user u WHERE u.id = l.actor), "
					   "'address', host(l.address), 'owner', l.owner, "
					   "'action', l.action, 'object', l.object, 'detail', l.detail), '' "
					   "AS name, " AUDIT_ORDER_ID " AS id "
					   "FROM gateway.audit l WHERE ($1::text IS NULL OR " AUDIT_ORDER_ID
					   " < $2::uuid) ORDER BY l.id DESC "
					   "LIMIT $3::bigint",
			   0, NULL);
}

const struct route audit_routes[] = {
	{"GET", "/v1/audit", ROLE_ADMIN, list_audit, QUERY_PAGE},
	{0},
};
