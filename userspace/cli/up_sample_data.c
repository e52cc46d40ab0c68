// SPDX-License-Identifier: BSD-2-Clause
/* The sample data, through the API as any operator would enter it. What has its name already stays as it is.
 */
#include "base/file.h"
#include "base/json.h"
#include "cli/up_postgres.h"
#include "cli/up_sample_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 60000
#define POLL_MS     100

#define OPERATOR "operator"
#define CUSTOMER "customer"
#define VPC      "sample-vpc"
#define PLACE    "sample"

/* ---- logging in -----------------------------------------------------------------------------------------
 */

static int make_admin_token(const struct up *up, char **ret_token)
{
	up_path state, database;
	const char *arguments[] = {"init",
				   "--state",
				   up_join(up->state, "api", state),
				   "--database-file",
				   database,
				   "--new-admin-token",
				   NULL};
	_cleanup_secret_ char *output = NULL;
	_cleanup_json_ json_t *answer = NULL;
	const char *token;
	int r;

	up_join(up->state, UP_API_FILE, database);
	r = up_run_api(up, UP_API_UID, arguments, &output);
	if (r < 0)
		return r;
	answer = json_loads(output, 0, NULL);
	token = json_string_value(json_object_get(answer, "admin_token"));
	*ret_token = token ? strdup(token) : NULL;
	return *ret_token ? 0 : -EPROTO;
}

static int trade(struct session *session, const char *one_time_token)
{
	_cleanup_json_ json_t *body = json_pack("{s:s}", "one_time_token", one_time_token), *answer = NULL;
	const char *token;
	int r = session_call(session, "POST", "/v1/login", body, &answer);

	if (r < 0)
		return r;
	token = json_string_value(json_object_get(answer, "token"));
	session->config.token = token ? strdup(token) : NULL;
	if (!session->config.token)
		return session_fail(session, -EBADMSG, "the API's answer to POST /v1/login has no token");
	http_close(session->http);
	session->http = NULL;
	r = http_open(session->config.url, session->config.ca_pem, session->config.token, &session->http);
	return r < 0 ? session_no_memory(session) : 0;
}

int sample_login(const struct up *up, struct session *session)
{
	_cleanup_secret_ char *one_time_token = NULL;
	_cleanup_free_ char *ca_pem = NULL;
	char url[128];
	up_path path;
	int r = file_read(up_join(up->state, "api/ca.pem", path), 65536, &ca_pem, NULL);

	if (r == 0)
		r = make_admin_token(up, &one_time_token);
	if (r < 0)
		return session_fail(session, r, "could not make an admin's token");
	up_own_url(up, url);
	r = session_open_anonymous(session, url, ca_pem);
	return r == 0 ? trade(session, one_time_token) : r;
}

/* ---- the data -------------------------------------------------------------------------------------------
 */

/* Takes the body over. */
static int ensure(struct session *session, const char *nouns, json_t *new_body)
{
	_cleanup_json_ json_t *body = new_body;
	_cleanup_free_ char *one = NULL, *all = path_format("/v1/%s", nouns);
	const char *name = json_string_value(json_object_get(body, "name"));
	int r;

	one = name ? path_format("/v1/%s/%s", nouns, name) : NULL;
	if (!one || !all)
		return session_no_memory(session);
	r = session_call(session, "GET", one, NULL, NULL);
	if (r == 0 || session->status != 404)
		return r;
	return session_call(session, "POST", all, body, NULL);
}

static int fill_offer(struct session *session)
{
	int r = ensure(session, "images",
		       json_pack("{s:s, s:s, s:s, s:b}", "name", "sample-gateway", "purpose", "vpn_gateway",
				 "path", "/", "enabled", true));

	if (r == 0)
		r = ensure(session, "plans",
			   json_pack("{s:s, s:i, s:i, s:i, s:s, s:n}", "name", "sample-small", "cpu", 1,
				     "ram_mb", 512, "storage_gb", 4, "included_gb", "20", "credit_value"));
	if (r == 0)
		r = ensure(session, "plan-groups",
			   json_pack("{s:s, s:[s]}", "name", "sample-plans", "plans", "sample-small"));
	if (r == 0)
		r = ensure(session, "locations",
			   json_pack("{s:s, s:b, s:s, s:s, s:s, s:s, s:s, s:s}", "name", PLACE, "vpn_enabled",
				     true, "credit_value", "7.44", "bandwidth_rate", "0.10", "accounting",
				     "both", "overage", "revoke_access", "image", "sample-gateway",
				     "plan_group", "sample-plans"));
	return r;
}

static int fill_people(struct session *session)
{
	int r = ensure(session, "users",
		       json_pack("{s:s, s:s, s:s, s:i}", "name", OPERATOR, "email", "operator@example.net",
				 "role", "admin", "max_gateways", 0));

	if (r == 0)
		r = ensure(session, "users",
			   json_pack("{s:s, s:s, s:s, s:i}", "name", CUSTOMER, "email",
				     "customer@example.net", "role", "user", "max_gateways", 5));
	return r;
}

static json_t *subnet(const char *cidr, bool is_public, const char *range, const char *bridge, json_t *netns)
{
	return json_pack("{s:s, s:b, s:s, s:n, s:{s:s, s:o}}", "cidr", cidr, "public", is_public,
			 "gateway_range", range, "router", "attachment", "bridge", bridge, "route_netns",
			 netns);
}

