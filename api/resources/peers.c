// SPDX-License-Identifier: BSD-2-Clause
/* Peers: road warriors and sites (P1 to P7). Every change locks the gateway's row, so that they come one by
 * one. */
#include "base/key.h"
#include "resources/common.h"
#include "resources/owned.h"
#include "resources/peer_config.h"
#include "resources/peer_input.h"
#include "resources/peer_view.h"
#include "resources/prefixes.h"
#include "resources/resources.h"
#include "seal.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#define MAX_PEERS "4000" /* the meter has 4,096 slots, and one for what belongs to nobody */

/* A key as PostgreSQL reads bytea. */
static void key_bytea(const struct key *key, char ret_text[static 68])
{
	char hex[65];

	key_format_hex(key, hex);
	snprintf(ret_text, 68, "\\x%s", hex);
}

static int check_public_key(struct request *request, struct response *response, const struct owned *gateway,
			    const char *peer, const struct peer_input *input)
{
	_cleanup_result_ PGresult *rows = NULL;
	char key[68];
	int r;

	if (!input->has_public_key)
		return 0;
	key_bytea(&input->public_key, key);
	r = DB_QUERY(request->db, &rows,
		     "SELECT 'peer ' || p.name FROM gateway.peer p WHERE p.owner = $1 AND p.gateway = $2 AND "
		     "p.id <> $3::uuid "
		     "AND p.removed IS NULL AND p.public_key = $4 UNION ALL SELECT 'the gateway itself' FROM "
		     "gateway.gateway g "
		     "WHERE g.owner = $1 AND g.id = $2 AND g.public_key = $4 LIMIT 1",
		     gateway->owner, gateway->id, peer, key);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 409, "public_key",
		      "public_key is already that of %s; accepted is a key of its own for each peer",
		      PQgetvalue(rows, 0, 0));
}

/*
 * An endpoint that can never be reached: the gateway's own address, or one behind the tunnel itself. What a
 * site's networks hold is no matter: the gateway's own packets never go into the tunnel (P3).
 */
static int check_endpoint(struct request *request, struct response *response, const struct owned *gateway,
			  const struct peer_input *input)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	if (!input->endpoint_address[0])
		return 0;
	r = DB_QUERY(
		request->db, &rows,
		"SELECT 'is an address of gateway ' || g.name AS what, 422 AS status FROM "
		"gateway.gateway g WHERE g.owner = $1 AND g.id = $2 AND (g.public_ip = $3::inet OR "
		"EXISTS (SELECT FROM gateway.address a WHERE a.gateway = g.id AND a.ip = $3::inet)) "
		"UNION ALL SELECT 'lies in ' || t || ', a tunnel subnet of gateway ' || g.name, 409 FROM "
		"gateway.gateway g, unnest(ARRAY[g.tunnel_subnet, g.tunnel_subnet6]) t WHERE g.owner = $1 "
		"AND g.id = $2 AND $3::inet <<= t::inet LIMIT 1",
		gateway->owner, gateway->id, input->endpoint_address);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(
		response, (unsigned)atoi(db_value(rows, 0, "status")), "endpoint",
		"endpoint \"%.100s\" %s; accepted is where the remote side listens, outside of the tunnel",
		input->endpoint, db_value(rows, 0, "what"));
}

static int check_room(struct request *request, struct response *response, const struct owned *gateway)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row,
		     "SELECT count(*) >= " MAX_PEERS " FROM gateway.peer WHERE owner = $1 AND gateway = $2 "
		     "AND removed IS NULL",
		     gateway->owner, gateway->id);
	if (r < 0 || PQgetvalue(row, 0, 0)[0] == 'f')
		return r;
	return refuse(response, 422, NULL,
		      "this gateway has " MAX_PEERS " peers; accepted is no more than that");
}

/* NULL when the peer gets no preshared key. */
static const char *seal(const struct request *request, const struct owned *gateway, const char *peer,
			const struct peer_input *input, char buffer[static SEALED_TEXT_SIZE])
{
	if (input->preshared_change != PRESHARED_NEW)
		return NULL;
	seal_preshared_key(request->sealing_key, gateway->owner, gateway->id, peer, &input->preshared_key,
			   buffer);
	return buffer;
}

