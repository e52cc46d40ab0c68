// SPDX-License-Identifier: BSD-2-Clause
#include "resources/offer.h"

#include "resources/form.h"

int offer_begin(struct request *request)
{
	int r = db_begin(request->db);

	if (r == 0)
		r = DB_EXECUTE(request->db, "SELECT pg_advisory_xact_lock(hashtext('wiretoll offer'))");
	return r < 0 ? r : 0;
}

/* Rates in force and those that are still to come; the past is no matter. */
static const char disagreement_sql[] =
	"SELECT p.name AS plan, l.name AS location, v.overage "
	"FROM gateway.plan p JOIN gateway.plan_group_plan x ON x.plan = p.id "
	"JOIN gateway.location l ON l.plan_group = x.plan_group "
	"JOIN gateway.rate_version v ON v.location = l.id "
	"WHERE p.included_gb = 0 AND v.overage <> 'charge_overage' AND v.from_hour >= "
	"(SELECT max(w.from_hour) FROM gateway.rate_version w WHERE w.location = l.id AND w.from_hour <= "
	"now()) "
	"ORDER BY 1, 2 LIMIT 1";

int offer_check(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows, disagreement_sql);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 422, "included_gb",
		      "included_gb of plan \"%.64s\" is 0 and location \"%.64s\", which offers it, has "
		      "overage %s; accepted is 0 "
		      "only where overage is charge_overage",
		      db_value(rows, 0, "plan"), db_value(rows, 0, "location"), db_value(rows, 0, "overage"));
}