static int fill_networks(const struct up *up, struct session *session)
{
	int r = ensure(session, "hypervisors",
		       json_pack("{s:s, s:s, s:s, s:i, s:i, s:i}", "name", up->hypervisors[0], "location",
				 PLACE, "driver", "netns", "cpu", 8, "ram_mb", 8192, "storage_gb", 100));

	if (r < 0)
		return r;
	return ensure(session, "vpcs",
		      json_pack("{s:s, s:s, s:s, s:[o, o]}", "name", VPC, "owner", CUSTOMER, "location",
				PLACE, "subnets",
				subnet(SAMPLE_PRIVATE, false, SAMPLE_PRIVATE_RANGE, SAMPLE_PRIVATE_BRIDGE,
				       json_pack("[s]", SAMPLE_SERVER)),
				subnet(SAMPLE_PUBLIC, true, SAMPLE_PUBLIC_RANGE, SAMPLE_PUBLIC_BRIDGE,
				       json_array())));
}

int sample_fill(const struct up *up, struct session *session)
{
	int r = fill_offer(session);

	if (r == 0)
		r = fill_people(session);
	if (r == 0)
		r = fill_networks(up, session);
	if (r == 0)
		r = ensure(session, "gateways",
			   json_pack("{s:s, s:s, s:s}", "name", SAMPLE_GATEWAY, "vpc", VPC, "plan",
				     "sample-small"));
	return r;
}

/* Whether its agent has reported what the API wants of it now. */
static bool has_applied(const json_t *gateway)
{
	return json_equal(json_object_get(gateway, "revision"), json_object_get(gateway, "applied_revision"));
}

int sample_await_gateway(struct session *session)
{
	for (int waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
		_cleanup_json_ json_t *gateway = NULL;
		const char *status, *error;
		int r = session_call(session, "GET", "/v1/gateways/" SAMPLE_GATEWAY, NULL, &gateway);

		if (r < 0)
			return r;
		status = json_string_value(json_object_get(gateway, "status")) ?: "";
		error = json_string_value(json_object_get(gateway, "error")) ?: "";
		if (strcmp(status, "active") == 0 && has_applied(gateway))
			return 0;
		if (strcmp(status, "active") != 0 && strcmp(status, "deploying") != 0)
			return session_fail(session, -EIO, "the gateway's status is %s: %.300s", status,
					    error);
		r = sample_wait(POLL_MS);
		if (r < 0)
			return r;
	}
	return session_fail(session, -ETIMEDOUT, "the gateway is not active after %d s", PATIENCE_MS / 1000);
}

/* ---- the client -----------------------------------------------------------------------------------------
 */

int sample_add_peer(struct session *session, const char *public_key, char **ret_config)
{
	static const char peers[] = "/v1/gateways/" SAMPLE_GATEWAY "/peers";
	static const char peer[] = "/v1/gateways/" SAMPLE_GATEWAY "/peers/" SAMPLE_PEER;
	_cleanup_json_ json_t *change = json_pack("{s:s}", "public_key", public_key);
	_cleanup_json_ json_t *body = json_pack("{s:s, s:s, s:s}", "name", SAMPLE_PEER, "kind",
						"road_warrior", "public_key", public_key);
	int r = session_call(session, "PATCH", peer, change, NULL);

	if (r < 0 && session->status == 404)
		r = session_call(session, "POST", peers, body, NULL);
	/* A handshake that comes too early is repeated only after 5 s. */
	if (r == 0)
		r = sample_await_gateway(session);
	if (r < 0)
		return r;
	return session_text(session, "/v1/gateways/" SAMPLE_GATEWAY "/peers/" SAMPLE_PEER "/config",
			    ret_config);
}

/* ---- signing in -----------------------------------------------------------------------------------------
 */

static int print_login(struct session *session, const char *user, const char *who)
{
	_cleanup_free_ char *path = path_format("/v1/users/%s/login-token", user);
	_cleanup_json_ json_t *empty = json_object(), *answer = NULL;
	const char *token;
	int r;

	if (!path)
		return session_no_memory(session);
	r = session_call(session, "POST", path, empty, &answer);
	if (r < 0)
		return r;
	token = json_string_value(json_object_get(answer, "one_time_token"));
	if (!token)
		return session_fail(session, -EBADMSG, "the API has made no token for %s", user);
	printf("  %s, once, until %s:\n    %s\n", who,
	       json_string_value(json_object_get(answer, "expires")) ?: "further notice", token);
	return 0;
}

int sample_print_logins(struct session *session)
{
	uint8_t fingerprint[32];
	_cleanup_free_ char *pem = NULL;
	char text[2 * sizeof(fingerprint) + 1];
	int r = http_fetch_ca(session->config.url, &pem, fingerprint, session->problem);

	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(fingerprint); i++)
		snprintf(text + 2 * i, 3, "%02x", fingerprint[i]);
	printf("\nSign in with one of the tokens below; it asks for it:\n\n  wiretoll login %s "
	       "--ca-fingerprint %s\n\n",
	       session->config.url, text);
	r = print_login(session, OPERATOR, "the operator \"" OPERATOR "\"");
	if (r == 0)
		r = print_login(session, CUSTOMER, "the customer \"" CUSTOMER "\"");
	if (r == 0)
		puts("\nthen: wiretoll gateway top " SAMPLE_GATEWAY
		     "   (WIRETOLL_CONFIG=FILE before each keeps two logins apart)\n"
		     "Ctrl-C stops and removes all of it.\n");
	fflush(stdout);
	return r;
}
