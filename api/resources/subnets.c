// SPDX-License-Identifier: BSD-2-Clause
#include "resources/subnets.h"

#include "base/cidr.h"
#include "resources/address_input.h"
#include "resources/common.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_SUBNETS     64
#define MAX_ROUTE_NETNS 16

struct subnet {
	char where[32]; /* "subnets[1]." */
	struct cidr cidr;
	char text[CIDR_TEXT_SIZE];
	const char *public;
	bool has_range, has_router, has_attachment;
	char first[CIDR_TEXT_SIZE], last[CIDR_TEXT_SIZE], router[CIDR_TEXT_SIZE];
	const char *hypervisor; /* NULL: all of the location */
	const char *bridge;
	char *route_netns; /* an array as PostgreSQL reads it; owned */
};

/* The last address of a prefix. */
static struct cidr last_of(const struct cidr *prefix)
{
	struct cidr last = cidr_network(prefix);

	for (unsigned bit = prefix->prefix_length; bit < cidr_max_length(prefix); bit++)
		last.bytes[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	last.prefix_length = cidr_max_length(prefix);
	return last;
}

/* "A-B", or a prefix. */
static int parse_range(const char *text, struct cidr *ret_first, struct cidr *ret_last)
{
	const char *dash = strchr(text, '-');
	char first[CIDR_TEXT_SIZE];
	struct cidr prefix;

	if (dash) {
		if (dash - text >= (int)sizeof(first))
			return -EINVAL;
		snprintf(first, sizeof(first), "%.*s", (int)(dash - text), text);
		return cidr_parse_address(first, ret_first) < 0 || cidr_parse_address(dash + 1, ret_last) < 0
			       ? -EINVAL
			       : 0;
	}
	if (cidr_parse(text, &prefix) < 0 || !cidr_is_network(&prefix))
		return -EINVAL;
	*ret_first = prefix;
	ret_first->prefix_length = cidr_max_length(&prefix);
	*ret_last = last_of(&prefix);
	return 0;
}

static void read_range(struct form *form, struct subnet *subnet)
{
	const char *text = form_text(form, "gateway_range", OPTIONAL, 2 * CIDR_TEXT_SIZE);
	struct cidr first, last;

	if (!text)
		return;
	if (parse_range(text, &first, &last) < 0 || !cidr_contains(&subnet->cidr, &first) ||
	    !cidr_contains(&subnet->cidr, &last) || cidr_compare(&first, &last) > 0) {
		form_refuse(
			form, "gateway_range",
			"gateway_range is \"%.100s\"; accepted is FIRST-LAST or a CIDR within %s, or null",
			text, subnet->text);
		return;
	}
	subnet->has_range = true;
	cidr_format_address(&first, subnet->first);
	cidr_format_address(&last, subnet->last);
}

/* Neither the network's own address nor the broadcast's, in networks that have those. */
static bool is_host_of(const struct cidr *subnet, const struct cidr *address)
{
	struct cidr first = cidr_network(subnet), last = last_of(subnet);

	first.prefix_length = last.prefix_length;
	if (subnet->family == AF_INET && subnet->prefix_length < 31 &&
	    (cidr_equal(address, &first) || cidr_equal(address, &last)))
		return false;
	return cidr_contains(subnet, address);
}

static void read_router(struct form *form, struct subnet *subnet)
{
	const char *text = form_text(form, "router", OPTIONAL, CIDR_TEXT_SIZE);
	struct cidr router;

	if (!text)
		return;
	if (cidr_parse_address(text, &router) < 0 || !is_host_of(&subnet->cidr, &router)) {
		form_refuse(form, "router",
			    "router is \"%.64s\"; accepted is a host's address within %s, or null", text,
			    subnet->text);
		return;
	}
	subnet->has_router = true;
	cidr_format_address(&router, subnet->router);
}

static void read_cidr(struct form *form, struct subnet *subnet)
{
	const char *text = form_text(form, "cidr", REQUIRED, CIDR_TEXT_SIZE);

	if (!text)
		return;
	if (cidr_parse(text, &subnet->cidr) < 0 || !cidr_is_network(&subnet->cidr) || !strchr(text, '/')) {
		form_refuse(form, "cidr",
			    "cidr is \"%.64s\"; accepted is a network such as 10.1.0.0/24, with no bit set "
			    "beyond the prefix",
			    text);
		return;
	}
	if (check_network(form, "cidr", "cidr", &subnet->cidr, SPECIAL_UNUSABLE, ACCEPTED_NETWORK))
		cidr_format(&subnet->cidr, subnet->text);
}

/* "" is the host itself; else a name or path of a namespace under /run/netns. */
static bool is_netns(const char *text)
{
	static const char folder[] = "/run/netns/";

	if (!*text)
		return true;
	if (strncmp(text, folder, strlen(folder)) == 0)
		text += strlen(folder);
	if (!isalnum((unsigned char)*text) && *text != '_')
		return false;
	for (size_t i = 0; text[i]; i++) {
		if (i > 63 || (!isalnum((unsigned char)text[i]) && !strchr("_.-", text[i])))
			return false;
	}
	return true;
}

/* Writes {"a","b"}; is_netns() has let no character through that would have to be escaped. */
static char *array_text(const json_t *names)
{
	size_t index, size = 0;
	const json_t *name;
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fputc('{', out);
	json_array_foreach (names, index, name)
		fprintf(out, "%s\"%s\"", index ? "," : "", json_string_value(name));
	fputc('}', out);
	return fclose(out) == 0 ? text : NULL;
}

static void read_route_netns(struct form *form, struct subnet *subnet)
{
	const json_t *names = form_array(form, "route_netns", OPTIONAL), *name;
	size_t index;

	json_array_foreach (names, index, name) {
		const char *text = json_string_value(name);
		char shown[ITEM_TEXT_SIZE];

		if (!text || !is_netns(text) || index >= MAX_ROUTE_NETNS) {
			form_refuse(form, "route_netns",
				    "route_netns[%zu] is %s; accepted are up to %d names of "
				    "namespaces under /run/netns, or "
				    "\"\" for the host",
				    index, show_item(name, shown), MAX_ROUTE_NETNS);
			return;
		}
	}
	subnet->route_netns = array_text(names);
}

/* What Linux takes, but for characters that would need quoting somewhere; "lo" is no bridge. */
static bool is_bridge_name(const char *text)
{
	for (size_t i = 0; text[i]; i++) {
		if (i >= 15 || (!isalnum((unsigned char)text[i]) && !strchr("_.-", text[i])))
			return false;
	}
	return (isalnum((unsigned char)*text) || *text == '_') && strcmp(text, "lo") != 0 &&
	       strcmp(text, "all") != 0 && strcmp(text, "default") != 0;
}

static int read_attachment(struct form *outer, struct subnet *subnet)
{
	const json_t *object = form_object(outer, "attachment", OPTIONAL);
	char where[48];
	struct form form;

	if (!object || outer->error < 0)
		return outer->error;
	snprintf(where, sizeof(where), "%sattachment.", subnet->where);
	form = form_within(object, where, outer->response);
	subnet->has_attachment = true;
	subnet->hypervisor = form_text(&form, "hypervisor", OPTIONAL, 63);
	subnet->bridge = form_text(&form, "bridge", REQUIRED, 64);
	if (subnet->bridge && !is_bridge_name(subnet->bridge))
		form_refuse(&form, "bridge",
			    "bridge is \"%.64s\"; accepted is an interface's name: 1 to 15 of a-z, A-Z, 0-9, "
			    "\"_\", \".\", \"-\", beginning with one of the first four and other than lo, "
			    "all and "
			    "default",
			    subnet->bridge);
	read_route_netns(&form, subnet);
	return form_end(&form);
}

static int read_subnet(const json_t *object, size_t index, struct response *response, struct subnet *subnet)
{
	char shown[ITEM_TEXT_SIZE];
	struct form form;
	int r;

	snprintf(subnet->where, sizeof(subnet->where), "subnets[%zu].", index);
	if (!json_is_object(object))
		return refuse(response, 422, "subnets",
			      "subnets[%zu] is %s; accepted are objects with a cidr", index,
			      show_item(object, shown));
	form = form_within(object, subnet->where, response);
	read_cidr(&form, subnet);
	subnet->public = form_bool(&form, "public", OPTIONAL);
	if (form.error == 0) {
		read_range(&form, subnet);
		read_router(&form, subnet);
	}
	r = read_attachment(&form, subnet);
	return r < 0 ? r : form_end(&form);
}

static int check_overlaps(struct response *response, const struct subnet *subnets, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		for (size_t j = 0; j < i; j++) {
			if (cidr_overlaps(&subnets[i].cidr, &subnets[j].cidr))
				return refuse(response, 409, "subnets",
					      "%scidr %s overlaps %scidr %s; accepted are subnets that do "
					      "not overlap",
					      subnets[i].where, subnets[i].text, subnets[j].where,
					      subnets[j].text);
		}
	}
	return 0;
}

