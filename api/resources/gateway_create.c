// SPDX-License-Identifier: BSD-2-Clause
#include "resources/gateway_create.h"

#include "base/cidr.h"
#include "resources/address_input.h"
#include "resources/common.h"
#include "resources/gateway_view.h"
#include "resources/owned.h"

#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_TUNNEL_SUBNET "10.99.0.0/24"
#define NAMES_TEXT_SIZE       300

const char *const masquerades[] = {"road_warriors", "all", "none", NULL};

struct wish {
	const char *vpc, *plan, *name, *public_subnet, *tunnel_subnet, *tunnel_subnet6, *listen_port,
		*masquerade;
	struct form form; /* keeps the number's text */
	/* What has been found for it: */
	struct owned gateway;
	char vpc_id[UUID_TEXT_SIZE], vpc_name[64], location[UUID_TEXT_SIZE], plan_group[UUID_TEXT_SIZE];
	char plan_id[UUID_TEXT_SIZE], subnet_id[UUID_TEXT_SIZE];
	char tunnel[CIDR_TEXT_SIZE], tunnel6[CIDR_TEXT_SIZE], generated_name[64];
};

/* The first column of all rows, for "accepted are". */
static const char *join_names(const PGresult *rows, char text[static NAMES_TEXT_SIZE])
{
	text[0] = '\0';
	for (int i = 0; i < PQntuples(rows); i++) {
		size_t used = strlen(text);

		snprintf(text + used, NAMES_TEXT_SIZE - used, "%s%s", used ? ", " : "",
			 PQgetvalue(rows, i, 0));
	}
	return text;
}

/* ---- the VPC ---- */

/* G1: why there is none to choose. */
static int refuse_no_vpc(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row,
		     "SELECT count(*) AS vpcs, count(*) FILTER (WHERE l.vpn_enabled) AS enabled FROM "
		     "gateway.vpc v "
		     "JOIN gateway.location l ON l.id = v.location WHERE v.owner = $1 AND v.deleted IS NULL",
		     request->principal.owner);
	if (r < 0)
		return r;
	if (strcmp(db_value(row, 0, "vpcs"), "0") == 0)
		return refuse(response, 422, "vpc", "No VPCs available: you have no VPC yet");
	if (strcmp(db_value(row, 0, "enabled"), "0") == 0)
		return refuse(response, 422, "vpc",
			      "No VPCs available: none of your VPCs is in a location with VPN gateways on");
	return refuse(
		response, 422, "vpc",
		"No VPCs available: each of your VPCs in a location with VPN gateways on already has one");
}

/* A choice of one is made by itself. */
static int choose_vpc(struct request *request, struct response *response, struct wish *wish)
{
	_cleanup_result_ PGresult *rows = NULL;
	char names[NAMES_TEXT_SIZE];
	int r;

	if (!*request->principal.owner)
		return refuse(response, 422, "vpc",
			      "vpc is required; accepted is the id of a VPC (GET /v1/vpcs)");
	r = DB_QUERY(request->db, &rows,
		     "SELECT v.name, v.id, v.owner FROM gateway.vpc v JOIN gateway.location l ON l.id = "
		     "v.location "
		     "WHERE v.owner = $1 AND v.deleted IS NULL AND l.vpn_enabled AND NOT EXISTS (SELECT FROM "
		     "gateway.gateway g "
		     "WHERE g.owner = v.owner AND g.vpc = v.id AND g.status <> 'deleted') ORDER BY v.name "
		     "LIMIT 20",
		     request->principal.owner);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0)
		return refuse_no_vpc(request, response);
	if (PQntuples(rows) > 1)
		return refuse(response, 422, "vpc", "vpc is required; accepted are: %s",
			      join_names(rows, names));
	snprintf(wish->gateway.owner, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "owner"));
	snprintf(wish->vpc_id, UUID_TEXT_SIZE, "%s", db_value(rows, 0, "id"));
	return 0;
}

