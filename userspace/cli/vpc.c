// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll vpc edit, vpc put */
#include "cli/commands.h"
#include "cli/resource.h"

#include <errno.h>
#include <stdlib.h>

int run_vpc_put(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = path_format("/v1/vpcs/%s", arguments->positional[0]);
	_cleanup_json_ json_t *body = NULL;
	int r;

	(void)command;
	r = request_body(session, arguments, &body);
	return r < 0 ? r : send_and_show(session, arguments, "PUT", path, body);
}

/* Keeps the members of `object` that a request may carry. */
static int copy_members(const json_t *object, const char *const *members, json_t *to)
{
	for (; *members; members++) {
		json_t *value = json_object_get(object, *members);

		if (value && json_object_set(to, *members, value) < 0)
			return -ENOMEM;
	}
	return 0;
}

/*
 * An attachment without a hypervisor is one to all of the location, so a subnet that is attached the same way
 * to several is sent back without. Returns -EINVAL when they differ: one request cannot say that.
 */
static int copy_attachment(const json_t *subnet, json_t *to)
{
	const json_t *attachments = json_object_get(subnet, "attachments"), *other;
	json_t *first = json_array_get(attachments, 0), *common;
	size_t index;

	if (!first)
		return json_object_set_new(to, "attachment", json_null());
	common = json_copy(first);
	if (json_object_set_new(to, "attachment", common) < 0)
		return -ENOMEM;
	if (json_array_size(attachments) == 1)
		return 0;
	json_array_foreach (attachments, index, other) {
		if (!json_equal(json_object_get(other, "bridge"), json_object_get(first, "bridge")) ||
		    !json_equal(json_object_get(other, "route_netns"), json_object_get(first, "route_netns")))
			return -EINVAL;
	}
	(void)json_object_del(common, "hypervisor");
	return 0;
}

static int copy_subnets(const json_t *vpc, json_t *to)
{
	static const char *const members[] = {"cidr",   "public",     "gateway_range",
					      "router", "attachment", NULL};
	json_t *subnets = json_array();
	const json_t *subnet;
	size_t index;
	int r;

	if (json_object_set_new(to, "subnets", subnets) < 0)
		return -ENOMEM;
	json_array_foreach (json_object_get(vpc, "subnets"), index, subnet) {
		json_t *copy = json_object();

		if (json_array_append_new(subnets, copy) < 0 || copy_members(subnet, members, copy) < 0)
			return -ENOMEM;
		r = copy_attachment(subnet, copy);
		if (r < 0)
			return r == -EINVAL ? r : -ENOMEM;
	}
	return 0;
}

static int make_edit(struct session *session, const json_t *vpc, const json_t *changes, json_t **ret_body)
{
	static const char *const members[] = {"name", "owner", "location", NULL};
	_cleanup_json_ json_t *body = json_object();
	int r = copy_members(vpc, members, body);

	if (r == 0 && !json_object_get(changes, "subnets"))
		r = copy_subnets(vpc, body);
	if (r == -EINVAL)
		return session_fail(
			session, r,
			"a subnet is attached differently to several hypervisors: give all subnets anew");
	if (r < 0 || json_object_update(body, (json_t *)changes) < 0)
		return session_no_memory(session);
	*ret_body = TAKE_PTR(body);
	return 0;
}

/* A VPC is replaced as a whole, by the cloud's own id: what is there, with the given fields over it. */
int run_vpc_edit(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_json_ json_t *vpc = NULL, *body = NULL, *changes = NULL;
	_cleanup_free_ char *path = path_format("/v1/vpcs/%s", arguments->positional[0]), *put_path = NULL;
	const char *id;
	int r;

	(void)command;
	r = request_body(session, arguments, &changes);
	if (r < 0)
		return r;
	if (json_object_size(changes) == 0)
		return session_fail(session, WRONG_USAGE, "nothing to change is given");
	if (!path)
		return session_no_memory(session);
	r = session_call(session, "GET", path, NULL, &vpc);
	if (r < 0)
		return r;
	id = json_string_value(json_object_get(vpc, "external_id"));
	if (!id)
		return session_fail(
			session, -EINVAL,
			"%.200s has no id of the cloud's own and cannot be changed; `wiretoll vpc put` "
			"makes VPCs that can",
			arguments->positional[0]);
	r = make_edit(session, vpc, changes, &body);
	if (r < 0)
		return r;
	put_path = path_format("/v1/vpcs/%s", id);
	return send_and_show(session, arguments, "PUT", put_path, body);
}