/* P7, seen from the VPC's side. */
static int check_gateway_overlap(struct request *request, struct response *response, const struct owned *vpc,
				 const struct subnet *subnet)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows,
		     "SELECT g.name, 'tunnel subnet ' || t AS what FROM gateway.gateway g, "
		     "unnest(ARRAY[g.tunnel_subnet, "
		     "g.tunnel_subnet6]) t WHERE g.owner = $1 AND g.vpc = $2 AND g.status <> 'deleted' AND "
		     "t::inet && $3::inet "
		     "UNION ALL SELECT g.name, x.cidr || ' of peer ' || p.name FROM gateway.gateway g "
		     "JOIN gateway.prefix x ON x.owner = g.owner AND x.gateway = g.id AND x.freed IS NULL "
		     "JOIN gateway.peer p ON p.owner = x.owner AND p.gateway = x.gateway AND p.id = x.peer "
		     "WHERE g.owner = $1 AND g.vpc = $2 AND g.status <> 'deleted' AND x.cidr::inet && "
		     "$3::inet LIMIT 1",
		     vpc->owner, vpc->id, subnet->text);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 409, "subnets", "%scidr %s overlaps %s of gateway %s", subnet->where,
		      subnet->text, db_value(rows, 0, "what"), db_value(rows, 0, "name"));
}

