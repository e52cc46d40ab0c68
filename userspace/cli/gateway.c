// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll gateway create, delete, retry, extra, suspend, resume, log */
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/resource.h"
#include "cli/values.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_WAIT_SECONDS 300
#define POLL_MILLISECONDS    100

struct wait {
	const char *name;
	const char *path;
	bool until_gone;
	int64_t began, deadline;
	char status[32]; /* last shown */
};

static void show_progress(struct wait *wait, const char *status)
{
	long seconds = (long)((clock_boot_ns() - wait->began) / NSEC_PER_SEC);

	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K%s: %s, %ld s", wait->name, status, seconds);
	else if (strcmp(wait->status, status) != 0)
		fprintf(stderr, "%s: %s\n", wait->name, status);
	snprintf(wait->status, sizeof(wait->status), "%s", status);
}

static void end_progress(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

/* Statuses from which the one waited for does not come by itself. */
static int judge_status(struct session *session, const struct wait *wait, const char *status,
			const json_t *gateway)
{
	const char *reason = json_string_value(json_object_get(gateway, "error"));

	if (strcmp(status, "error") == 0)
		return session_fail(session, -EREMOTEIO, "gateway %.64s is in error: %.300s", wait->name,
				    reason ? reason : "no reason is given");
	if (!wait->until_gone && strcmp(status, "deploying") != 0)
		return session_fail(session, -EREMOTEIO, "gateway %.64s is %.20s", wait->name, status);
	return 0;
}

/*
 * Judges one answer. 1: done, *ret_gateway is the gateway, if it is still there. 0: not yet. -errno: it will
 * not come to pass.
 */
static int look_once(struct session *session, struct wait *wait, json_t **ret_gateway)
{
	_cleanup_json_ json_t *gateway = NULL;
	const char *status;
	int r;

	r = session_call(session, "GET", wait->path, NULL, &gateway);
	if (r < 0 && session->status == 404 && wait->until_gone)
		return 1;
	/* A server that restarts meanwhile is no failure of the gateway. */
	if (r < 0)
		return session->status == 0 || session->status >= 500 ? 0 : r;
	status = json_string_value(json_object_get(gateway, "status"));
	if (!status)
		return session_fail(session, -EBADMSG, "the server's answer has no status");
	show_progress(wait, status);
	if (strcmp(status, wait->until_gone ? "deleted" : "active") == 0) {
		*ret_gateway = TAKE_PTR(gateway);
		return 1;
	}
	return judge_status(session, wait, status, gateway);
}

static int give_up(struct session *session, const struct wait *wait)
{
	long seconds = (long)((clock_boot_ns() - wait->began) / NSEC_PER_SEC);
	char problem[HTTP_PROBLEM_SIZE] = "";

	if (session->status != 200)
		snprintf(problem, sizeof(problem), "; last answer: %.300s", session->problem);
	return session_fail(session, -ETIMEDOUT, "gateway %.64s is still %s after %ld s%s", wait->name,
			    *wait->status ? wait->status : "in an unknown state", seconds, problem);
}

static int wait_for(struct session *session, struct wait *wait, json_t **ret_gateway)
{
	static const struct timespec pause = {.tv_nsec = POLL_MILLISECONDS * 1000000L};
	int r;

	for (;;) {
		r = look_once(session, wait, ret_gateway);
		if (r == 0 && clock_boot_ns() >= wait->deadline)
			r = give_up(session, wait);
		if (r != 0)
			break;
		nanosleep(&pause, NULL);
	}
	end_progress();
	return r < 0 ? r : 0;
}

/* --timeout. It is looked at before anything is sent. */
static int read_timeout(struct session *session, const struct arguments *arguments, int64_t *ret_seconds)
{
	const char *text = argument_value(arguments, "timeout");

	*ret_seconds = DEFAULT_WAIT_SECONDS;
	if (text && (integer_parse(text, ret_seconds) < 0 || *ret_seconds > 86400))
		return session_fail(session, WRONG_USAGE,
				    "--timeout is \"%.40s\"; accepted is 0 to 86400 seconds", text);
	return 0;
}

/* Waits for the gateway of this id; `name` is what the user calls it. */
static int wait_until(struct session *session, const char *id, const char *name, bool until_gone,
		      int64_t seconds, json_t **ret_gateway)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s", id);
	int64_t now = clock_boot_ns();
	struct wait wait = {name, path, until_gone, now, now + seconds * NSEC_PER_SEC, ""};

	return path ? wait_for(session, &wait, ret_gateway) : session_no_memory(session);
}

