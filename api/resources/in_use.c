// SPDX-License-Identifier: BSD-2-Clause
#include "resources/in_use.h"

#include <stdio.h>
#include <string.h>

#define MAX_NAMED 3

/* Rows that were billed stay for good, and with them what they name. */
#define GATEWAYS(condition)                                                                                  \
	"SELECT CASE WHEN g.status = 'deleted' THEN 2 ELSE 1 END AS rank, 'gateway ' || g.name || ' (' || "  \
	"g.id || CASE WHEN g.status = 'deleted' THEN ', deleted, but in its owner''s bills)' ELSE ')' END "  \
	"AS what FROM gateway.gateway g WHERE " condition
#define VPCS(condition)                                                                                      \
	"SELECT CASE WHEN v.deleted IS NULL THEN 1 ELSE 2 END AS rank, 'VPC ' || v.name || ' (' || v.id || " \
	"CASE WHEN v.deleted IS NULL THEN ')' ELSE ', deleted, but its gateways were billed)' END AS what "  \
	"FROM gateway.vpc v WHERE " condition
#define LOCATIONS(condition)                                                                                 \
	"SELECT 1 AS rank, 'location ' || l.name || ' (' || l.id || ')' AS what FROM gateway.location l "    \
	"WHERE " condition
#define SELECT_USERS(users) "SELECT u.what FROM (" users ") u ORDER BY u.rank, u.what LIMIT 4"

static const char *const users_sql[] = {
	[IMAGE] = SELECT_USERS(LOCATIONS("l.image = $1")),
	[PLAN] = SELECT_USERS("SELECT 0 AS rank, 'plan group ' || o.name || ' (' || o.id || ')' AS what FROM "
			      "gateway.plan_group o JOIN gateway.plan_group_plan x ON x.plan_group = o.id "
			      "WHERE x.plan = $1 "
			      "UNION ALL " GATEWAYS("g.plan = $1")),
	[PLAN_GROUP] = SELECT_USERS(LOCATIONS("l.plan_group = $1")),
	[LOCATION] =
		SELECT_USERS("SELECT 0 AS rank, 'hypervisor ' || h.name || ' (' || h.id || ')' AS what FROM "
			     "gateway.hypervisor h WHERE h.location = $1 UNION ALL " VPCS(
				     "v.location = $1") " UNION ALL " GATEWAYS("g.location = $1")),
	[HYPERVISOR] = SELECT_USERS(
		"SELECT 0 AS rank, 'subnet ' || s.cidr || ' of VPC ' || v.name || ' (' || v.id || ')' AS "
		"what FROM "
		"gateway.attachment a JOIN gateway.subnet s ON s.owner = a.owner AND s.id = a.subnet JOIN "
		"gateway.vpc v ON v.owner = s.owner AND v.id = s.vpc WHERE a.hypervisor = $1 UNION "
		"ALL " GATEWAYS(
			"g.hypervisor = $1 OR EXISTS (SELECT FROM gateway.job j WHERE j.gateway = g.id AND "
			"j.hypervisor = $1)")),
	[USER] = SELECT_USERS(VPCS("v.owner = $1") " UNION ALL " GATEWAYS("g.owner = $1")),
};

int check_unused(struct request *request, struct response *response, enum noun noun, const char *id,
		 const char *key)
{
	_cleanup_result_ PGresult *rows = NULL;
	char users[400] = "";
	int r;

	r = DB_QUERY(request->db, &rows, users_sql[noun], id);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	for (int i = 0; i < PQntuples(rows) && i < MAX_NAMED; i++) {
		size_t used = strlen(users);

		snprintf(users + used, sizeof(users) - used, "%s%s", i > 0 ? ", " : "",
			 PQgetvalue(rows, i, 0));
	}
	return refuse(response, 409, NULL, "\"%.64s\" is in use by %.380s%s, and cannot be deleted", key,
		      users, PQntuples(rows) > MAX_NAMED ? " and more" : "");
}
