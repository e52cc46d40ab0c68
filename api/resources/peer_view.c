// SPDX-License-Identifier: BSD-2-Clause
#include "resources/peer_view.h"

#include "resources/common.h"

#include <stdio.h>

#define PREFIXES(condition)                                                                                  \
	"(SELECT x.cidr FROM gateway.prefix x WHERE x.owner = p.owner AND x.gateway = p.gateway AND x.peer " \
	"= p.id "                                                                                            \
	"AND x.freed IS NULL AND " condition " LIMIT 1)"

/* The addresses of its DNS servers, and behind them the search domains. */
#define PEER_DNS "to_json(ARRAY(SELECT host(d) FROM unnest(p.dns) d) || p.search_domains)"

#define PEER_NETWORKS                                                                                        \
	"(SELECT coalesce(json_agg(x.cidr ORDER BY x.cidr), '[]') FROM gateway.prefix x "                    \
	"WHERE x.owner = p.owner AND x.gateway = p.gateway AND x.peer = p.id AND x.freed IS NULL)"

#define PEER_STATE                                                                                           \
	"CASE WHEN NOT p.enabled THEN 'disabled' WHEN p.last_handshake IS NULL THEN 'never_seen' "           \
	"WHEN p.last_handshake > now() - interval '180 s' THEN 'connected' ELSE 'idle' END"

/* What the agent says of this peer: "peer UUID" or "peer UUID: …". */
#define COMPLAINTS                                                                                           \
	"(SELECT coalesce(json_agg(x.value ->> 'reason' ORDER BY x.ordinality), '[]') FROM gateway.gateway " \
	"g, jsonb_array_elements(g.cannot_apply) WITH ORDINALITY x WHERE g.owner = p.owner AND g.id = "      \
	"p.gateway AND x.value ->> 'what' ~ ('^peer ' || p.id || '(:|$)'))"

// clang-format off
#define PEER_OBJECT                                                                                          \
	"json_build_object('id', p.id, 'name', p.name, 'config_name', p.config_name, 'kind', p.kind, "                                  \
	"'public_key', encode(p.public_key, 'base64'), "                                                     \
	"'tunnel_ip', host(" PREFIXES("x.tunnel AND family(x.cidr) = 4") "), "                               \
	"'tunnel_ip6', host(" PREFIXES("x.tunnel AND family(x.cidr) = 6") "), "                              \
	"'dns', " PEER_DNS ", 'keepalive', p.keepalive, 'endpoint', p.endpoint, "                            \
	"'allowed_ips', " PEER_NETWORKS ", 'has_preshared_key', p.psk_sealed IS NOT NULL, "                  \
	"'enabled', p.enabled, 'state', " PEER_STATE ", "                                                    \
	"'last_handshake', " SQL_TIME("p.last_handshake") ", 'current_endpoint', p.current_endpoint, "       \
	"'upload_bytes', coalesce(w.up, 0)::text, 'download_bytes', coalesce(w.down, 0)::text, "             \
	"'gateway', p.gateway, 'created', " SQL_TIME("p.created") ", "                            \
	"'cannot_apply', " COMPLAINTS ")"
// clang-format on

/* Usage of the current cycle, summed up once for all peers of the gateway. */
#define PEER_FROM(owner, gateway)                                                                            \
	" FROM gateway.peer p LEFT JOIN (SELECT h.peer, sum(h.up) AS up, sum(h.down) AS down FROM "          \
	"billing.usage_hour h "                                                                              \
	"WHERE h.owner = " owner " AND h.gateway = " gateway                                                 \
	" AND h.hour >= date_trunc('month', now(), 'UTC') "                                                  \
	"GROUP BY h.peer) w ON w.peer = p.id "                                                               \
	"WHERE p.owner = " owner " AND p.gateway = " gateway " AND p.removed IS NULL "

int answer_peer(struct request *request, struct response *response, unsigned status,
		const struct owned *gateway, const char *peer)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " PEER_OBJECT PEER_FROM("$1::uuid", "$2::uuid") "AND p.id = $3",
			     gateway->owner, gateway->id, peer);
}

int find_peer(struct request *request, struct response *response, const struct owned *gateway,
	      char ret_id[static UUID_TEXT_SIZE])
{
	const char *key = request->arguments[1];
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows,
		     "SELECT id FROM gateway.peer WHERE owner = $1 AND gateway = $2 AND removed IS NULL "
		     "AND (id = $4::uuid OR name = $3)",
		     gateway->owner, gateway->id, key, is_uuid(key) ? key : NULL);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0)
		return refuse(response, 404, NULL,
			      "\"%.64s\" is not the id or name of a peer of this gateway", key);
	snprintf(ret_id, UUID_TEXT_SIZE, "%s", PQgetvalue(rows, 0, 0));
	return 0;
}

int list_peers(struct request *request, struct response *response)
{
	struct owned gateway;
	const char *params[] = {gateway.owner, gateway.id};
	int r = find_gateway(request, response, &gateway);

	if (r < 0)
		return r;
	return answer_page(request, response,
			   "SELECT " PEER_OBJECT
			   ", p.name, p.id" PEER_FROM("$4::uuid", "$5::uuid") "AND " SQL_AFTER("p")
				   SQL_PAGE("p"),
			   ARRAY_SIZE(params), params);
}

int get_peer(struct request *request, struct response *response)
{
	char peer[UUID_TEXT_SIZE];
	struct owned gateway;
	int r;

	r = find_gateway(request, response, &gateway);
	if (r == 0)
		r = find_peer(request, response, &gateway, peer);
	return r < 0 ? r : answer_peer(request, response, 200, &gateway, peer);
}
