// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll usage, report, ledger */
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/resource.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Adds "&NAME=VALUE" to a path that has a query, when the value is given. */
static int add_query(char **path, const char *name, const char *value)
{
	_cleanup_free_ char *added = NULL;
	char *longer = NULL;

	if (!value)
		return 0;
	added = path_format("&%s=%s", name, value);
	if (!added || asprintf(&longer, "%s%s", *path, added) < 0)
		return -ENOMEM;
	free(*path);
	*path = longer;
	return 0;
}

/* The words that argument parsing has checked, as the API spells them. */
static const char *field_text(const struct arguments *arguments, const char *field)
{
	return json_string_value(json_object_get(arguments->fields, field));
}

static char *usage_path(const struct arguments *arguments, const char *user, bool by_peer)
{
	const char *interval = field_text(arguments, "interval");
	_cleanup_free_ char *path =
		user ? path_format("/v1/users/%s/usage?interval=%s", user, interval ?: "cycle")
		     : path_format("/v1/gateways/%s/usage?interval=%s", arguments->positional[0],
				   interval ?: "cycle");

	if (!path || (!user && add_query(&path, "by", by_peer ? "peer" : "gateway") < 0) ||
	    add_query(&path, "from", argument_value(arguments, "from")) < 0 ||
	    add_query(&path, "to", argument_value(arguments, "to")) < 0)
		return NULL;
	return TAKE_PTR(path);
}

/* What belongs to no peer has none in the API. */
static int name_unattributed(json_t *items)
{
	json_t *item;
	size_t index;

	json_array_foreach (items, index, item) {
		if (json_is_null(json_object_get(item, "peer")) &&
		    json_object_set_new(item, "peer_name", json_string("(unattributed)")) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int show_by_peer(struct session *session, const struct arguments *arguments, const char *path)
{
	_cleanup_json_ json_t *items = NULL;
	int r;

	r = fetch_list(session, arguments, path, &items);
	if (r != 0)
		return r;
	if (!argument_given(arguments, "json") && name_unattributed(items) < 0)
		return session_no_memory(session);
	return print_list(session, arguments, "from,to,peer_name=PEER,upload_bytes,download_bytes", items);
}

int run_usage(struct session *session, const struct command *command, const struct arguments *arguments)
{
	const char *user = argument_value(arguments, "user"), *by = field_text(arguments, "by");
	bool by_peer = !user && (!by || strcmp(by, "peer") == 0);
	_cleanup_free_ char *path = NULL;

	(void)command;
	if ((user != NULL) == (arguments->positional_count > 0))
		return session_fail(session, WRONG_USAGE, "either GATEWAY or --user is needed");
	if (user && by)
		return session_fail(session, WRONG_USAGE, "--by goes with a GATEWAY; --user is by gateway");
	path = usage_path(arguments, user, by_peer);
	if (by_peer)
		return show_by_peer(session, arguments, path);
	return list_path(session, arguments, path,
			 "from,to,gateway_name=GATEWAY,upload_bytes,download_bytes");
}

static int find_user(struct session *session, const struct arguments *arguments, char **ret_user)
{
	const char *user = argument_value(arguments, "user");
	_cleanup_json_ json_t *me = NULL;
	int r;

	if (!user) {
		r = session_call(session, "GET", "/v1/me", NULL, &me);
		if (r < 0)
			return r;
		user = json_string_value(json_object_get(me, "user"));
		if (!user)
			return session_fail(session, WRONG_USAGE,
					    "this login belongs to no user: give --user");
	}
	*ret_user = strdup(user);
	return *ret_user ? 0 : session_no_memory(session);
}

static int print_report(struct session *session, const json_t *report)
{
	const char *const members[] = {"user", "cycle", "state", "complete_through"};
	_cleanup_json_ json_t *totals = NULL, *lines = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		_cleanup_free_ char *text = field_format(members[i], json_object_get(report, members[i]));

		if (!text)
			return session_no_memory(session);
		printf("%s %s%s", members[i], text, i + 1 < ARRAY_SIZE(members) ? ", " : "\n\n");
	}
	puts("VPN Gateways");
	lines = json_copy(json_object_get(report, "gateways"));
	totals = json_copy(json_object_get(report, "totals"));
	if (!json_is_array(lines) || !json_is_object(totals))
		return session_fail(session, -EBADMSG, "the server's report has no gateways or no totals");
	if (json_object_set_new(totals, "name", json_string("TOTAL")) < 0 ||
	    json_array_append(lines, totals) < 0 ||
	    table_print(stdout,
			"name,hours,bandwidth_bytes=OVERAGE,base_credits,bandwidth_credits,adjustment_"
			"credits,total_credits",
			lines) < 0)
		return session_no_memory(session);
	return 0;
}

static void this_cycle(char *cycle, size_t size)
{
	char now[CLOCK_TEXT_SIZE];

	clock_format(clock_utc_ns(), now);
	snprintf(cycle, size, "%.7s", now);
}

int run_report(struct session *session, const struct command *command, const struct arguments *arguments)
{
	const char *cycle = argument_value(arguments, "cycle");
	bool csv = argument_given(arguments, "csv"), json = argument_given(arguments, "json");
	_cleanup_free_ char *user = NULL, *path = NULL;
	_cleanup_json_ json_t *report = NULL;
	_cleanup_secret_ char *text = NULL;
	char current[8];
	int r;

	(void)command;
	if (csv && json)
		return session_fail(session, WRONG_USAGE, "--csv and --json exclude each other");
	r = find_user(session, arguments, &user);
	if (r != 0)
		return r;
	this_cycle(current, sizeof(current));
	path = path_format("/v1/users/%s/report?cycle=%s&format=%s", user, cycle ?: current,
			   csv ? "csv" : "json");
	if (!path)
		return session_no_memory(session);
	if (csv) {
		r = session_text(session, path, &text);
		if (r == 0)
			fputs(text, stdout);
		return r;
	}
	r = session_call(session, "GET", path, NULL, &report);
	if (r < 0)
		return r;
	return json ? print_object(session, arguments, report) : print_report(session, report);
}

int run_ledger(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = strdup("/v1/ledger");

	(void)command;
	return list_path(session, arguments, path, "id,type,kind,gateway,hour,part,bytes,rate,amount,key");
}