/* A subnet that is not named any more goes, unless the VPC's gateway stands in it. */
static int remove_others(struct request *request, struct response *response, const struct owned *vpc,
			 const struct subnet *subnets, size_t n)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows,
		     "SELECT s.id, s.cidr, (SELECT g.name || ' (' || g.id || ')' FROM gateway.gateway g "
		     "WHERE g.owner = s.owner AND "
		     "g.vpc = s.vpc "
		     "AND g.status <> 'deleted') AS gateway FROM gateway.subnet s WHERE s.owner = $1 AND "
		     "s.vpc = $2",
		     vpc->owner, vpc->id);
	for (int row = 0; r == 0 && row < PQntuples(rows); row++) {
		const char *cidr = db_value(rows, row, "cidr");
		bool stays = false;

		for (size_t i = 0; i < n && !stays; i++)
			stays = strcmp(subnets[i].text, cidr) == 0;
		if (stays)
			continue;
		if (db_value(rows, row, "gateway"))
			return refuse(response, 409, "subnets",
				      "subnet %s is in use by gateway %s and cannot be removed", cidr,
				      db_value(rows, row, "gateway"));
		r = DB_EXECUTE(request->db, "DELETE FROM gateway.subnet WHERE owner = $1 AND id = $2",
			       vpc->owner, db_value(rows, row, "id"));
		r = r < 0 ? r : 0;
	}
	return r;
}

static int refuse_attachment(struct response *response, const struct subnet *subnet, const char *field)
{
	if (subnet->hypervisor)
		return refuse(
			response, 422, field,
			"%s is \"%.64s\", which is not in the VPC's location; accepted is a hypervisor of "
			"it (GET /v1/hypervisors)",
			field, subnet->hypervisor);
	return refuse(
		response, 422, field,
		"%sattachment: the VPC's location has no hypervisor yet that could be attached to bridge "
		"%.15s; accepted is null until it has one",
		subnet->where, subnet->bridge);
}

