// SPDX-License-Identifier: BSD-2-Clause
/* What agents call besides reporting: enrolment and their desired state. */
#include "base/key.h"
#include "billing/fields.h"
#include "billing/intake.h"
#include "route.h"
#include "seal.h"
#include "token.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_EVERY_SECONDS 10
#define POLL_SECONDS         50

struct enrolment {
	const char *gateway;
	int64_t attempt;
	const char *token;
	char public_key[2 + 2 * KEY_SIZE + 1]; /* as bytea */
};

static int read_enrolment(const json_t *body, struct enrolment *enrolment, struct json_problem *problem)
{
	struct key key;
	int r = json_require(read_uuid(body, "gateway", &enrolment->gateway, problem), "gateway", problem);

	if (r == 0)
		r = json_require(json_read_int(body, "attempt", 1, INT32_MAX, &enrolment->attempt, problem),
				 "attempt", problem);
	if (r == 0)
		r = json_require(json_read_string(body, "one_time_token", &enrolment->token, problem),
				 "one_time_token", problem);
	if (r == 0)
		r = json_require(read_key(body, "public_key", &key, problem), "public_key", problem);
	if (r < 0)
		return r;
	memcpy(enrolment->public_key, "\\x", 2);
	key_format_hex(&key, enrolment->public_key + 2);
	return 0;
}

/* Trades the token in the database: the status of the answer, and the generation for 201. */
static int trade(struct db *db, const struct enrolment *enrolment, const char *token, unsigned *ret_status,
		 int64_t *ret_generation)
{
	_cleanup_result_ PGresult *row = NULL;
	char enroll_hash[TOKEN_HASH_SIZE], agent_hash[TOKEN_HASH_SIZE], attempt[24];
	const char *generation;
	int r;

	token_hash(enrolment->token, enroll_hash);
	token_hash(token, agent_hash);
	snprintf(attempt, sizeof(attempt), "%" PRId64, enrolment->attempt);
	r = DB_QUERY(db, &row,
		     "SELECT e->>'status' AS status, e->>'generation' AS generation "
		     "FROM gateway.enroll($1, $2, $3, $4, $5) e",
		     enrolment->gateway, attempt, enroll_hash, agent_hash, enrolment->public_key);
	if (r < 0)
		return r;
	generation = db_value(row, 0, "generation");
	*ret_status = (unsigned)strtoul(db_value(row, 0, "status"), NULL, 10);
	*ret_generation = generation ? strtoll(generation, NULL, 10) : 0;
	return 0;
}

static int post_enroll(struct request *request, struct response *response)
{
	struct enrolment enrolment = {0};
	struct json_problem problem = {0};
	char token[TOKEN_TEXT_SIZE], text[160];
	int64_t generation;
	unsigned status;
	int r;

	if (!request->body || read_enrolment(request->body, &enrolment, &problem) < 0)
		return response_problem(response, 400, problem.field[0] ? problem.field : NULL, "%s",
					problem.message[0] ? problem.message : "a JSON object is required");
	token_generate(token);
	r = trade(request->db, &enrolment, token, &status, &generation);
	if (r == 0 && status == 201) {
		snprintf(text, sizeof(text),
			 "{\"token\": \"%s\", \"generation\": %" PRId64 ", \"report_every\": %d}", token,
			 generation, REPORT_EVERY_SECONDS);
		response->status = status;
		response->text = strdup(text);
		response->content_type = "application/json";
		response->wipe = true;
	}
	sodium_memzero(token, sizeof(token));
	sodium_memzero(text, sizeof(text));
	if (r < 0 || status == 201)
		return r < 0 || response->text ? r : -ENOMEM;
	if (status == 409)
		return response_problem(response, 409, "attempt",
					"attempt %" PRId64 " is not the current one", enrolment.attempt);
	return response_problem(response, 403, "one_time_token",
				"one_time_token is unknown, expired or already traded");
}

/* Replaces a peer's "sealed" by its preshared key, or null. */
static int open_peer(struct request *request, json_t *peer)
{
	const char *sealed = json_string_value(json_object_get(peer, "sealed"));
	char text[KEY_TEXT_SIZE];
	struct key key;
	int r;

	if (!sealed) {
		json_object_del(peer, "sealed");
		return json_object_set_new(peer, "preshared_key", json_null()) < 0 ? -ENOMEM : 0;
	}
	r = unseal_preshared_key(request->sealing_key, request->principal.owner, request->principal.gateway,
				 json_string_value(json_object_get(peer, "id")), sealed, &key);
	if (r < 0)
		return r;
	key_format(&key, text);
	r = json_object_set_new(peer, "preshared_key", json_string(text)) < 0 ? -ENOMEM : 0;
	json_object_del(peer, "sealed");
	key_wipe(&key);
	sodium_memzero(text, sizeof(text));
	return r;
}