static int check_vpc(struct request *request, struct response *response, struct wish *wish)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row,
		     "SELECT v.name, v.location, l.name AS location_name, l.vpn_enabled, l.plan_group, "
		     "EXISTS (SELECT FROM "
		     "gateway.gateway g WHERE g.owner = v.owner AND g.vpc = v.id AND g.status <> 'deleted') "
		     "AS has_gateway, "
		     "EXISTS (SELECT FROM gateway.image i WHERE i.enabled AND i.purpose = 'vpn_gateway' "
		     "AND (l.image IS NULL OR i.id = l.image)) AS has_image FROM gateway.vpc v "
		     "JOIN gateway.location l ON l.id = v.location WHERE v.owner = $1 AND v.id = $2 AND "
		     "v.deleted IS NULL "
		     "FOR SHARE OF v",
		     wish->gateway.owner, wish->vpc_id);
	if (r < 0)
		return r;
	if (PQntuples(row) == 0)
		return refuse(response, 422, "vpc", "vpc is a VPC that has just been deleted");
	if (db_value(row, 0, "has_gateway")[0] == 't')
		return refuse(response, 409, "vpc", "This VPC already has a VPN gateway");
	if (db_value(row, 0, "vpn_enabled")[0] == 'f')
		return refuse(response, 422, "vpc",
			      "vpc is \"%.63s\" in location %.63s, where VPN gateways are off; accepted is a "
			      "VPC in a location with "
			      "VPN gateways on",
			      db_value(row, 0, "name"), db_value(row, 0, "location_name"));
	if (db_value(row, 0, "has_image")[0] == 'f')
		return refuse(response, 422, "vpc",
			      "location %.63s has no enabled image with purpose vpn_gateway: the operator "
			      "has to enable one",
			      db_value(row, 0, "location_name"));
	snprintf(wish->vpc_name, sizeof(wish->vpc_name), "%s", db_value(row, 0, "name"));
	snprintf(wish->location, sizeof(wish->location), "%s", db_value(row, 0, "location"));
	snprintf(wish->plan_group, sizeof(wish->plan_group), "%s", db_value(row, 0, "plan_group"));
	return 0;
}

static int find_wished_vpc(struct request *request, struct response *response, struct wish *wish)
{
	struct owned vpc;
	int r;

	if (!wish->vpc)
		return choose_vpc(request, response, wish);
	r = find_vpc(request, response, "vpc", wish->vpc, &vpc);
	if (r < 0)
		return r;
	memcpy(wish->gateway.owner, vpc.owner, sizeof(vpc.owner));
	memcpy(wish->vpc_id, vpc.id, sizeof(vpc.id));
	return 0;
}

/* ---- plan and public subnet ---- */

/* The row that the wish names by the columns key and id; without a wish, the only one. -1: none. */
static int pick(const PGresult *rows, const char *wished)
{
	if (!wished)
		return PQntuples(rows) == 1 ? 0 : -1;
	for (int i = 0; i < PQntuples(rows); i++) {
		if (strcmp(PQgetvalue(rows, i, 0), wished) == 0 ||
		    strcasecmp(PQgetvalue(rows, i, 1), wished) == 0)
			return i;
	}
	return -1;
}

static int refuse_choice(struct response *response, const char *field, const char *wished,
			 const PGresult *rows)
{
	char names[NAMES_TEXT_SIZE];

	join_names(rows, names);
	if (!wished)
		return refuse(response, 422, field, "%s is required; accepted are: %s", field, names);
	return refuse(response, 422, field, "%s is \"%.64s\"; accepted are: %s", field, wished, names);
}

static int choose_plan(struct request *request, struct response *response, struct wish *wish)
{
	_cleanup_result_ PGresult *rows = NULL;
	int row, r;

	r = DB_QUERY(
		request->db, &rows,
		"SELECT p.name, p.id FROM gateway.plan_group_plan x JOIN gateway.plan p ON p.id = x.plan "
		"WHERE x.plan_group = $1 ORDER BY x.position",
		wish->plan_group);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0)
		return refuse(response, 422, "plan",
			      "the location's plan group has no plan: the operator has to add one");
	row = pick(rows, wish->plan);
	if (row < 0)
		return refuse_choice(response, "plan", wish->plan, rows);
	snprintf(wish->plan_id, sizeof(wish->plan_id), "%s", PQgetvalue(rows, row, 1));
	return 0;
}

static const char subnets_sql[] =
	"SELECT s.cidr, s.id FROM gateway.subnet s WHERE s.owner = $1 AND s.vpc = $2 AND s.public AND "
	"s.range_first IS NOT NULL ORDER BY s.cidr";

static int choose_subnet(struct request *request, struct response *response, struct wish *wish)
{
	_cleanup_result_ PGresult *rows = NULL;
	int row, r;

	r = DB_QUERY(request->db, &rows, subnets_sql, wish->gateway.owner, wish->vpc_id);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0)
		return refuse(response, 422, "public_subnet",
			      "VPC \"%.63s\" has no public subnet with a gateway_range: a gateway needs a "
			      "public address",
			      wish->vpc_name);
	row = pick(rows, wish->public_subnet);
	if (row < 0)
		return refuse_choice(response, "public_subnet", wish->public_subnet, rows);
	snprintf(wish->subnet_id, sizeof(wish->subnet_id), "%s", db_value(rows, row, "id"));
	return 0;
}

