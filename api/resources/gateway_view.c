// SPDX-License-Identifier: BSD-2-Clause
#include "resources/gateway_view.h"

#include "resources/common.h"

#include <string.h>

/* Suspended is a set of reasons beside the status; to the outside it is a status. */
#define SHOWN_STATUS                                                                                         \
	"CASE WHEN g.status = 'active' AND g.suspended_reasons <> '{}' THEN 'suspended' ELSE g.status END"

#define BANDWIDTH                                                                                            \
	"json_build_object('used_bytes', coalesce(b.used, 0)::text, 'allowance_bytes', b.allowance::text, "  \
	"'extra_bytes', coalesce(b.extra, 0)::text, 'enforced', v.overage <> 'none' AND b.allowance IS NOT " \
	"NULL, "                                                                                             \
	"'policy', v.overage, 'accounting', v.accounting, 'as_of', " SQL_TIME("g.complete_through") ")"

/* G9: what the VPC has to route through the gateway. */
#define ROUTES                                                                                               \
	"(SELECT coalesce(json_agg(json_build_object('destination', r.cidr, 'via', (SELECT host(d.ip) FROM " \
	"gateway.address d WHERE d.gateway = g.id AND NOT d.public AND family(d.ip) = family(r.cidr) ORDER " \
	"BY d.ip "                                                                                           \
	"LIMIT 1)) ORDER BY r.cidr), '[]') FROM (SELECT g.tunnel_subnet AS cidr UNION ALL SELECT "           \
	"g.tunnel_subnet6 "                                                                                  \
	"UNION ALL SELECT x.cidr FROM gateway.prefix x WHERE x.owner = g.owner AND x.gateway = g.id AND "    \
	"x.freed IS NULL "                                                                                   \
	"AND NOT x.tunnel) r)"

/* What somebody has to look at, the newest first. */
#define ALARMS                                                                                               \
	"(SELECT coalesce(json_agg(json_build_object('kind', a.kind, 'subject', a.subject, "                 \
	"'raised', " SQL_TIME("a.raised") ", 'detail', a.detail) ORDER BY a.raised DESC), '[]') FROM "       \
					  "billing.alarm a WHERE "                                           \
					  "a.owner = g.owner AND a.gateway = g.id AND a.cleared IS NULL)"

/* Independent counts of the same bytes, as last compared. */
#define RECONCILIATION                                                                                       \
	"(SELECT json_build_object('at', " SQL_TIME(                                                         \
		"k.at") ", 'epoch', k.epoch, 'counts', k.counts, 'drift', k.drift) FROM "                    \
			"billing.reconciliation k WHERE k.owner = g.owner AND k.gateway = g.id)"

#define GATEWAY_OBJECT(sees_infrastructure)                                                                  \
	"json_build_object('id', g.id, 'name', g.name, 'owner', g.owner, 'owner_name', u.name, 'vpc', "      \
	"g.vpc, "                                                                                            \
	"'vpc_name', c.name, 'location', g.location, 'location_name', l.name, 'plan', g.plan, 'plan_name', " \
	"p.name, "                                                                                           \
	"'status', " SHOWN_STATUS ", 'suspended_reasons', g.suspended_reasons, 'error', g.error, "           \
	"'public_ip', host(g.public_ip), 'tunnel_subnet', g.tunnel_subnet, 'tunnel_subnet6', "               \
	"g.tunnel_subnet6, "                                                                                 \
	"'listen_port', g.listen_port, 'public_key', encode(g.public_key, 'base64'), "                       \
	"'masquerade_into_vpc', g.masquerade, 'revision', g.revision, 'applied_revision', "                  \
	"g.applied_revision, "                                                                               \
	"'attempt', g.attempt, 'active_since', " SQL_TIME("g.active_since") ", 'created', " SQL_TIME(        \
		"g.created") ", 'bandwidth', " BANDWIDTH ", 'unreachable_since', CASE WHEN g.status = "      \
			     "'active' AND g.last_report < now() - "                                         \
			     "interval '3 minutes' THEN " SQL_TIME(                                          \
				     "g.last_report") " END, 'hypervisor', CASE WHEN " sees_infrastructure   \
						      " THEN h.name END, 'routes', " ROUTES                  \
						      ", 'alarms', " ALARMS                                  \
						      ", 'reconciliation', " RECONCILIATION                  \
						      ", 'cannot_apply', g.cannot_apply || g.cannot_route)"

#define GATEWAY_FROM                                                                                         \
	" FROM gateway.gateway g JOIN gateway.app_user u ON u.id = g.owner "                                 \
	"JOIN gateway.vpc c ON c.owner = g.owner AND c.id = g.vpc JOIN gateway.location l ON l.id = "        \
	"g.location "                                                                                        \
	"JOIN gateway.plan p ON p.id = g.plan LEFT JOIN gateway.hypervisor h ON h.id = g.hypervisor "        \
	"LEFT JOIN LATERAL (SELECT * FROM billing.bucket k WHERE k.owner = g.owner AND k.holder = g.id "     \
	"ORDER BY k.cycle DESC LIMIT 1) b ON true JOIN LATERAL (SELECT * FROM gateway.rate_version r "       \
	"WHERE r.location = g.location AND r.from_hour <= now() ORDER BY r.from_hour DESC LIMIT 1) v ON "    \
	"true "

int answer_gateway(struct request *request, struct response *response, unsigned status,
		   const struct owned *gateway)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " GATEWAY_OBJECT("$3::boolean") GATEWAY_FROM
			     "WHERE g.owner = $1 AND g.id = $2",
			     gateway->owner, gateway->id, sees_infrastructure(request));
}

static bool is_status(const char *text)
{
	static const char *const statuses[] = {"deploying", "active",   "error",
					       "suspended", "deleting", "deleted"};

	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (strcmp(text, statuses[i]) == 0)
			return true;
	}
	return false;
}

int list_gateways(struct request *request, struct response *response)
{
	const char *status = request_query(request, "status"), *search = request_query(request, "search");
	const char *params[] = {or_null(request->principal.owner), status, search,
				sees_infrastructure(request)};

	if (status && !is_status(status))
		return refuse(response, 422, "status",
			      "status is \"%.32s\"; accepted are: deploying, active, error, suspended, "
			      "deleting, deleted",
			      status);
	return answer_page(
		request, response,
		"SELECT " GATEWAY_OBJECT("$7::boolean") ", g.name, g.id" GATEWAY_FROM "WHERE " SQL_AFTER(
			"g") " AND ($4::uuid IS NULL OR g.owner = $4::uuid) "
			     "AND CASE WHEN $5::text IS NULL THEN g.status <> 'deleted' ELSE " SHOWN_STATUS
			     " = $5 END "
			     "AND ($6::text IS NULL OR position(lower($6) IN lower(concat_ws(' ', g.name, "
			     "c.name, u.name, u.email))) "
			     "> 0)" SQL_PAGE("g"),
		ARRAY_SIZE(params), params);
}
