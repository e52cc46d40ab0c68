// SPDX-License-Identifier: BSD-2-Clause
/* What somebody had to look at, and has. */
#include "resources/common.h"
#include "resources/owned.h"
#include "resources/resources.h"

/* An epoch that contradicts itself stays quarantined; one that was implausible is judged anew. An alarm whose
 * cause goes on is raised again. */
static int clear_alarms(struct request *request, struct response *response)
{
	struct owned gateway;
	int r;

	r = find_gateway(request, response, &gateway);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(request->db, "SELECT billing.clear_alarms($1, $2)", gateway.owner, gateway.id);
	if (r >= 0)
		r = audit(request, "gateway.alarms.clear", gateway.id, gateway.owner, NULL);
	if (r >= 0)
		r = db_commit(request->db);
	return r < 0 ? r : answer_nothing(response);
}

const struct route alarm_routes[] = {
	{"DELETE", "/v1/gateways/{gateway}/alarms", ROLE_ADMIN, clear_alarms, NULL},
	{0},
};