/* ---- the tunnel's subnets ---- */

/* fd, 40 random bits of global id, 16 of subnet id (RFC 4193). */
static void generate_ula(char text[static CIDR_TEXT_SIZE])
{
	struct cidr ula = {.family = AF_INET6, .prefix_length = 64, .bytes = {0xfd}};

	randombytes_buf(ula.bytes + 1, 7);
	cidr_format(&ula, text);
}

/* One of the tunnel's subnets; not given, the text keeps its default. */
static void read_tunnel_subnet(struct form *form, const char *field, const char *given, int family,
			       unsigned min_length, unsigned max_length, char text[static CIDR_TEXT_SIZE])
{
	char accepted[120];
	struct cidr subnet;

	if (!given)
		return;
	snprintf(accepted, sizeof(accepted),
		 "an %s network of length %u to %u such as %s, outside IANA's special-purpose ranges",
		 family == AF_INET ? "IPv4" : "IPv6", min_length, max_length, text);
	if (cidr_parse(given, &subnet) < 0 || !cidr_is_network(&subnet) || subnet.family != family ||
	    subnet.prefix_length < min_length || subnet.prefix_length > max_length)
		form_refuse(form, field, "%s is \"%.64s\"; accepted is %s", field, given, accepted);
	else if (check_network(form, field, field, &subnet, SPECIAL_UNUSABLE | SPECIAL_DOCUMENTATION,
			       accepted))
		cidr_format(&subnet, text);
}

static void read_tunnel_subnets(struct wish *wish)
{
	generate_ula(wish->tunnel6);
	snprintf(wish->tunnel, sizeof(wish->tunnel), "%s", DEFAULT_TUNNEL_SUBNET);
	read_tunnel_subnet(&wish->form, "tunnel_subnet", wish->tunnel_subnet, AF_INET, 16, 30, wish->tunnel);
	read_tunnel_subnet(&wish->form, "tunnel_subnet6", wish->tunnel_subnet6, AF_INET6, 48, 120,
			   wish->tunnel6);
}

static int check_tunnel_overlap(struct request *request, struct response *response, const struct wish *wish,
				const char *field, const char *subnet)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows,
		     "SELECT s.cidr FROM gateway.subnet s WHERE s.owner = $1 AND s.vpc = $2 AND s.cidr::inet "
		     "&& $3::inet "
		     "ORDER BY s.cidr LIMIT 1",
		     wish->gateway.owner, wish->vpc_id, subnet);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 409, field,
		      "%s %s overlaps subnet %s of VPC %.63s; accepted is a network that overlaps none of "
		      "its subnets",
		      field, subnet, db_value(rows, 0, "cidr"), wish->vpc_name);
}

/* ---- all of it ---- */

static int read_wish(struct request *request, struct response *response, struct wish *wish)
{
	struct form *form = &wish->form;

	*form = form_of(request, response);
	wish->vpc = form_text(form, "vpc", OPTIONAL, 200);
	wish->plan = form_text(form, "plan", OPTIONAL, 63);
	wish->name = form_name(form, "name", OPTIONAL);
	wish->public_subnet = form_text(form, "public_subnet", OPTIONAL, CIDR_TEXT_SIZE);
	wish->tunnel_subnet = form_text(form, "tunnel_subnet", OPTIONAL, CIDR_TEXT_SIZE);
	wish->tunnel_subnet6 = form_text(form, "tunnel_subnet6", OPTIONAL, CIDR_TEXT_SIZE);
	wish->listen_port = form_integer(form, "listen_port", OPTIONAL, 1, 65535);
	wish->masquerade = form_choice(form, "masquerade_into_vpc", OPTIONAL, masquerades);
	read_tunnel_subnets(wish);
	return form_end(form);
}

static int check_wish(struct request *request, struct response *response, struct wish *wish)
{
	int r = check_vpc(request, response, wish);

	if (r == 0)
		r = choose_plan(request, response, wish);
	if (r == 0)
		r = choose_subnet(request, response, wish);
	if (r == 0)
		r = check_tunnel_overlap(request, response, wish, "tunnel_subnet", wish->tunnel);
	if (r == 0)
		r = check_tunnel_overlap(request, response, wish, "tunnel_subnet6", wish->tunnel6);
	return r;
}

