// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll gateway top: a gateway's peers, once a second. */
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/resource.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PEER_COLUMNS                                                                                         \
	"name,kind,state,upload_bytes,download_bytes,upload_rate=UP/S,download_rate=DOWN/S,last_handshake,"  \
	"current_endpoint=ENDPOINT"

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

/* One look at a gateway: its peers by id are what the next look's rates are differences to. */
struct look {
	json_t *gateway, *peers, *by_id;
	int64_t boot_ns;
};

static void cleanup_look(struct look *look)
{
	json_decref(look->gateway);
	json_decref(look->peers);
	json_decref(look->by_id);
	*look = (struct look){0};
}

static uint64_t count_of(const json_t *peer, const char *field)
{
	const char *text = json_string_value(json_object_get(peer, field));

	return text ? strtoull(text, NULL, 10) : 0;
}

static int add_rate(json_t *peer, const json_t *before, const char *field, const char *rate_field, int64_t ns)
{
	uint64_t now = count_of(peer, field), then = count_of(before, field);
	char text[BYTES_TEXT_SIZE];

	if (!before || ns <= 0 || now < then)
		return json_object_set_new(peer, rate_field, json_null());
	bytes_format((uint64_t)((double)(now - then) * (double)NSEC_PER_SEC / (double)ns), text);
	return json_object_set_new(peer, rate_field, json_string(text));
}

static int add_rates(struct look *look, const struct look *before)
{
	int64_t ns = look->boot_ns - before->boot_ns;
	json_t *peer;
	size_t index;

	json_array_foreach (look->peers, index, peer) {
		const char *id = json_string_value(json_object_get(peer, "id"));
		const json_t *earlier = json_object_get(before->by_id, id ? id : "");

		if (add_rate(peer, earlier, "upload_bytes", "upload_rate", ns) < 0 ||
		    add_rate(peer, earlier, "download_bytes", "download_rate", ns) < 0 ||
		    json_object_set(look->by_id, id ? id : "", peer) < 0)
			return -ENOMEM;
	}
	return 0;
}

/*
 * Adds a line for what belongs to no peer. Asking for usage also tells the server that somebody watches: the
 * agent then reports every second.
 */
static int add_unattributed(struct session *session, const char *name, json_t *peers)
{
	char cycle_begins[CLOCK_TEXT_SIZE];
	_cleanup_free_ char *path = NULL;
	_cleanup_json_ json_t *usage = NULL;
	bool more; /* never: all are asked for */
	json_t *item;
	size_t index;
	int r;

	/* What peers show is of the current cycle, too. */
	clock_format(clock_utc_ns(), cycle_begins);
	snprintf(cycle_begins + strlen("2026-11"), sizeof(cycle_begins) - strlen("2026-11"), "-01T00:00:00Z");
	path = path_format("/v1/gateways/%s/usage?interval=total&by=peer&from=%s", name, cycle_begins);
	if (!path)
		return session_no_memory(session);
	r = session_list(session, path, NULL, 0, &usage, &more);
	if (r < 0)
		return r;
	json_array_foreach (usage, index, item) {
		if (!json_is_null(json_object_get(item, "peer")))
			continue;
		if (json_object_set_new(item, "name", json_string("(unattributed)")) < 0 ||
		    json_array_append(peers, item) < 0)
			return session_no_memory(session);
	}
	return 0;
}

static int take_look(struct session *session, const char *name, struct look *ret_look)
{
	_cleanup_free_ char *gateway_path = path_format("/v1/gateways/%s", name);
	_cleanup_free_ char *peers_path = path_format("/v1/gateways/%s/peers", name);
	WT_CLEANUP(cleanup_look) struct look look = {.by_id = json_object()};
	bool more;
	int r;

	if (!gateway_path || !peers_path || !look.by_id)
		return session_no_memory(session);
	r = session_call(session, "GET", gateway_path, NULL, &look.gateway);
	if (r == 0)
		r = session_list(session, peers_path, NULL, 0, &look.peers, &more);
	if (r == 0)
		r = add_unattributed(session, name, look.peers);
	if (r < 0)
		return r;
	look.boot_ns = clock_boot_ns();
	*ret_look = look;
	look = (struct look){0};
	return 0;
}

static int draw(const struct look *look)
{
	static const char *const members[] = {"name", "status", "bandwidth"};

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		_cleanup_free_ char *text =
			field_format(members[i], json_object_get(look->gateway, members[i]));

		if (!text)
			return -ENOMEM;
		printf("%s%s", i > 0 ? "   " : "", text);
	}
	fputs("\n\n", stdout);
	return table_print(stdout, PEER_COLUMNS, look->peers);
}

static int watch(struct session *session, const char *name)
{
	static const struct timespec second = {.tv_sec = 1};
	WT_CLEANUP(cleanup_look) struct look before = {0};
	int r;

	while (!stopped) {
		WT_CLEANUP(cleanup_look) struct look look = {0};

		r = take_look(session, name, &look);
		if (r < 0)
			return stopped ? 0 : r;
		/* Home, draw over what is there, clear the rest: no flicker. */
		fputs("\033[H\033[J", stdout);
		if (add_rates(&look, &before) < 0 || draw(&look) < 0)
			return session_no_memory(session);
		fflush(stdout);
		cleanup_look(&before);
		before = look;
		look = (struct look){0};
		nanosleep(&second, NULL);
	}
	return 0;
}

int run_gateway_top(struct session *session, const struct command *command, const struct arguments *arguments)
{
	struct sigaction action = {.sa_handler = stop};
	WT_CLEANUP(cleanup_look) struct look look = {0};
	int r;

	(void)command;
	if (!isatty(STDOUT_FILENO)) {
		const struct look none = {0};

		r = take_look(session, arguments->positional[0], &look);
		if (r < 0)
			return r;
		return add_rates(&look, &none) < 0 || draw(&look) < 0 ? session_no_memory(session) : 0;
	}
	if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0)
		return session_fail(session, -errno, "could not watch for signals");
	return watch(session, arguments->positional[0]);
}
