// SPDX-License-Identifier: BSD-2-Clause
/* A9: the mirror of the cloud's VPCs. An owner never changes; what is in use is not deleted. */
#include "resources/common.h"
#include "resources/owned.h"
#include "resources/resources.h"
#include "resources/subnets.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// clang-format off
#define ATTACHMENTS(sees_infrastructure)                                                                     \
	"(SELECT json_agg(json_build_object('hypervisor', h.name, 'bridge', a.bridge, "                      \
	"'route_netns', a.route_netns) ORDER BY h.name) FROM gateway.attachment a "                          \
	"JOIN gateway.hypervisor h ON h.id = a.hypervisor "                                                  \
	"WHERE a.owner = s.owner AND a.subnet = s.id AND " sees_infrastructure ")"
#define SUBNET_OBJECT(sees_infrastructure)                                                                   \
	"json_build_object('id', s.id, 'cidr', s.cidr, 'public', s.public, 'gateway_range', "                \
	"host(s.range_first) || '-' || host(s.range_last), 'router', host(s.router), "                       \
	"'attachment', " ATTACHMENTS(sees_infrastructure) "->0, "                                            \
	"'attachments', coalesce(" ATTACHMENTS(sees_infrastructure) ", '[]'))"
#define VPC_OBJECT(sees_infrastructure)                                                                      \
	"json_build_object('id', v.id, 'external_id', v.external_id, 'name', v.name, 'owner', v.owner, "     \
	"'owner_name', (SELECT u.name FROM gateway.app_user u WHERE u.id = v.owner), "                       \
	"'location', v.location, 'location_name', "                                                          \
	"(SELECT l.name FROM gateway.location l WHERE l.id = v.location), 'gateway', (SELECT g.id FROM "     \
	"gateway.gateway g WHERE g.owner = v.owner AND g.vpc = v.id AND g.status <> 'deleted'), "            \
	"'subnets', (SELECT coalesce(json_agg(" SUBNET_OBJECT(sees_infrastructure) " ORDER BY s.cidr), "     \
	"'[]') FROM gateway.subnet s WHERE s.owner = v.owner AND s.vpc = v.id), "                            \
	"'created', " SQL_TIME("v.created") ")"
// clang-format on

struct vpc {
	const char *name, *owner, *location;
	const json_t *subnets;
	char owner_id[UUID_TEXT_SIZE], location_id[UUID_TEXT_SIZE];
};

static int list_vpcs(struct request *request, struct response *response)
{
	const char *params[] = {or_null(request->principal.owner), sees_infrastructure(request)};

	return answer_page(
		request, response,
		"SELECT " VPC_OBJECT("$5::boolean") ", v.name, v.id FROM gateway.vpc v WHERE " SQL_AFTER(
			"v") " AND v.deleted IS NULL AND ($4::uuid IS NULL OR v.owner = "
			     "$4::uuid)" SQL_PAGE("v"),
		ARRAY_SIZE(params), params);
}

static int answer_vpc(struct request *request, struct response *response, unsigned status,
		      const struct owned *vpc)
{
	return ANSWER_OBJECT(
		request, response, status,
		"SELECT " VPC_OBJECT("$3::boolean") " FROM gateway.vpc v WHERE v.owner = $1 AND v.id = $2",
		vpc->owner, vpc->id, sees_infrastructure(request));
}

static int get_vpc(struct request *request, struct response *response)
{
	struct owned vpc;
	int r = find_vpc(request, response, NULL, request->arguments[0], &vpc);

	return r < 0 ? r : answer_vpc(request, response, 200, &vpc);
}

/* An ordinary user: that there are accounts of other roles, and how they are called, is no service's matter.
 */
static int find_customer(struct request *request, struct response *response, struct vpc *vpc)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows,
		     "SELECT id FROM gateway.app_user WHERE role = 'user' AND (id = $2::uuid OR name = $1) "
		     "ORDER BY id = $2::uuid DESC LIMIT 1",
		     vpc->owner, is_uuid(vpc->owner) ? vpc->owner : NULL);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0)
		return refuse(response, 422, "owner",
			      "owner is \"%.64s\"; accepted is the id or name of a user of role user",
			      vpc->owner);
	snprintf(vpc->owner_id, sizeof(vpc->owner_id), "%s", PQgetvalue(rows, 0, 0));
	return 0;
}