/* G3: one conditional UPDATE, so that requests at once cannot pass the limit together. */
static int take_place(struct request *request, struct response *response, const char *owner)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_EXECUTE(request->db,
		       "UPDATE gateway.account SET gateways = gateways + 1 "
		       "WHERE owner = $1 AND (max_gateways = 0 OR gateways < max_gateways)",
		       owner);
	if (r != 0)
		return r < 0 ? r : 0;
	r = DB_QUERY(request->db, &row,
		     "SELECT u.name, a.gateways, a.max_gateways FROM gateway.account a "
		     "JOIN gateway.app_user u ON u.id = a.owner WHERE a.owner = $1",
		     owner);
	if (r < 0)
		return r;
	return refuse(response, 422, "max_gateways",
		      "max_gateways of user %.63s is %s and %s gateways exist; accepted is one more only "
		      "after deleting one, or "
		      "with a higher limit from the operator",
		      db_value(row, 0, "name"), db_value(row, 0, "max_gateways"),
		      db_value(row, 0, "gateways"));
}

/* Blank: the VPC's name, so that "prod" is also the gateway of prod; with a number where that is taken. */
static int generate_name(struct request *request, struct wish *wish)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	if (wish->name)
		return 0;
	r = DB_QUERY(request->db, &row,
		     "SELECT c.name FROM generate_series(1, 10000) n, LATERAL (SELECT CASE n WHEN 1 THEN $2 "
		     "ELSE left($2, 57) || '-' || n END AS name) c WHERE NOT EXISTS (SELECT FROM "
		     "gateway.gateway g "
		     "WHERE g.owner = $1 AND g.name = c.name AND g.status <> 'deleted') ORDER BY n LIMIT 1",
		     wish->gateway.owner, wish->vpc_name);
	if (r < 0)
		return r;
	snprintf(wish->generated_name, sizeof(wish->generated_name), "%s", PQgetvalue(row, 0, 0));
	wish->name = wish->generated_name;
	return 0;
}

static int insert_gateway(struct request *request, const struct wish *wish)
{
	int r;

	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.gateway (owner, id, name, vpc, public_subnet, location, plan, "
		       "tunnel_subnet, "
		       "tunnel_subnet6, listen_port, masquerade) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, "
		       "coalesce($10::integer, 51820), coalesce($11, 'road_warriors'))",
		       wish->gateway.owner, wish->gateway.id, wish->name, wish->vpc_id, wish->subnet_id,
		       wish->location, wish->plan_id, wish->tunnel, wish->tunnel6, wish->listen_port,
		       wish->masquerade);
	if (r >= 0)
		r = DB_EXECUTE(request->db, "SELECT billing.take_bucket($1, $2)", wish->gateway.owner,
			       wish->gateway.id);
	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "INSERT INTO gateway.job (gateway, owner, attempt, goal, deadline) "
			       "VALUES ($2, $1, 1, 'active', now() + interval '" DEPLOY_DEADLINE "')",
			       wish->gateway.owner, wish->gateway.id);
	if (r >= 0)
		r = DB_EXECUTE(request->db, "SELECT pg_notify('wiretoll_job', $1)", wish->gateway.id);
	return r < 0 ? r : 0;
}

/* Last of all: orders at once wait for each other here, and exactly as many succeed as there are addresses.
 */
static int promise_address(struct request *request, struct response *response, const struct wish *wish)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row,
		     "SELECT gateway.promise_address($1, $2) AS ip, s.cidr, host(s.range_first) || '-' || "
		     "host(s.range_last) AS range FROM gateway.subnet s WHERE s.owner = $1 AND s.id = $3",
		     wish->gateway.owner, wish->gateway.id, wish->subnet_id);
	if (r < 0 || db_value(row, 0, "ip"))
		return r;
	return refuse(
		response, 409, "public_subnet",
		"public_subnet %s has no free address: all of its gateway_range %s are taken, or rest for "
		"10 minutes after use",
		db_value(row, 0, "cidr"), db_value(row, 0, "range"));
}

int create_gateway(struct request *request, struct response *response)
{
	struct wish wish = {0};
	int r;

	uuid_generate(wish.gateway.id);
	r = read_wish(request, response, &wish);
	if (r == 0)
		r = find_wished_vpc(request, response, &wish);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = check_wish(request, response, &wish);
	if (r == 0)
		r = take_place(request, response, wish.gateway.owner);
	if (r == 0)
		r = generate_name(request, &wish);
	if (r == 0)
		r = insert_gateway(request, &wish);
	if (r == 0)
		r = audit(request, "create", wish.name, wish.gateway.owner, request->body);
	if (r == 0)
		r = promise_address(request, response, &wish);
	if (r == 0)
		r = answer_gateway(request, response, 201, &wish.gateway);
	return r < 0 ? r : db_commit(request->db);
}
