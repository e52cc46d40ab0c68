/* SPDX-License-Identifier: BSD-2-Clause */
/* One request on its way: libmicrohttpd's side fills it in, a worker answers it. Private to the server. */
#ifndef WIRETOLL_API_EXCHANGE_H
#define WIRETOLL_API_EXCHANGE_H

#include "route.h"

#include <wiretoll/report.h>

#include <microhttpd.h>
#include <netinet/in.h>

#define MAX_BODY       WT_REPORT_MAX_BYTES
#define MAX_OPEN_BODY  16384 /* of what needs no token */
#define HEAVY_BYTES    65536 /* a report as large never makes smaller ones wait for it */
#define MAX_COLLECTED  128   /* requests in one transaction */
#define MAX_PARAMETERS 8     /* of a query; no route takes more */

struct share;
struct work;

/* Who is asked for a fair share of the work (share.h). */
enum share_kind {
	SHARE_OWNER, /* whose objects a user, or a service for one, asks for; an admin is one by itself. Whose
		      * gateway's large report is to be read */
	SHARE_GATEWAY, /* an agent, but for: */
	SHARE_REPORTS, /* its reports; of large ones, those that have been read */
	SHARE_FLEET,   /* the reports of all gateways of an owner, besides */
	SHARE_ADDRESS, /* where requests come from of which nothing else is known */
	N_SHARE_KINDS,
};

#define SHARE_NAME_SIZE INET6_ADDRSTRLEN /* an id or an address, as text */

struct share_key {
	enum share_kind kind;
	char name[SHARE_NAME_SIZE];
	char fleet[UUID_TEXT_SIZE]; /* of SHARE_REPORTS: the owner; else empty */
};

/* Each has workers of its own, so that neither kind of request ever waits for the other. */
enum crew_name {
	CUSTOMERS,
	AGENTS,
	N_CREWS,
};

enum exchange_state {
	EXCHANGE_READING, /* the body still arrives */
	EXCHANGE_WORKING, /* suspended: queued, with a worker, or parked */
	EXCHANGE_DONE,    /* the response is filled in */
};

/* Of the query, decoded; what cannot be decoded stays as it came. */
struct parameter {
	const char *name;
	const char *value; /* NULL: without "=" */
	bool is_malformed; /* a "%" without two digits, or %00 */
};

struct exchange {
	struct request request; /* first: a request is its exchange */
	struct response response;
	struct MHD_Connection *connection;
	enum exchange_state state;
	char *path;  /* still URL-encoded, without the query */
	char *query; /* what the parameters point into; NULL: there was none */
	struct parameter parameters[MAX_PARAMETERS];
	size_t n_parameters;
	bool has_more_parameters;
	char *body;
	size_t body_length, body_size;
	size_t sent; /* of the body, kept or not */
	json_t *json;
	char client_address[INET6_ADDRSTRLEN];
	char *arguments[ARRAY_SIZE(((struct request *)NULL)->arguments)];
	const struct route *route; /* that the path was found to name */

	struct work *work; /* the pool that has taken it */
	enum crew_name crew;
	struct share_key share_key;
	struct share *share; /* while it waits or is in work */
	bool is_counted;     /* among the new ones that wait */
	bool is_read;        /* a report: it needs a worker for no longer than any other */
	bool is_locked;      /* collected: another change holds its gateway's row */

	/* While queued, parked or collected: its place in a list; owned by the work pool. */
	struct exchange *previous, *next;
	char park_key[UUID_TEXT_SIZE];
	int64_t park_until_ns;
	uint64_t wakes_seen; /* the pool's count of wake-ups when the handler began */
	int64_t due_ns;      /* collected: it waits for others no longer than until then */
	int64_t give_up_ns;  /* when its gateway's row is locked: until then it is tried again */
};

/* The request is authenticated, and another's than was thought, who has enough in work: it is to wait. */
#define HANDLER_WAIT 3

/*
 * Answers the exchange with a worker's connection (NULL: the database is away). HANDLER_PARK,
 * HANDLER_COLLECT, HANDLER_WAIT or 0. Once its principal is known, `admits` says whether it goes on as one of
 * their share: else HANDLER_WAIT.
 */
int dispatch(struct exchange *exchange, struct db *db, bool (*admits)(struct exchange *exchange));

/*
 * Answers all of these, which handlers have handed over, with one transaction if that works and else with one
 * each. What a lock has kept from being answered is left with is_locked, to be tried again.
 */
void dispatch_collected(struct exchange *const *exchanges, size_t n, struct db *db);

/* Answers 503: somebody has too much waiting already. */
void dispatch_busy(struct exchange *exchange, const char *detail);

/* Takes the query apart into the exchange's parameters. */
void query_read(struct exchange *exchange);

/* Overwrites and frees what a try of the handler has left in the response. */
void response_reset(struct response *response);

#endif
