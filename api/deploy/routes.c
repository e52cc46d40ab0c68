// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/routes.h"
#include "base/ip.h"
#include "base/json.h"
#include "deploy/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHORTEST 7 /* fc00::/7 is the largest network that anybody has */

#define STRINGIFY(x) #x
#define TEXT_OF(x)   STRINGIFY(x)

/* One namespace's routes over one address of the gateway. */
struct table {
	const struct deploy_spec *spec;
	const char *netns; /* its path; NULL: the host */
	const char *name;
	int family;
	char via[CIDR_TEXT_SIZE];
	routes_refused_fn refused;
	void *data;
	char *error;
	size_t error_size;
};

static const char *family_option(const struct table *table)
{
	return table->family == AF_INET ? "-4" : "-6";
}

static int fail(const struct table *table, int error)
{
	snprintf(table->error, table->error_size, "routes in %s: %s", table->netns ? table->name : "the host",
		 strerror(-error));
	return error;
}

/* Ours, with one of our protocols. */
static int query_ours(const struct table *table, const char *protocol, json_t **ret_routes)
{
	const char *arguments[] = {family_option(table), "route", "show",   "via",
				   table->via,           "proto", protocol, NULL};

	return ip_query(table->netns, arguments, ret_routes);
}

static bool wanted(const struct deploy_spec *spec, const struct cidr *destination)
{
	for (size_t i = 0; i < spec->n_routes; i++)
		if (cidr_equal(&spec->routes[i], destination))
			return true;
	return false;
}

static bool is_listed(const json_t *routes, const struct cidr *destination)
{
	const json_t *route;
	struct cidr cidr;
	size_t index;

	json_array_foreach (routes, index, route) {
		const char *text = json_string_value(json_object_get(route, "dst"));

		if (text && cidr_parse(text, &cidr) == 0 && cidr_equal(&cidr, destination))
			return true;
	}
	return false;
}

/* What is no longer wanted goes; what an earlier version marked gets today's mark. */
static int add_changes(const struct table *table, struct ip_batch *batch, const json_t *present, int protocol,
		       bool remove_all)
{
	const json_t *route;
	size_t index;

	json_array_foreach (present, index, route) {
		const char *text = json_string_value(json_object_get(route, "dst"));
		struct cidr destination;

		if (!text || cidr_parse(text, &destination) < 0)
			return -EPROTO;
		if (remove_all || !wanted(table->spec, &destination))
			ip_batch_add(batch, "route delete %s via %s proto %d", text, table->via, protocol);
		else if (protocol == ROUTES_PROTOCOL_OLD)
			ip_batch_add(batch, "route replace %s via %s proto %d", text, table->via,
				     ROUTES_PROTOCOL);
	}
	return 0;
}

/* Neither a network of anybody's, nor so large that it would be most of the others': whatever the queue says.
 */
static bool is_never_routed(const struct cidr *destination)
{
	static const char *const special[] = {"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
					      "::/8",      "fe80::/10",   "ff00::/8"};
	struct cidr range;

	if (destination->prefix_length < SHORTEST)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(special); i++)
		if (cidr_parse(special[i], &range) == 0 &&
		    (cidr_contains(&range, destination) || cidr_contains(destination, &range)))
			return true;
	return false;
}

/* The networks that the namespace is attached to itself. */
static int query_attached(const struct table *table, json_t **ret_routes)
{
	const char *arguments[] = {family_option(table), "route", "show", "proto", "kernel", NULL};

	return ip_query(table->netns, arguments, ret_routes);
}

static bool is_attached(const json_t *attached, const struct cidr *destination)
{
	const json_t *route;
	struct cidr network;
	size_t index;

	json_array_foreach (attached, index, route) {
		const char *text = json_string_value(json_object_get(route, "dst"));

		if (text && cidr_parse(text, &network) == 0 && cidr_contains(&network, destination))
			return true;
	}
	return false;
}

