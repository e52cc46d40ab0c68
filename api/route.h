/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a resource's file sees of HTTP: a parsed request, an answer to fill in, and the route table's row.
 * The role that a route needs stands in its row and is checked before any handler runs.
 */
#ifndef WIRETOLL_API_ROUTE_H
#define WIRETOLL_API_ROUTE_H

#include "base/base.h"
#include "base/json.h"
#include "base/uuid.h"
#include "store/db.h"

/* Roles as bits, so that a route can admit several. */
enum role {
	ROLE_NONE = 1, /* no token needed */
	ROLE_ADMIN = 2,
	ROLE_USER = 4,
	ROLE_BILLING = 8,
	ROLE_SERVICE = 16,
	ROLE_GATEWAY = 32,
	/* What a customer's panel may do: a user for itself, a service acting for one, an admin for all. */
	ROLE_CUSTOMER = ROLE_USER | ROLE_SERVICE | ROLE_ADMIN,
	ROLE_ANY_USER = ROLE_CUSTOMER | ROLE_BILLING,
};

/* Beside the roles of a route: its handler parses the body itself, by request_parse(). */
#define ROUTE_OWN_BODY 256u
/* It is about what a user owns: a service has to name the user in Wiretoll-Act-For. */
#define ROUTE_FOR_USER 512u

/* Who asks. `owner` is whose objects may be seen: the user itself, or whom a service acts for; empty: all. */
struct principal {
	enum role role;
	char user[UUID_TEXT_SIZE];
	char owner[UUID_TEXT_SIZE];
	/* Of a gateway's token: */
	char gateway[UUID_TEXT_SIZE];
	int attempt;
	int64_t generation;
};

struct sealing_key;

struct request {
	const struct sealing_key *sealing_key; /* of preshared keys at rest */
	struct db *db;                         /* the worker's connection, no transaction open */
	const char *method;
	const char *path;
	const char *arguments[4]; /* what the path's {…} matched, URL-decoded */
	const json_t *body;       /* parsed JSON object; NULL when there was none */
	const char *raw_body;
	size_t raw_body_length;
	struct principal principal;
	const char *client_address;
	bool expired;   /* a parked request whose time is over: answer now */
	void *prepared; /* for the commit of many at once; owned, freed by the collector */
	const struct collector *collector;
	void *transport;
};

struct response;

/* The value of a parameter of the query, decoded; NULL when it is not there. */
const char *request_query(const struct request *request, const char *name);

/*
 * -EBADMSG with 422 in the response when the query has a parameter that is not among `accepted` (as in struct
 * route), one twice, one without a value, or one whose value is no printable text.
 */
WT_MUST_CHECK int request_check_query(const struct request *request, const char *accepted,
				      struct response *response);

const char *request_header(const struct request *request, const char *name);

/* Makes `text` the request's parsed body. -EBADMSG: it is no JSON object, and the response says so. */
WT_MUST_CHECK int request_parse(struct request *request, const char *text, size_t length,
				struct response *response);

struct response {
	unsigned status;
	json_t *json; /* owned; or: */
	char *text;   /* owned, with content_type */
	const char *content_type;
	bool wipe;            /* holds a secret: overwritten after sending, Cache-Control: no-store */
	char disposition[64]; /* Content-Disposition's file name */
	unsigned retry_after;
	bool close;     /* the connection, behind it */
	char allow[48]; /* of a 405: the methods that the path takes */
};

/*
 * A handler returns 0 with the response filled in, HANDLER_PARK, HANDLER_COLLECT, or -errno. Behind -errno a
 * problem that is already in the response is sent; a violated constraint or a value that PostgreSQL refuses
 * is answered with 409 or 422; -EAGAIN runs the handler again; the rest is 503 or 500, logged. A transaction
 * left open is rolled back.
 */
typedef int (*handler_fn)(struct request *request, struct response *response);

/*
 * Parks the request: the handler runs again when work_wake() names the key, or with `expired` set after
 * `seconds`. Return its result. The key is a gateway's id.
 */
#define HANDLER_PARK 1
int request_park(struct request *request, const char *key, unsigned seconds);

/* How requests that their handlers have handed over are committed together. */
struct collector {
	/* How many rows a prepared request has. */
	size_t (*weight)(const struct request *request);
	void (*free_prepared)(void *prepared);
	/*
	 * Commits them in one transaction and fills in their responses. -errno: nothing has been committed
	 * and no response is filled in; -EAGAIN as for any handler.
	 */
	int (*commit)(struct db *db, struct request *const *requests, struct response *const *responses,
		      size_t n);
};

/*
 * Hands the request over to be committed together with others of the collector. Return its result.
 * `prepared` is freed with the request.
 */
#define HANDLER_COLLECT 2
int request_collect(struct request *request, const struct collector *collector, void *prepared);

struct route {
	const char *method;
	const char *path; /* "/v1/gateways/{id}/peers/{peer}" */
	unsigned roles;   /* of enum role, and ROUTE_… */
	handler_fn handler;
	const char *query; /* the parameters it takes, separated by spaces, or QUERY_…; NULL: none */
};

#define QUERY_PAGE "limit after"
/* An agent may be newer than the API: what is not known is no error. */
#define QUERY_ANY "*"

/* Fills in a problem document (RFC 9457) and returns 0, so that handlers can `return response_problem(…)`. */
int response_problem(struct response *response, unsigned status, const char *field, const char *format, ...)
	WT_PRINTF(4, 5);
/* The same from a reader of base/json.h: 422. */
int response_json_problem(struct response *response, const struct json_problem *problem);

/* Each resource file exports its rows; routes.c lists the tables. */
extern const struct route agent_routes[], billing_routes[], metrics_routes[]; /* end with a NULL method */

#endif
