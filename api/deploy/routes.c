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

#define STRINGIFY(x) #x
#define TEXT_OF(x)   STRINGIFY(x)

static int query(const char *netns, const struct cidr *via, json_t **ret_routes)
{
	char text[CIDR_TEXT_SIZE];
	const char *arguments[] = {via->family == AF_INET ? "-4" : "-6",
				   "route",
				   "show",
				   "via",
				   cidr_format_address(via, text),
				   "proto",
				   TEXT_OF(ROUTES_PROTOCOL),
				   NULL};

	return ip_query(netns, arguments, ret_routes);
}

static bool wanted(const struct deploy_spec *spec, const struct cidr *destination)
{
	for (size_t i = 0; i < spec->n_routes; i++)
		if (cidr_equal(&spec->routes[i], destination))
			return true;
	return false;
}

static int add_removals(struct ip_batch *batch, const json_t *present, const struct deploy_spec *spec,
			bool all, const char *via)
{
	const json_t *route;
	size_t index;

	json_array_foreach (present, index, route) {
		const char *text = json_string_value(json_object_get(route, "dst"));
		struct cidr destination;

		if (!text || cidr_parse(text, &destination) < 0)
			return -EPROTO;
		if (all || !wanted(spec, &destination))
			ip_batch_add(batch, "route delete %s via %s proto %d", text, via, ROUTES_PROTOCOL);
	}
	return 0;
}

static int sync_one(const struct deploy_spec *spec, const struct cidr *address, const char *netns,
		    bool remove, char *error, size_t error_size)
{
	_cleanup_ip_ struct ip_batch batch = {0};
	_cleanup_json_ json_t *present = NULL;
	char via[CIDR_TEXT_SIZE], text[CIDR_TEXT_SIZE];
	int r = query(netns, address, &present);

	cidr_format_address(address, via);
	if (r == 0)
		r = add_removals(&batch, present, spec, remove, via);
	if (r < 0) {
		snprintf(error, error_size, "routes in %s: %s", netns ? netns : "the host", strerror(-r));
		return r;
	}
	for (size_t i = 0; i < spec->n_routes && !remove; i++)
		if (spec->routes[i].family == address->family)
			ip_batch_add(&batch, "route replace %s via %s proto %d",
				     cidr_format(&spec->routes[i], text), via, ROUTES_PROTOCOL);
	return ip_batch_run(&batch, netns, error, error_size);
}

int routes_sync(const struct deploy_spec *spec, bool remove, char *error, size_t error_size)
{
	int first = 0;

	for (size_t i = 0; i < spec->n_vpcs; i++) {
		const struct deploy_link *link = &spec->vpcs[i];

		for (size_t n = 0; n < link->n_route_netns; n++) {
			const char *name = link->route_netns[n];
			char path[PATH_MAX], reason[PATH_MAX + 128];
			int r;

			netns_path(name, path);
			if (remove && name[0] && access(path, F_OK) < 0)
				continue;
			r = sync_one(spec, &link->address, name[0] ? path : NULL, remove, reason,
				     sizeof(reason));
			if (r < 0 && first == 0) {
				first = r;
				snprintf(error, error_size, "%.*s", (int)error_size - 1, reason);
			}
		}
	}
	return first;
}
