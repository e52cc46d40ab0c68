// SPDX-License-Identifier: BSD-2-Clause
/* getaddrinfo() blocks, so each name has a short-lived thread that hands its result over through a pipe. */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define STACK_BYTES     (256 * 1024)
#define IN_PROGRESS_MAX 8

struct resolution {
	uint8_t peer_id[UUID_SIZE];
	char endpoint[ENDPOINT_TEXT_SIZE];
	int pipe;
	struct sockaddr_storage address; /* AF_UNSPEC: it has none */
	int error;                       /* as of getaddrinfo() */
};

static unsigned in_progress;

static void *resolve(void *data)
{
	struct resolution *resolution = data;
	char host[ENDPOINT_TEXT_SIZE], *port;
	struct addrinfo *found = NULL,
			hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};

	snprintf(host, sizeof(host), "%s", resolution->endpoint);
	port = strrchr(host, ':');
	*port++ = '\0';
	resolution->error = getaddrinfo(host, port, &hints, &found);
	if (resolution->error == 0) {
		memcpy(&resolution->address, found->ai_addr, found->ai_addrlen);
		freeaddrinfo(found);
	}
	/* A pointer is written whole. When nobody reads any more, the process is ending. */
	if (write(resolution->pipe, &resolution, sizeof(resolution)) != sizeof(resolution))
		free(resolution);
	return NULL;
}

static void take(struct agent *agent, const struct resolution *resolution)
{
	const struct desired_peer *peer;
	struct wg_peer_change change = {.update_only = true, .set_endpoint = true};
	char id[UUID_TEXT_SIZE], what[UUID_TEXT_SIZE + 24];
	int r;

	peer = agent->desired ? desired_find_id(agent->desired, resolution->peer_id) : NULL;
	if (!peer || !peer->enabled || strcmp(peer->endpoint, resolution->endpoint) != 0)
		return;
	snprintf(what, sizeof(what), "peer %s: endpoint", uuid_format(peer->id, id));
	if (resolution->address.ss_family == AF_UNSPEC) {
		/* Said once: it is tried again and again. */
		if (!cannot_has(agent, what))
			cannot_add(agent, what, "could not resolve the endpoint %s: %s", resolution->endpoint,
				   gai_strerror(resolution->error));
		return;
	}
	cannot_remove(agent, what);
	change.public_key = peer->public_key;
	change.endpoint = resolution->address;
	r = endpoints_put(&agent->resolved, peer->id, &resolution->address);
	if (r == 0)
		r = wg_change_peers(agent->wg, &change, 1);
	if (r < 0)
		log_warning("could not set the endpoint %s: %s", resolution->endpoint, strerror(-r));
}

static void on_resolved(void *data, int result)
{
	struct agent *agent = data;
	struct resolution *resolution;

	(void)result;
	while (read(agent->resolver_pipe[0], &resolution, sizeof(resolution)) == sizeof(resolution)) {
		in_progress--;
		take(agent, resolution);
		free(resolution);
	}
}

int resolve_open(struct agent *agent)
{
	loop_tag tag;

	if (pipe2(agent->resolver_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	return loop_watch(agent->loop, agent->resolver_pipe[0], on_resolved, agent, &tag);
}

void resolve_begin(struct agent *agent, const uint8_t peer_id[static UUID_SIZE], const char *endpoint)
{
	struct resolution *resolution;
	pthread_attr_t attributes;
	pthread_t thread;
	int r;

	/* The others have their turn with a later status. */
	if (in_progress >= IN_PROGRESS_MAX)
		return;
	resolution = calloc(1, sizeof(*resolution));
	if (!resolution)
		return;
	memcpy(resolution->peer_id, peer_id, UUID_SIZE);
	snprintf(resolution->endpoint, sizeof(resolution->endpoint), "%s", endpoint);
	resolution->pipe = agent->resolver_pipe[1];
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attributes, resolve, resolution);
	pthread_attr_destroy(&attributes);
	if (r == 0) {
		in_progress++;
		return;
	}
	log_warning("could not resolve the endpoint %s: %s", endpoint, strerror(r));
	free(resolution);
}
