// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll user login-token, session list */
#include "cli/commands.h"
#include "cli/resource.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The token alone on standard output, ready for a pipe into `wiretoll login`. */
int run_user_login_token(struct session *session, const struct command *command,
			 const struct arguments *arguments)
{
	_cleanup_free_ char *path = path_format("/v1/users/%s/login-token", arguments->positional[0]);
	_cleanup_json_ json_t *answer = NULL;
	const char *token;
	int r;

	(void)command;
	if (!path)
		return session_no_memory(session);
	r = session_call(session, "POST", path, NULL, &answer);
	if (r < 0)
		return r;
	if (argument_given(arguments, "json"))
		return print_object(session, arguments, answer);
	token = json_string_value(json_object_get(answer, "one_time_token"));
	if (!token)
		return session_fail(session, -EBADMSG, "the server's answer has no one_time_token");
	puts(token);
	return 0;
}

int run_session_list(struct session *session, const struct command *command,
		     const struct arguments *arguments)
{
	const char *user = argument_value(arguments, "user");
	_cleanup_free_ char *path =
		user ? path_format("/v1/sessions?user=%s", user) : strdup(command->resource->path);

	return list_path(session, arguments, path, command->resource->columns);
}