static int store_attachments(struct request *request, struct response *response, const struct owned *vpc,
			     const struct subnet *subnet, const char *id)
{
	char hypervisor[UUID_TEXT_SIZE] = "", field[64];
	int r;

	r = DB_EXECUTE(request->db, "DELETE FROM gateway.attachment WHERE owner = $1 AND subnet = $2",
		       vpc->owner, id);
	if (r < 0 || !subnet->has_attachment)
		return r < 0 ? r : 0;
	snprintf(field, sizeof(field), "%sattachment.hypervisor", subnet->where);
	if (subnet->hypervisor) {
		r = find_noun(request, response, HYPERVISOR, field, subnet->hypervisor, hypervisor);
		if (r < 0)
			return r;
	}
	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.attachment (owner, subnet, hypervisor, bridge, route_netns) "
		       "SELECT v.owner, $2, h.id, $4, coalesce($5::text[], '{}') FROM gateway.vpc v "
		       "JOIN gateway.hypervisor h ON h.location = v.location "
		       "WHERE v.owner = $1 AND v.id = $3 AND ($6::uuid IS NULL OR h.id = $6::uuid)",
		       vpc->owner, id, vpc->id, subnet->bridge, subnet->route_netns, or_null(hypervisor));
	if (r == 0)
		return refuse_attachment(response, subnet, field);
	return r < 0 ? r : 0;
}

static int store_subnet(struct request *request, struct response *response, const struct owned *vpc,
			const struct subnet *subnet)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = check_gateway_overlap(request, response, vpc, subnet);
	if (r < 0)
		return r;
	r = DB_QUERY(request->db, &row,
		     "WITH changed AS (UPDATE gateway.subnet SET public = coalesce($4::boolean, false), "
		     "range_first = $5::inet, "
		     "range_last = $6::inet, router = $7::inet WHERE owner = $1 AND vpc = $2 AND cidr = "
		     "$3::cidr RETURNING id), "
		     "added AS (INSERT INTO gateway.subnet (owner, vpc, cidr, public, range_first, "
		     "range_last, router) "
		     "SELECT $1, $2, $3::cidr, coalesce($4::boolean, false), $5::inet, $6::inet, $7::inet "
		     "WHERE NOT EXISTS (SELECT FROM changed) RETURNING id) "
		     "SELECT id FROM changed UNION ALL SELECT id FROM added",
		     vpc->owner, vpc->id, subnet->text, subnet->public,
		     subnet->has_range ? subnet->first : NULL, subnet->has_range ? subnet->last : NULL,
		     subnet->has_router ? subnet->router : NULL);
	return r < 0 ? r : store_attachments(request, response, vpc, subnet, PQgetvalue(row, 0, 0));
}

/* A gateway keeps its public subnet whatever the mirror says. */
static int check_public(struct request *request, struct response *response, const struct owned *vpc)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(
		request->db, &rows,
		"SELECT g.name, s.cidr FROM gateway.gateway g JOIN gateway.subnet s ON s.owner = g.owner "
		"AND s.id = g.public_subnet WHERE g.owner = $1 AND g.vpc = $2 AND g.status <> 'deleted' "
		"AND NOT (s.public AND s.range_first IS NOT NULL)",
		vpc->owner, vpc->id);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 409, "subnets",
		      "subnet %s is the public subnet of gateway %s: it has to stay public, with "
		      "a gateway_range",
		      db_value(rows, 0, "cidr"), db_value(rows, 0, "name"));
}

static int store_all(struct request *request, struct response *response, const struct owned *vpc,
		     const struct subnet *subnets, size_t n)
{
	int r = check_overlaps(response, subnets, n);

	if (r == 0)
		r = remove_others(request, response, vpc, subnets, n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = store_subnet(request, response, vpc, &subnets[i]);
	return r < 0 ? r : check_public(request, response, vpc);
}

int replace_subnets(struct request *request, struct response *response, const struct owned *vpc,
		    const json_t *subnets)
{
	size_t n = json_array_size(subnets);
	struct subnet *read;
	int r = 0;

	if (!subnets)
		return 0;
	if (n > MAX_SUBNETS)
		return refuse(response, 422, "subnets", "subnets has %zu items; accepted are up to %d", n,
			      MAX_SUBNETS);
	read = calloc(n + 1, sizeof(*read));
	if (!read)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = read_subnet(json_array_get(subnets, i), i, response, &read[i]);
	if (r == 0)
		r = store_all(request, response, vpc, read, n);
	for (size_t i = 0; i < n; i++)
		free(read[i].route_netns);
	free(read);
	return r;
}
