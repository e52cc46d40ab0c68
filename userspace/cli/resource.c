// SPDX-License-Identifier: BSD-2-Clause
#include "cli/resource.h"

#include "base/file.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BODY (1024 * 1024)

static int load_body(struct session *session, const char *path, json_t **ret_body)
{
	_cleanup_json_ json_t *body = NULL;
	_cleanup_secret_ char *text = NULL;
	json_error_t error;
	int r;

	if (strcmp(path, "-") == 0) {
		body = json_loadf(stdin, JSON_REJECT_DUPLICATES, &error);
	} else {
		r = file_read(path, MAX_BODY, &text, NULL);
		if (r < 0)
			return session_fail(session, r, "could not read %s: %s", path, strerror(-r));
		body = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	}
	if (!body)
		return session_fail(session, -EINVAL, "%s, line %d: not JSON", path, error.line);
	if (!json_is_object(body))
		return session_fail(session, -EINVAL, "%s: a JSON object is accepted, and nothing else",
				    path);
	*ret_body = TAKE_PTR(body);
	return 0;
}

int request_body(struct session *session, const struct arguments *arguments, json_t **ret_body)
{
	const char *path = argument_value(arguments, "json-file");
	_cleanup_json_ json_t *body = NULL;
	int r;

	if (path) {
		r = load_body(session, path, &body);
		if (r < 0)
			return r;
	} else {
		body = json_object();
	}
	if (json_object_update(body, arguments->fields) < 0)
		return session_no_memory(session);
	*ret_body = TAKE_PTR(body);
	return 0;
}

static int print_json(struct session *session, const json_t *json)
{
	if (json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) < 0)
		return session_fail(session, -EIO, "could not write the output");
	putchar('\n');
	return 0;
}

int print_object(struct session *session, const struct arguments *arguments, const json_t *object)
{
	if (argument_given(arguments, "json"))
		return print_json(session, object);
	return object_print(stdout, object) < 0 ? session_no_memory(session) : 0;
}

int print_list(struct session *session, const struct arguments *arguments, const char *columns,
	       const json_t *items)
{
	if (argument_given(arguments, "json"))
		return print_json(session, items);
	return table_print(stdout, columns, items) < 0 ? session_no_memory(session) : 0;
}

int send_and_show(struct session *session, const struct arguments *arguments, const char *method,
		  const char *path, const json_t *body)
{
	_cleanup_json_ json_t *object = NULL;
	int r;

	if (!path)
		return session_no_memory(session);
	r = session_call(session, method, path, body, &object);
	if (r < 0 || !object)
		return r;
	return print_object(session, arguments, object);
}

int show_path(struct session *session, const struct arguments *arguments, const char *path)
{
	return send_and_show(session, arguments, "GET", path, NULL);
}

int fetch_list(struct session *session, const struct arguments *arguments, const char *path,
	       json_t **ret_items)
{
	const char *limit_text = argument_value(arguments, "limit");
	int64_t limit = 0;
	bool more;
	int r;

	if (limit_text && (integer_parse(limit_text, &limit) < 0 || limit == 0))
		return session_fail(session, WRONG_USAGE,
				    "--limit is \"%.40s\"; accepted is a whole number from 1", limit_text);
	if (!path)
		return session_no_memory(session);
	r = session_list(session, path, argument_value(arguments, "after"), (uint64_t)limit, ret_items,
			 &more);
	/* Beside the output, which stays a table or JSON and nothing else. */
	if (r == 0 && more)
		fprintf(stderr, "wiretoll: there are more than these %s\n", limit_text);
	return r;
}

int list_path(struct session *session, const struct arguments *arguments, const char *path,
	      const char *columns)
{
	_cleanup_json_ json_t *items = NULL;
	int r;

	r = fetch_list(session, arguments, path, &items);
	return r != 0 ? r : print_list(session, arguments, columns, items);
}

static char *object_path(const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *name = path_format("%s", arguments->positional[0]);
	char *path = NULL;

	if (!name || asprintf(&path, "%s/%s", command->resource->path, name) < 0)
		return NULL;
	return path;
}

int run_list(struct session *session, const struct command *command, const struct arguments *arguments)
{
	return list_path(session, arguments, command->resource->path, command->resource->columns);
}

int run_show(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = object_path(command, arguments);

	return show_path(session, arguments, path);
}

int run_create(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = request_body(session, arguments, &body);
	if (r < 0)
		return r;
	if (arguments->positional_count > 0 &&
	    json_object_set_new(body, "name", json_string(arguments->positional[0])) < 0)
		return session_fail(session, -EINVAL, "the name is not UTF-8 text");
	return send_and_show(session, arguments, "POST", command->resource->path, body);
}

int run_edit(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = object_path(command, arguments);
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = request_body(session, arguments, &body);
	if (r < 0)
		return r;
	if (json_object_size(body) == 0)
		return session_fail(session, WRONG_USAGE, "nothing to change is given");
	return send_and_show(session, arguments, "PATCH", path, body);
}

int run_delete(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = object_path(command, arguments);

	if (!path)
		return session_no_memory(session);
	return session_call(session, "DELETE", path, NULL, NULL);
}
