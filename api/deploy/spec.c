// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/spec.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VPC_LINKS 32 /* the interface's number is one character of a link's name */

bool deploy_gateway_id_valid(const char *text)
{
	if (strlen(text) != GATEWAY_ID_SIZE - 1)
		return false;
	for (int i = 0; i < GATEWAY_ID_SIZE - 1; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	}
	return true;
}

static bool name_valid(const char *name, size_t max)
{
	size_t length = strlen(name);

	if (length > max || name[0] == '.' || name[0] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == length;
}

static int read_name(const json_t *object, const char *field, char *buffer, struct json_problem *problem)
{
	const char *text;
	int r = json_require(json_read_string(object, field, &text, problem), field, problem);

	if (r < 0)
		return r;
	if (!text[0] || !name_valid(text, IFNAMSIZ - 1)) {
		json_problem_set(problem, field, "%s \"%.64s\" is not an interface name", field, text);
		return -EINVAL;
	}
	snprintf(buffer, IFNAMSIZ, "%s", text);
	return 0;
}

static int read_cidr(const json_t *object, const char *field, struct cidr *ret, struct json_problem *problem)
{
	const char *text;
	int r = json_read_string(object, field, &text, problem);

	if (r < 0)
		return r;
	if (cidr_parse(text, ret) < 0) {
		json_problem_set(problem, field, "%s \"%.64s\" is not ADDRESS/LENGTH", field, text);
		return -EINVAL;
	}
	return 0;
}

static int read_netns_list(const json_t *object, struct deploy_link *link, struct json_problem *problem)
{
	const char *field = "route_netns";
	const json_t *array = NULL, *item;
	size_t index;
	int r = json_read_array(object, field, &array, problem);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	link->route_netns = calloc(json_array_size(array) + 1, sizeof(*link->route_netns));
	if (!link->route_netns)
		return -ENOMEM;
	json_array_foreach (array, index, item) {
		const char *name = json_string_value(item);

		if (!name || !name_valid(name, 255)) {
			json_problem_set(problem, field, "%s \"%.64s\" is not a name under /run/netns", field,
					 name ? name : "?");
			return -EINVAL;
		}
		link->route_netns[link->n_route_netns] = strdup(name);
		if (!link->route_netns[link->n_route_netns])
			return -ENOMEM;
		link->n_route_netns++;
	}
	return 0;
}

static int read_link(const json_t *object, struct deploy_link *link, struct json_problem *problem)
{
	int r = read_name(object, "bridge", link->bridge, problem);

	if (r == 0)
		r = json_require(read_cidr(object, "address", &link->address, problem), "address", problem);
	return r == 0 ? read_netns_list(object, link, problem) : r;
}

static int read_public(struct deploy_spec *spec, struct json_problem *problem)
{
	const json_t *object = NULL;
	int r = json_require(json_read_object(spec->json, "public", &object, problem), "public", problem);

	if (r == 0)
		r = read_link(object, &spec->public_link, problem);
	if (r < 0)
		return r;
	r = read_cidr(object, "router", &spec->router, problem);
	spec->has_router = r == 0;
	return r == -ENOENT ? 0 : r;
}

static int read_vpcs(struct deploy_spec *spec, struct json_problem *problem)
{
	const json_t *array = NULL, *item;
	size_t index;
	int r = json_require(json_read_array(spec->json, "vpcs", &array, problem), "vpcs", problem);

	if (r < 0)
		return r;
	if (json_array_size(array) > MAX_VPC_LINKS) {
		json_problem_set(problem, "vpcs", "vpcs has %zu entries; at most %d are accepted",
				 json_array_size(array), MAX_VPC_LINKS);
		return -EINVAL;
	}
	spec->vpcs = calloc(json_array_size(array) + 1, sizeof(*spec->vpcs));
	if (!spec->vpcs)
		return -ENOMEM;
	json_array_foreach (array, index, item) {
		spec->n_vpcs++;
		r = read_link(item, &spec->vpcs[index], problem);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_routes(struct deploy_spec *spec, struct json_problem *problem)
{
	const json_t *array = NULL, *item;
	size_t index;
	int r = json_read_array(spec->json, "routes", &array, problem);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	spec->routes = calloc(json_array_size(array) + 1, sizeof(*spec->routes));
	if (!spec->routes)
		return -ENOMEM;
	json_array_foreach (array, index, item) {
		const char *text = json_string_value(item);

		if (!text || cidr_parse(text, &spec->routes[index]) < 0) {
			json_problem_set(problem, "routes",
					 "routes has \"%.64s\", which is not ADDRESS/LENGTH",
					 text ? text : "?");
			return -EINVAL;
		}
		spec->n_routes++;
	}
	return 0;
}

static int read_identity(struct deploy_spec *spec, struct json_problem *problem)
{
	const char *gateway;
	int64_t attempt, number;
	int r = json_require(json_read_string(spec->json, "gateway", &gateway, problem), "gateway", problem);

	if (r < 0)
		return r;
	if (!deploy_gateway_id_valid(gateway)) {
		json_problem_set(problem, "gateway", "gateway \"%.64s\" is not a UUID", gateway);
		return -EINVAL;
	}
	snprintf(spec->gateway, sizeof(spec->gateway), "%s", gateway);
	r = json_require(json_read_int(spec->json, "attempt", 1, INT32_MAX, &attempt, problem), "attempt",
			 problem);
	if (r == 0)
		r = json_require(
			json_read_int(spec->json, "uid_number", 1, UID_NUMBERS - 1, &number, problem),
			"uid_number", problem);
	if (r < 0)
		return r;
	spec->attempt = (unsigned)attempt;
	spec->uid_number = (unsigned)number;
	return read_name(spec->json, "interface", spec->interface, problem);
}

int deploy_spec_parse(const char *text, struct deploy_spec **ret_spec, struct json_problem *problem)
{
	_cleanup_spec_ struct deploy_spec *spec = calloc(1, sizeof(*spec));
	int r;

	if (!spec)
		return -ENOMEM;
	spec->json = json_loads(text, 0, NULL);
	if (!json_is_object(spec->json)) {
		json_problem_set(problem, "spec", "spec is not a JSON object");
		return -EINVAL;
	}
	r = read_identity(spec, problem);
	if (r == 0)
		r = read_public(spec, problem);
	if (r == 0)
		r = read_vpcs(spec, problem);
	if (r == 0)
		r = read_routes(spec, problem);
	if (r < 0)
		return r;
	*ret_spec = TAKE_PTR(spec);
	return 0;
}

static void link_free(struct deploy_link *link)
{
	for (size_t i = 0; i < link->n_route_netns; i++)
		free(link->route_netns[i]);
	free(link->route_netns);
}

void deploy_spec_free(struct deploy_spec *spec)
{
	if (!spec)
		return;
	link_free(&spec->public_link);
	for (size_t i = 0; i < spec->n_vpcs; i++)
		link_free(&spec->vpcs[i]);
	free(spec->vpcs);
	free(spec->routes);
	json_decref(spec->json);
	free(spec);
}

void cleanup_spec(struct deploy_spec **spec)
{
	deploy_spec_free(*spec);
}