static int set_prefixes(struct request *request, struct response *response, const struct owned *gateway,
			const char *peer, const struct peer_input *input)
{
	if (!input->site)
		return set_tunnel_addresses(request, response, gateway, peer, input->tunnel_ip,
					    input->tunnel_ip6);
	if (input->n_allowed_ips == 0)
		return 0;
	return set_site_prefixes(request, response, gateway, peer, input->allowed_ips, input->n_allowed_ips);
}

/* The body without the preshared key. */
static json_t *harmless_body(const struct request *request)
{
	json_t *copy = json_copy((json_t *)(uintptr_t)request->body);

	json_object_del(copy, "preshared_key");
	return copy;
}

static int finish(struct request *request, struct response *response, unsigned status, const char *action,
		  const struct owned *gateway, const char *peer)
{
	_cleanup_json_ json_t *detail = harmless_body(request);
	int r = announce_revision(request, gateway);

	if (r == 0)
		r = audit(request, action, peer, gateway->owner, detail);
	if (r == 0 && status == 204)
		r = answer_nothing(response);
	else if (r == 0)
		r = answer_peer(request, response, status, gateway, peer);
	return r < 0 ? r : db_commit(request->db);
}

static int insert_peer(struct request *request, const struct owned *gateway, const char *peer,
		       const struct peer_input *input)
{
	char sealed[SEALED_TEXT_SIZE], key[68];
	int r;

	key_bytea(&input->public_key, key);
	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.peer (owner, gateway, id, kind, name, public_key, psk_sealed, "
		       "endpoint, keepalive, "
		       "dns, search_domains, enabled, config_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, "
		       "coalesce($9::integer, 0), coalesce($10::inet[], '{}'), coalesce($11::text[], '{}'), "
		       "coalesce($12::boolean, true), gateway.free_config_name($1, $2, $3, $5))",
		       gateway->owner, gateway->id, peer, input->site ? "site_to_site" : "road_warrior",
		       input->name, key, seal(request, gateway, peer, input, sealed), input->endpoint,
		       input->keepalive, input->dns, input->search_domains, input->enabled);
	return r < 0 ? r : 0;
}

static int add_peer(struct request *request, struct response *response, const struct peer_input *input)
{
	char peer[UUID_TEXT_SIZE];
	struct owned gateway;
	int r;

	uuid_generate(peer);
	r = lock_gateway(request, response, &gateway);
	if (r == 0)
		r = check_room(request, response, &gateway);
	if (r == 0)
		r = check_public_key(request, response, &gateway, peer, input);
	if (r == 0)
		r = check_endpoint(request, response, &gateway, input);
	if (r == 0)
		r = insert_peer(request, &gateway, peer, input);
	if (r == 0)
		r = set_prefixes(request, response, &gateway, peer, input);
	return r < 0 ? r : finish(request, response, 201, "create", &gateway, peer);
}

static int create_peer(struct request *request, struct response *response)
{
	struct peer_input input;
	bool site;
	int r;

	r = peer_input_kind(request, response, &site);
	if (r < 0)
		return r;
	r = peer_input_read(request, response, site, REQUIRED, &input);
	if (r == 0)
		r = add_peer(request, response, &input);
	peer_input_free(&input);
	return r;
}

