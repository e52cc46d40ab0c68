/* SPDX-License-Identifier: BSD-2-Clause */
/* One request on its way: libmicrohttpd's side fills it in, a worker answers it. Private to the server. */
#ifndef WIRETOLL_API_EXCHANGE_H
#define WIRETOLL_API_EXCHANGE_H

#include "route.h"

#include <microhttpd.h>
#include <netinet/in.h>

#define MAX_BODY      (1024 * 1024)
#define MAX_COLLECTED 128 /* requests in one transaction */

struct work;

enum exchange_state {
	EXCHANGE_READING, /* the body still arrives */
	EXCHANGE_WORKING, /* suspended: queued, with a worker, or parked */
	EXCHANGE_DONE,    /* the response is filled in */
};

struct exchange {
	struct request request; /* first: a request is its exchange */
	struct response response;
	struct MHD_Connection *connection;
	enum exchange_state state;
	char *path; /* still URL-encoded, without the query */
	char *body;
	size_t body_length, body_size;
	size_t sent; /* of the body, kept or not */
	json_t *json;
	char client_address[INET6_ADDRSTRLEN];
	char *arguments[ARRAY_SIZE(((struct request *)NULL)->arguments)];
	const struct route *route; /* that the path was found to name */

	/* While queued, parked or collected: its place in a list; owned by the work pool. */
	struct exchange *previous, *next;
	char park_key[UUID_TEXT_SIZE];
	int64_t park_until_ns;
	uint64_t wakes_seen; /* the pool's count of wake-ups when the handler began */
	int64_t due_ns;      /* collected: it waits for others no longer than until then */
};

/* Answers the exchange with a worker's connection (NULL: the database is away). HANDLER_PARK, HANDLER_COLLECT
 * or 0. */
int dispatch(struct exchange *exchange, struct db *db);

/* Answers all of these, which handlers have handed over, with one transaction if that works and else with one
 * each. */
void dispatch_collected(struct exchange *const *exchanges, size_t n, struct db *db);

/* Overwrites and frees what a try of the handler has left in the response. */
void response_reset(struct response *response);

#endif