/* Any route to exactly this destination, whatever its metric: ours would go before it. */
static int query_same(const struct table *table, const char *destination, json_t **ret_routes)
{
	const char *arguments[] = {family_option(table), "route", "show", "exact", destination, NULL};

	return ip_query(table->netns, arguments, ret_routes);
}

/* Without the namespace's name, which is the operator's: the gateway's owner sees it. */
static void refuse_route(const struct table *table, const char *destination, const char *reason)
{
	char what[CIDR_TEXT_SIZE + 8];

	snprintf(what, sizeof(what), "route %s", destination);
	if (table->refused)
		table->refused(what, reason, table->data);
}

/* Never in place of another one: the kernel refuses to add what is there, and the check finds what it does
 * not compare. */
static int add_one(const struct table *table, const struct cidr *destination, const json_t *attached)
{
	_cleanup_json_ json_t *same = NULL;
	_cleanup_ip_ struct ip_batch batch = {0};
	char text[CIDR_TEXT_SIZE];
	int r;

	cidr_format(destination, text);
	if (is_never_routed(destination) || is_attached(attached, destination)) {
		refuse_route(table, text,
			     is_never_routed(destination) ? "no network that a gateway may have"
							  : "in a network that is attached there itself");
		return 0;
	}
	r = query_same(table, text, &same);
	if (r < 0)
		return fail(table, r);
	if (json_array_size(same) > 0) {
		refuse_route(table, text, "there is another route to it already");
		return 0;
	}
	ip_batch_add(&batch, "route add %s via %s proto %d", text, table->via, ROUTES_PROTOCOL);
	return ip_batch_run(&batch, table->netns, table->error, table->error_size);
}

static int add_missing(const struct table *table, const json_t *ours, const json_t *old)
{
	_cleanup_json_ json_t *attached = NULL;
	int r = query_attached(table, &attached);

	if (r < 0)
		return fail(table, r);
	for (size_t i = 0; i < table->spec->n_routes && r == 0; i++) {
		const struct cidr *destination = &table->spec->routes[i];

		if (destination->family == table->family && !is_listed(ours, destination) &&
		    !is_listed(old, destination))
			r = add_one(table, destination, attached);
	}
	return r;
}

static int sync_one(const struct table *table, bool remove)
{
	_cleanup_ip_ struct ip_batch batch = {0};
	_cleanup_json_ json_t *ours = NULL;
	_cleanup_json_ json_t *old = NULL;
	int r = query_ours(table, TEXT_OF(ROUTES_PROTOCOL), &ours);

	if (r == 0)
		r = query_ours(table, TEXT_OF(ROUTES_PROTOCOL_OLD), &old);
	if (r == 0)
		r = add_changes(table, &batch, ours, ROUTES_PROTOCOL, remove);
	if (r == 0)
		r = add_changes(table, &batch, old, ROUTES_PROTOCOL_OLD, remove);
	if (r < 0)
		return fail(table, r);
	r = ip_batch_run(&batch, table->netns, table->error, table->error_size);
	return r == 0 && !remove ? add_missing(table, ours, old) : r;
}

int routes_sync(const struct deploy_spec *spec, bool remove, routes_refused_fn refused, void *data,
		char *error, size_t error_size)
{
	int first = 0;

	for (size_t i = 0; i < spec->n_vpcs; i++) {
		const struct deploy_link *link = &spec->vpcs[i];

		for (size_t n = 0; n < link->n_route_netns; n++) {
			char path[PATH_MAX], reason[PATH_MAX + 128];
			struct table table = {.spec = spec,
					      .name = link->route_netns[n],
					      .family = link->address.family,
					      .refused = refused,
					      .data = data,
					      .error = reason,
					      .error_size = sizeof(reason)};
			int r;

			netns_path(table.name, path);
			if (remove && table.name[0] && access(path, F_OK) < 0)
				continue;
			table.netns = table.name[0] ? path : NULL;
			cidr_format_address(&link->address, table.via);
			r = sync_one(&table, remove);
			if (r < 0 && first == 0) {
				first = r;
				snprintf(error, error_size, "%.*s", (int)error_size - 1, reason);
			}
		}
	}
	return first;
}