/* A service names the owner by Wiretoll-Act-For or in the body; where it does both, they are the same. */
static int resolve_owner(struct request *request, struct response *response, struct vpc *vpc)
{
	const struct principal *who = &request->principal;
	bool service = who->role == ROLE_SERVICE, acts = service && strcmp(who->owner, who->user) != 0;
	int r;

	if (!vpc->owner && acts) {
		snprintf(vpc->owner_id, sizeof(vpc->owner_id), "%s", who->owner);
		return 0;
	}
	if (!vpc->owner)
		return refuse(response, 422, "owner",
			      "owner is required; accepted is the id or name of a user%s",
			      service ? ", here or in Wiretoll-Act-For" : "");
	r = service ? find_customer(request, response, vpc)
		    : find_noun(request, response, USER, "owner", vpc->owner, vpc->owner_id);
	if (r == 0 && acts && strcmp(vpc->owner_id, who->owner) != 0)
		return refuse(response, 422, "owner",
			      "owner is \"%.64s\"; accepted is whom Wiretoll-Act-For names", vpc->owner);
	return r;
}

static int read_vpc(struct request *request, struct response *response, struct vpc *vpc)
{
	struct form form = form_of(request, response);
	int r;

	vpc->name = form_name(&form, "name", REQUIRED);
	vpc->owner = form_text(&form, "owner", OPTIONAL, 63);
	vpc->location = form_text(&form, "location", REQUIRED, 63);
	vpc->subnets = form_array(&form, "subnets", OPTIONAL);
	r = form_end(&form);
	if (r == 0)
		r = resolve_owner(request, response, vpc);
	if (r == 0)
		r = find_noun(request, response, LOCATION, "location", vpc->location, vpc->location_id);
	return r;
}

static int insert_vpc(struct request *request, const struct vpc *vpc, const char *external_id,
		      struct owned *ret)
{
	int r;

	snprintf(ret->owner, sizeof(ret->owner), "%s", vpc->owner_id);
	uuid_generate(ret->id);
	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.vpc (owner, id, external_id, location, name) VALUES ($1, $2, $3, "
		       "$4, $5)",
		       ret->owner, ret->id, external_id, vpc->location_id, vpc->name);
	return r < 0 ? r : 0;
}

/* Subnets, audit, answer. A living gateway is told: its firewall and routes follow the VPC's ranges. */
static int finish(struct request *request, struct response *response, unsigned status, const char *action,
		  const json_t *subnets, const struct owned *id)
{
	_cleanup_result_ PGresult *gateways = NULL;
	int r;

	r = replace_subnets(request, response, id, subnets);
	if (r == 0)
		r = DB_QUERY(request->db, &gateways,
			     "SELECT id FROM gateway.gateway WHERE owner = $1 AND vpc = $2 AND status <> "
			     "'deleted'",
			     id->owner, id->id);
	for (int i = 0; r == 0 && i < PQntuples(gateways); i++) {
		struct owned gateway = *id;

		snprintf(gateway.id, sizeof(gateway.id), "%s", PQgetvalue(gateways, i, 0));
		r = announce_revision(request, &gateway);
	}
	if (r == 0)
		r = audit(request, action, request->path, id->owner, request->body);
	if (r == 0)
		r = answer_vpc(request, response, status, id);
	return r < 0 ? r : db_commit(request->db);
}

static int create_vpc(struct request *request, struct response *response)
{
	struct vpc vpc;
	struct owned id;
	int r;

	r = read_vpc(request, response, &vpc);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = insert_vpc(request, &vpc, NULL, &id);
	return r < 0 ? r : finish(request, response, 201, "create", vpc.subnets, &id);
}

/* The VPC that the cloud's id names: no other request of that id is under way until the transaction ends. */
static int lock_external(struct request *request, const char *external_id, PGresult **ret_rows)
{
	int r = DB_EXECUTE(request->db, "SELECT pg_advisory_xact_lock(hashtext('wiretoll vpc ' || $1))",
			   external_id);

	if (r < 0)
		return r;
	return DB_QUERY(
		request->db, ret_rows,
		"SELECT owner, id, location FROM gateway.vpc WHERE external_id = $1 AND deleted IS NULL",
		external_id);
}

static int update_vpc(struct request *request, struct response *response, const struct vpc *vpc,
		      const PGresult *rows, struct owned *ret)
{
	int r;

	if (strcmp(db_value(rows, 0, "owner"), vpc->owner_id) != 0)
		return refuse(response, 409, "owner",
			      "owner is \"%.64s\" and the VPC is another user's; a VPC's owner "
			      "never changes",
			      vpc->owner ? vpc->owner : vpc->owner_id);
	if (strcmp(db_value(rows, 0, "location"), vpc->location_id) != 0)
		return refuse(response, 409, "location",
			      "location is \"%.64s\" and the VPC is in another one; a VPC's "
			      "location never changes",
			      vpc->location);
	snprintf(ret->owner, sizeof(ret->owner), "%s", vpc->owner_id);
	snprintf(ret->id, sizeof(ret->id), "%s", db_value(rows, 0, "id"));
	r = DB_EXECUTE(request->db, "UPDATE gateway.vpc SET name = $3 WHERE owner = $1 AND id = $2",
		       ret->owner, ret->id, vpc->name);
	return r < 0 ? r : 0;
}