static int update_peer(struct request *request, const struct owned *gateway, const char *peer,
		       const struct peer_input *input)
{
	char sealed[SEALED_TEXT_SIZE], key[68];
	int r;

	key_bytea(&input->public_key, key);
	r = DB_EXECUTE(
		request->db,
		"UPDATE gateway.peer SET name = coalesce($4, name), public_key = coalesce($5, public_key), "
		"psk_sealed = CASE WHEN $6::boolean THEN $7::bytea ELSE psk_sealed END, "
		"endpoint = CASE WHEN $8::boolean THEN $9 ELSE endpoint END, "
		"keepalive = coalesce($10::integer, keepalive), dns = coalesce($11::inet[], dns), "
		"search_domains = coalesce($12::text[], search_domains), config_name = CASE WHEN $4 IS NULL "
		"OR $4 = "
		"name THEN config_name ELSE gateway.free_config_name($1, $2, $3, $4) END, "
		"enabled = coalesce($13::boolean, enabled) WHERE owner = $1 AND gateway = $2 AND id = $3",
		gateway->owner, gateway->id, peer, input->name, input->has_public_key ? key : NULL,
		input->preshared_change == PRESHARED_AS_IT_WAS ? "false" : "true",
		seal(request, gateway, peer, input, sealed), input->has_endpoint ? "true" : "false",
		input->endpoint, input->keepalive, input->dns, input->search_domains, input->enabled);
	return r < 0 ? r : 0;
}

static int is_site(struct request *request, const struct owned *gateway, const char *peer, bool *ret_site)
{
	_cleanup_result_ PGresult *row = NULL;
	int r = DB_QUERY(request->db, &row,
			 "SELECT kind <> 'road_warrior' FROM gateway.peer WHERE owner = $1 AND gateway = $2 "
			 "AND id = $3",
			 gateway->owner, gateway->id, peer);

	if (r == 0)
		*ret_site = PQgetvalue(row, 0, 0)[0] == 't';
	return r;
}

static int change_peer(struct request *request, struct response *response)
{
	struct peer_input input = {0};
	char peer[UUID_TEXT_SIZE];
	struct owned gateway;
	bool site;
	int r;

	r = lock_gateway(request, response, &gateway);
	if (r == 0)
		r = find_peer(request, response, &gateway, peer);
	if (r == 0)
		r = is_site(request, &gateway, peer, &site);
	if (r == 0)
		r = peer_input_read(request, response, site, OPTIONAL, &input);
	if (r == 0)
		r = check_public_key(request, response, &gateway, peer, &input);
	if (r == 0)
		r = check_endpoint(request, response, &gateway, &input);
	if (r == 0)
		r = update_peer(request, &gateway, peer, &input);
	if (r == 0)
		r = set_prefixes(request, response, &gateway, peer, &input);
	peer_input_free(&input);
	return r < 0 ? r : finish(request, response, 200, "change", &gateway, peer);
}

/* The row stays, as usage and invoices name it; its secret goes. */
static int delete_peer(struct request *request, struct response *response)
{
	char peer[UUID_TEXT_SIZE];
	struct owned gateway;
	int r;

	r = lock_gateway(request, response, &gateway);
	if (r == 0)
		r = find_peer(request, response, &gateway, peer);
	if (r == 0)
		r = free_prefixes(request, &gateway, peer);
	if (r == 0)
		r = DB_EXECUTE(request->db,
			       "UPDATE gateway.peer SET removed = now(), enabled = false, psk_sealed = NULL "
			       "WHERE owner = $1 AND gateway = $2 AND id = $3",
			       gateway.owner, gateway.id, peer);
	return r < 0 ? r : finish(request, response, 204, "delete", &gateway, peer);
}

const struct route peer_routes[] = {
	{"GET", "/v1/gateways/{gateway}/peers", ROLE_CUSTOMER | ROUTE_FOR_USER, list_peers, QUERY_PAGE},
	{"POST", "/v1/gateways/{gateway}/peers", ROLE_CUSTOMER | ROUTE_FOR_USER, create_peer, NULL},
	{"GET", "/v1/gateways/{gateway}/peers/{peer}", ROLE_CUSTOMER | ROUTE_FOR_USER, get_peer, NULL},
	{"PATCH", "/v1/gateways/{gateway}/peers/{peer}", ROLE_CUSTOMER | ROUTE_FOR_USER, change_peer, NULL},
	{"DELETE", "/v1/gateways/{gateway}/peers/{peer}", ROLE_CUSTOMER | ROUTE_FOR_USER, delete_peer, NULL},
	{"GET", "/v1/gateways/{gateway}/peers/{peer}/config", ROLE_CUSTOMER | ROUTE_FOR_USER, get_peer_config,
	 NULL},
	{0},
};
