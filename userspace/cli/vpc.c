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

static int copy_subnets(const json_t *vpc, json_t *to)
{
	static const char *const members[] = {"cidr",   "public",     "gateway_range",
					      "router", "attachment", NULL};
	json_t *subnets = json_array();
	const json_t *subnet;
	size_t index;

	if (json_object_set_new(to, "subnets", subnets) < 0)
		return -ENOMEM;
	json_array_foreach (json_object_get(vpc, "subnets"), index, subnet) {
		json_t *copy = json_object();

		if (json_array_append_new(subnets, copy) < 0 || copy_members(subnet, members, copy) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* A VPC is replaced as a whole: what is there, with the given fields over it. */
int run_vpc_edit(struct session *session, const struct command *command, const struct arguments *arguments)
{
	static const char *const members[] = {"name", "owner", "location", NULL};
	_cleanup_json_ json_t *vpc = NULL, *body = json_object(), *changes = NULL;
	_cleanup_free_ char *path = path_format("/v1/vpcs/%s", arguments->positional[0]);
	_cleanup_free_ char *id_path = NULL;
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
	id = json_string_value(json_object_get(vpc, "id"));
	if (!id)
		return session_fail(session, -EBADMSG, "the server's answer has no id");
	id_path = path_format("/v1/vpcs/%s", id);
	if (copy_members(vpc, members, body) < 0 || copy_subnets(vpc, body) < 0 ||
	    json_object_update(body, changes) < 0)
		return session_no_memory(session);
	return send_and_show(session, arguments, "PUT", id_path, body);
}