int run_gateway_create(struct session *session, const struct command *command,
		       const struct arguments *arguments)
{
	_cleanup_json_ json_t *body = NULL, *gateway = NULL, *active = NULL;
	const char *id, *name;
	int64_t seconds;
	int r;

	(void)command;
	r = read_timeout(session, arguments, &seconds);
	if (r == 0)
		r = request_body(session, arguments, &body);
	if (r != 0)
		return r;
	r = session_call(session, "POST", "/v1/gateways", body, &gateway);
	if (r < 0)
		return r;
	id = json_string_value(json_object_get(gateway, "id"));
	name = json_string_value(json_object_get(gateway, "name"));
	if (!id || !name)
		return session_fail(session, -EBADMSG, "the server's answer has no id or no name");
	if (!argument_given(arguments, "wait"))
		return print_object(session, arguments, gateway);
	r = wait_until(session, id, name, /* until_gone= */ false, seconds, &active);
	return r < 0 ? r : print_object(session, arguments, active);
}

/* The id, as a name may be taken again while its old bearer is being deleted. */
static int find_id(struct session *session, const char *name, char **ret_id)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s", name);
	_cleanup_json_ json_t *gateway = NULL;
	const char *id;
	int r;

	if (!path)
		return session_no_memory(session);
	r = session_call(session, "GET", path, NULL, &gateway);
	if (r < 0)
		return r;
	id = json_string_value(json_object_get(gateway, "id"));
	if (!id)
		return session_fail(session, -EBADMSG, "the server's answer has no id");
	*ret_id = strdup(id);
	return *ret_id ? 0 : session_no_memory(session);
}

/* Asks for something that takes its time and, with --wait, waits for it. `suffix` goes behind the gateway's
 * path. */
static int ask_and_wait(struct session *session, const struct arguments *arguments, const char *method,
			const char *suffix, bool until_gone, json_t **ret_gateway)
{
	_cleanup_free_ char *gateway = NULL, *path = NULL, *id = NULL;
	int64_t seconds;
	int r = read_timeout(session, arguments, &seconds);

	if (r == 0)
		r = find_id(session, arguments->positional[0], &id);
	if (r != 0)
		return r;
	gateway = path_format("/v1/gateways/%s", id);
	if (!gateway || asprintf(&path, "%s%s", gateway, suffix) < 0)
		return session_no_memory(session);
	r = session_call(session, method, path, NULL, NULL);
	if (r < 0 || !argument_given(arguments, "wait"))
		return r;
	return wait_until(session, id, arguments->positional[0], until_gone, seconds, ret_gateway);
}

int run_gateway_delete(struct session *session, const struct command *command,
		       const struct arguments *arguments)
{
	_cleanup_json_ json_t *gateway = NULL;

	(void)command;
	return ask_and_wait(session, arguments, "DELETE", "", /* until_gone= */ true, &gateway);
}

int run_gateway_retry(struct session *session, const struct command *command,
		      const struct arguments *arguments)
{
	_cleanup_json_ json_t *gateway = NULL;
	int r;

	(void)command;
	r = ask_and_wait(session, arguments, "POST", "/retry", /* until_gone= */ false, &gateway);
	return r != 0 || !gateway ? r : print_object(session, arguments, gateway);
}

int run_gateway_extra(struct session *session, const struct command *command,
		      const struct arguments *arguments)
{
	const char *amount = arguments->positional[1];
	_cleanup_free_ char *path = path_format("/v1/gateways/%s/extra", arguments->positional[0]);
	_cleanup_json_ json_t *body = json_pack("{s:s}", "gb", amount);

	(void)command;
	if (amount_check(amount) < 0)
		return session_fail(session, WRONG_USAGE,
				    "GB is \"%.40s\"; accepted is a decimal such as 0.5, at most 9 places",
				    amount);
	return send_and_show(session, arguments, "POST", path, body);
}

static int set_suspended(struct session *session, const struct arguments *arguments, bool suspended)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s", arguments->positional[0]);
	_cleanup_json_ json_t *body = json_pack("{s:b}", "suspended", suspended);

	return send_and_show(session, arguments, "PATCH", path, body);
}

int run_gateway_suspend(struct session *session, const struct command *command,
			const struct arguments *arguments)
{
	(void)command;
	return set_suspended(session, arguments, true);
}

int run_gateway_resume(struct session *session, const struct command *command,
		       const struct arguments *arguments)
{
	(void)command;
	return set_suspended(session, arguments, false);
}

int run_gateway_log(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s/log", arguments->positional[0]);

	(void)command;
	return list_path(session, arguments, path, "at=TIME,attempt,step,line");
}
