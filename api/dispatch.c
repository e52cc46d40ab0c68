// SPDX-License-Identifier: BSD-2-Clause
#include "exchange.h"

#include "auth.h"
#include "base/clock.h"
#include "base/log.h"
#include "connections.h"
#include "problem.h"
#include "routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TRIES 3 /* after a deadlock or a serialization failure */

static int parse_body(struct exchange *exchange)
{
	if (exchange->json || exchange->body_length == 0)
		return 0;
	return request_parse(&exchange->request, exchange->body, exchange->body_length, &exchange->response);
}

static bool takes_body(const char *method)
{
	return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
}

static int unavailable(struct response *response, const char *detail)
{
	response_problem(response, 503, NULL, "%s", detail);
	response->retry_after = 2;
	return 0;
}

/* What a handler that gave up without an answer means to the client. */
static void answer_error(struct exchange *exchange, int error)
{
	const struct route *route = exchange->route;
	struct response *response = &exchange->response;
	struct db *db = exchange->request.db;

	if (response->status >= 400 || response_database_problem(response, error, &exchange->request))
		return;
	response_reset(response);
	if (error == -ENOTCONN || error == -ECONNREFUSED) {
		unavailable(response, "the database is away");
		return;
	}
	if (error == -EAGAIN || error == -EBUSY) {
		unavailable(response, "another change of the same objects was under way");
		return;
	}
	if (error == -ETIMEDOUT) {
		unavailable(response, "the database took too long");
		return;
	}
	log_error("could not answer %s %s: %s (%s %s)", route->method, route->path, strerror(-error),
		  db_last_error(db)->sqlstate, db_last_error(db)->message);
	response_problem(response, 500, NULL, "the server could not do this; its log says why");
}

/* Whoever has shown no token makes the server parse no more than what a sign-in or an enrolment can need. */
static int check_length(const struct exchange *exchange, const struct route *route, struct response *response)
{
	if (!(route->roles & ROLE_NONE) || exchange->body_length <= MAX_OPEN_BODY)
		return 0;
	response_problem(response, 413, NULL, "the body has %zu bytes; accepted without a token are %d",
			 exchange->body_length, MAX_OPEN_BODY);
	return -EBADMSG;
}

static int run_once(struct exchange *exchange, bool (*admits)(struct exchange *exchange))
{
	const struct route *route = exchange->route;
	struct request *request = &exchange->request;
	int r;

	response_reset(&exchange->response);
	r = check_length(exchange, route, &exchange->response);
	if (r < 0)
		return r;
	if (!(route->roles & ROLE_NONE))
		r = authenticate(request, route->roles, &exchange->response);
	if (r == 0 && request->principal.role == ROLE_GATEWAY)
		connection_of_gateway(exchange->connection, request->principal.gateway);
	if (r == 0 && !(route->roles & ROLE_NONE) && !admits(exchange))
		return HANDLER_WAIT;
	if (r == 0)
		r = request_check_query(request, route->query, &exchange->response);
	if (r == 0 && takes_body(route->method) && !(route->roles & ROUTE_OWN_BODY))
		r = parse_body(exchange);
	if (r == 0)
		r = route->handler(request, &exchange->response);
	db_rollback(request->db);
	return r;
}

static int run(struct exchange *exchange, bool (*admits)(struct exchange *exchange))
{
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < MAX_TRIES; i++)
		r = run_once(exchange, admits);
	if (r < 0)
		answer_error(exchange, r);
	return r > 0 ? r : 0;
}

static int find(struct exchange *exchange)
{
	struct response *response = &exchange->response;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(exchange->arguments); i++) {
		free(exchange->arguments[i]);
		exchange->arguments[i] = NULL;
	}
	r = route_find(exchange->request.method, exchange->path, &exchange->route, exchange->arguments,
		       response->allow, sizeof(response->allow));
	if (r == -EOPNOTSUPP)
		response_problem(response, 405, NULL, "%s does not take %s; accepted are %s", exchange->path,
				 exchange->request.method, response->allow);
	else if (r == -EILSEQ)
		response_problem(response, 422, NULL,
				 "%.200s names something that is no text; accepted are printable characters "
				 "in UTF-8",
				 exchange->path);
	else if (r < 0)
		response_problem(response, 404, NULL, "there is no %.200s", exchange->path);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(exchange->arguments); i++)
		exchange->request.arguments[i] = exchange->arguments[i];
	return r;
}

int dispatch(struct exchange *exchange, struct db *db, bool (*admits)(struct exchange *exchange))
{
	response_reset(&exchange->response);
	if (find(exchange) < 0)
		return 0;
	if (!db)
		return unavailable(&exchange->response, "the database is away");
	exchange->request.db = db;
	return run(exchange, admits);
}

void dispatch_busy(struct exchange *exchange, const char *detail)
{
	response_problem(&exchange->response, 503, NULL, "%s", detail);
	exchange->response.retry_after = 1;
}

static int commit(struct exchange *const *exchanges, size_t n, struct db *db)
{
	struct request *requests[MAX_COLLECTED];
	struct response *responses[MAX_COLLECTED];
	int r = -EAGAIN;

	for (size_t i = 0; i < n; i++) {
		exchanges[i]->request.db = db;
		requests[i] = &exchanges[i]->request;
		responses[i] = &exchanges[i]->response;
	}
	for (int i = 0; r == -EAGAIN && i < MAX_TRIES; i++)
		r = requests[0]->collector->commit(db, requests, responses, n);
	return r;
}

void dispatch_collected(struct exchange *const *exchanges, size_t n, struct db *db)
{
	int r = db ? commit(exchanges, n, db) : -ENOTCONN;

	/* What one of them has brought up must not fail the others, nor hold them up. */
	if (r < 0 && r != -ENOTCONN && n > 1) {
		for (size_t i = 0; i < n; i++)
			dispatch_collected(exchanges + i, 1, db);
		return;
	}
	for (size_t i = 0; i < n; i++)
		exchanges[i]->is_locked = r == -EBUSY && clock_boot_ns() < exchanges[i]->give_up_ns;
	if (exchanges[0]->is_locked) /* and alone */
		return;
	for (size_t i = 0; r < 0 && i < n; i++)
		answer_error(exchanges[i], r);
}