static void wipe_peers(json_t *peers)
{
	json_t *peer;
	size_t i;

	json_array_foreach (peers, i, peer) {
		json_t *key = json_object_get(peer, "preshared_key");

		if (json_is_string(key))
			sodium_memzero((char *)json_string_value(key), json_string_length(key));
	}
}

static int answer_state(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	_cleanup_json_ json_t *state = NULL;
	json_t *peers, *peer;
	size_t i;
	int r = DB_QUERY(request->db, &row, "SELECT gateway.agent_state($1, $2) AS state",
			 request->principal.owner, request->principal.gateway);

	if (r < 0)
		return r;
	state = json_loads(db_value(row, 0, "state"), 0, NULL);
	if (!state)
		return -ENOMEM;
	peers = json_object_get(state, "peers");
	json_array_foreach (peers, i, peer) {
		if (r == 0)
			r = open_peer(request, peer);
	}
	if (r == 0) {
		response->status = 200;
		response->text = json_dumps(state, JSON_COMPACT);
		response->content_type = "application/json";
		response->wipe = true;
		r = response->text ? 0 : -ENOMEM;
	}
	wipe_peers(peers);
	return r;
}

/* Whether the token still speaks for the gateway; its revision. */
static int read_revision(struct request *request, bool *ret_current, int64_t *ret_revision)
{
	const struct principal *agent = &request->principal;
	_cleanup_result_ PGresult *row = NULL;
	char attempt[16], generation[24];
	int r;

	snprintf(attempt, sizeof(attempt), "%d", agent->attempt);
	snprintf(generation, sizeof(generation), "%" PRId64, agent->generation);
	r = DB_QUERY(
		request->db, &row,
		"SELECT revision FROM gateway.gateway "
		"WHERE owner = $1 AND id = $2 AND attempt = $3 AND generation = $4 AND status <> 'deleted'",
		agent->owner, agent->gateway, attempt, generation);
	if (r < 0)
		return r;
	*ret_current = PQntuples(row) == 1;
	*ret_revision = *ret_current ? strtoll(db_value(row, 0, "revision"), NULL, 10) : 0;
	return 0;
}

static int get_state(struct request *request, struct response *response)
{
	const char *text = request_query(request, "have");
	int64_t have = 0, revision;
	bool current;
	int r;

	if (text) {
		size_t length = strlen(text);

		have = strtoll(text, NULL, 10);
		if (length == 0 || length > 18 || strspn(text, "0123456789") != length)
			return response_problem(response, 400, "have",
						"have is \"%.32s\"; accepted is the revision last applied, "
						"or 0",
						text);
	}
	r = read_revision(request, &current, &revision);
	if (r < 0)
		return r;
	if (!current)
		return response_problem(response, 410, NULL,
					"the gateway is deleted, or another attempt has replaced this one");
	if (revision != have)
		return answer_state(request, response);
	if (!request->expired)
		return request_park(request, request->principal.gateway, POLL_SECONDS);
	response->status = 204;
	return 0;
}

/* After a restore: what the database holds of this gateway's epochs, so that the agent sends the rest again.
 */
static int get_held(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	int r = DB_QUERY(request->db, &row, "SELECT billing.held_epochs($1, $2) AS held",
			 request->principal.owner, request->principal.gateway);

	if (r < 0)
		return r;
	response->status = 200;
	response->content_type = "application/json";
	response->text = strdup(db_value(row, 0, "held"));
	return response->text ? 0 : -ENOMEM;
}

const struct route agent_routes[] = {
	{"POST", "/v1/agent/enroll", ROLE_NONE, post_enroll, QUERY_ANY},
	{"GET", "/v1/agent/state", ROLE_GATEWAY, get_state, QUERY_ANY},
	{"GET", "/v1/agent/held", ROLE_GATEWAY, get_held, QUERY_ANY},
	{"POST", "/v1/agent/report", ROLE_GATEWAY | ROUTE_OWN_BODY, post_report, QUERY_ANY},
	{0},
};