static int put_vpc(struct request *request, struct response *response)
{
	const char *external = external_id(request, response);
	_cleanup_result_ PGresult *rows = NULL;
	struct vpc vpc;
	struct owned id;
	bool exists;
	int r;

	if (!external)
		return -EBADMSG;
	r = read_vpc(request, response, &vpc);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = lock_external(request, external, &rows);
	if (r < 0)
		return r;
	exists = PQntuples(rows) > 0;
	r = exists ? update_vpc(request, response, &vpc, rows, &id)
		   : insert_vpc(request, &vpc, external, &id);
	return r < 0 ? r
		     : finish(request, response, exists ? 200 : 201, exists ? "put" : "create", vpc.subnets,
			      &id);
}

/* A VPC that the cloud names by no id of its own is changed as well; owner and location never are. */
static int change_vpc(struct request *request, struct response *response)
{
	struct form form = form_of(request, response);
	const char *name = form_name(&form, "name", OPTIONAL);
	const json_t *subnets = form_array(&form, "subnets", OPTIONAL);
	struct owned vpc;
	int r;

	r = form_end(&form);
	if (r == 0)
		r = find_vpc(request, response, NULL, request->arguments[0], &vpc);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(
			request->db,
			"UPDATE gateway.vpc SET name = coalesce($3, name) WHERE owner = $1 AND id = $2 "
			"AND deleted IS NULL",
			vpc.owner, vpc.id, name);
	if (r == 0)
		return refuse(response, 404, NULL, "\"%.64s\" has just been deleted", request->arguments[0]);
	return r < 0 ? r : finish(request, response, 200, "change", subnets, &vpc);
}

static int check_no_gateway(struct request *request, struct response *response, const struct owned *vpc)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	/* The lock keeps a gateway from being created meanwhile. */
	r = DB_EXECUTE(request->db, "SELECT 1 FROM gateway.vpc WHERE owner = $1 AND id = $2 FOR UPDATE",
		       vpc->owner, vpc->id);
	if (r >= 0)
		r = DB_QUERY(
			request->db, &rows,
			"SELECT name, id FROM gateway.gateway WHERE owner = $1 AND vpc = $2 AND status <> "
			"'deleted'",
			vpc->owner, vpc->id);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 409, NULL, "\"%.64s\" is in use by gateway %s (%s), and cannot be deleted",
		      request->arguments[0], db_value(rows, 0, "name"), db_value(rows, 0, "id"));
}

static int delete_vpc(struct request *request, struct response *response)
{
	struct owned vpc;
	int r;

	r = find_vpc(request, response, NULL, request->arguments[0], &vpc);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = check_no_gateway(request, response, &vpc);
	if (r == 0)
		r = DB_EXECUTE(request->db, "DELETE FROM gateway.subnet WHERE owner = $1 AND vpc = $2",
			       vpc.owner, vpc.id);
	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "UPDATE gateway.vpc SET deleted = now() WHERE owner = $1 AND id = $2",
			       vpc.owner, vpc.id);
	if (r >= 0)
		r = audit(request, "delete", request->path, vpc.owner, NULL);
	if (r == 0)
		r = db_commit(request->db);
	return r < 0 ? r : answer_nothing(response);
}

const struct route vpc_routes[] = {
	{"GET", "/v1/vpcs", ROLE_CUSTOMER | ROUTE_FOR_USER, list_vpcs, QUERY_PAGE},
	{"POST", "/v1/vpcs", ROLE_ADMIN | ROLE_SERVICE, create_vpc, NULL},
	{"GET", "/v1/vpcs/{vpc}", ROLE_CUSTOMER | ROUTE_FOR_USER, get_vpc, NULL},
	{"PATCH", "/v1/vpcs/{vpc}", ROLE_ADMIN | ROLE_SERVICE | ROUTE_FOR_USER, change_vpc, NULL},
	{"PUT", "/v1/vpcs/{vpc}", ROLE_ADMIN | ROLE_SERVICE, put_vpc, NULL},
	{"DELETE", "/v1/vpcs/{vpc}", ROLE_ADMIN | ROLE_SERVICE | ROUTE_FOR_USER, delete_vpc, NULL},
	{0},
};
