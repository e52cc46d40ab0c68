// SPDX-License-Identifier: BSD-2-Clause
/* The parts of the API that need neither database nor network: paths, forms, tokens, sealed keys. */
#include "problem.h"
#include "resources/form.h"
#include "resources/peer_input.h"
#include "routes.h"
#include "url.h"
#include "seal.h"
#include "share.h"
#include "token.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- paths ---- */

static void test_url_decode(void **state)
{
	static const struct {
		const char *text, *decoded; /* NULL: refused */
	} cases[] = {
		{"", ""},           {"plain", "plain"},     {"a%20b", "a b"},
		{"%2Fx%2f", "/x/"}, {"%C3%A4", "\xc3\xa4"}, {"a+b", "a+b"},
		{"%", NULL},        {"%4", NULL},           {"%zz", NULL},
		{"a%00b", NULL},    {"100%", NULL},         {"%25", "%"},
	};
	char buffer[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(buffer, sizeof(buffer), "%s", cases[i].text);
		assert_int_equal(url_decode(buffer), cases[i].decoded ? 0 : -EINVAL);
		if (cases[i].decoded)
			assert_string_equal(buffer, cases[i].decoded);
	}
}

static int find(const char *method, const char *path, const struct route **route,
		char *arguments[static MAX_ARGUMENTS], char *allow, size_t size)
{
	for (size_t i = 0; i < MAX_ARGUMENTS; i++) {
		free(arguments[i]);
		arguments[i] = NULL;
	}
	return route_find(method, path, route, arguments, allow, size);
}

static void test_route_find(void **state)
{
	char *arguments[MAX_ARGUMENTS] = {NULL}, allow[48];
	const struct route *route = NULL;

	(void)state;
	assert_int_equal(
		find("GET", "/v1/gateways/prod/peers/a%2Fb", &route, arguments, allow, sizeof(allow)), 0);
	assert_string_equal(route->path, "/v1/gateways/{gateway}/peers/{peer}");
	assert_string_equal(arguments[0], "prod");
	assert_string_equal(arguments[1], "a/b");
	assert_int_equal(find("HEAD", "/v1/health/", &route, arguments, allow, sizeof(allow)), 0);
	assert_string_equal(route->path, "/v1/health");
	assert_int_equal(find("PUT", "/v1/gateways/x", &route, arguments, allow, sizeof(allow)), -EOPNOTSUPP);
	assert_string_equal(allow, "GET, HEAD, PATCH, DELETE");
	assert_int_equal(find("GET", "/v1/gateways//peers", &route, arguments, allow, sizeof(allow)),
			 -ENOENT);
	assert_int_equal(find("GET", "/v1/gatewaysx", &route, arguments, allow, sizeof(allow)), -ENOENT);
	assert_int_equal(find("GET", "", &route, arguments, allow, sizeof(allow)), -ENOENT);
	assert_int_equal(find("GET", "*", &route, arguments, allow, sizeof(allow)), -ENOENT);
	assert_int_equal(find("GET", "/v1/gateways/%zz", &route, arguments, allow, sizeof(allow)), -EILSEQ);
	find("GET", "/", &route, arguments, allow, sizeof(allow));
}

/* Every row has a handler, says whom it is for, and fits what requests hold. */
static void test_route_table(void **state)
{
	size_t n = 0;

	(void)state;
	for (const struct route *route; (route = route_at(n)); n++) {
		size_t arguments = 0;

		for (const char *brace = route->path; (brace = strchr(brace, '{')); brace++)
			arguments++;
		assert_true(arguments <= MAX_ARGUMENTS);
		assert_non_null(route->handler);
		assert_int_not_equal(route->roles, 0);
		/* What a monitor reads has the path that all monitors ask for. */
		assert_true(strncmp(route->path, "/v1/", 4) == 0 || strcmp(route->path, "/metrics") == 0);
	}
	assert_true(n > 50);
}

/* ---- forms ---- */

struct fixture {
	struct request request;
	struct response response;
	json_t *body;
};

static struct form begin(struct fixture *fixture, const char *body)
{
	memset(fixture, 0, sizeof(*fixture));
	fixture->body = json_loads(body, 0, NULL);
	assert_non_null(fixture->body);
	fixture->request.body = fixture->body;
	fixture->request.method = "POST";
	return form_of(&fixture->request, &fixture->response);
}

static void end(struct fixture *fixture)
{
	json_decref(fixture->body);
	json_decref(fixture->response.json);
}

static const char *detail(const struct fixture *fixture)
{
	return json_string_value(json_object_get(fixture->response.json, "detail"));
}

static void test_decimals(void **state)
{
	static const struct {
		const char *text;
		bool accepted;
	} cases[] = {
		{"0", true},
		{"10.5", true},
		{"0.000000001", true},
		{"9999999999.999999999", true},
		{"", false},
		{".5", false},
		{"5.", false},
		{"0.0000000001", false},
		{"-1", false},
		{"+1", false},
		{"1e3", false},
		{"10000000000", false},
		{"99999999999", false},
		{"NaN", false},
		{" 1", false},
		{"1 ", false},
		{"0x10", false},
		{"1,5", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture fixture;
		struct form form;
		char body[64];

		snprintf(body, sizeof(body), "{\"gb\": \"%s\"}", cases[i].text);
		form = begin(&fixture, body);
		(void)form_decimal(&form, "gb", REQUIRED);
		assert_int_equal(form_end(&form), cases[i].accepted ? 0 : -EBADMSG);
		end(&fixture);
	}
}

static void test_the_first_problem_is_told(void **state)
{
	struct fixture fixture;
	struct form form = begin(&fixture, "{\"port\": 0, \"name\": 7, \"other\": 1}");

	(void)state;
	assert_null(form_integer(&form, "port", REQUIRED, 1, 65535));
	assert_null(form_name(&form, "name", REQUIRED));
	assert_int_equal(form_end(&form), -EBADMSG);
	assert_int_equal(fixture.response.status, 422);
	assert_string_equal(detail(&fixture), "port is 0; accepted is an integer from 1 to 65535");
	assert_string_equal(fixture.response.content_type, "application/problem+json");
	end(&fixture);
}

static void test_null_is_absent_but_known(void **state)
{
	struct fixture fixture;
	struct form form = begin(&fixture, "{\"image\": null}");

	(void)state;
	assert_true(form_takes_null(&form, "image"));
	assert_false(form_takes_null(&form, "plan"));
	assert_null(form_text(&form, "image", OPTIONAL, 63));
	assert_int_equal(form_end(&form), 0);
	assert_null(form_text(&form, "image", REQUIRED, 63));
	assert_int_equal(form_end(&form), -EBADMSG);
	assert_string_equal(detail(&fixture), "image is required");
	end(&fixture);
}

static void test_null_changes_what_it_means_something_for(void **state)
{
	struct fixture fixture;
	struct form form = begin(&fixture, "{\"image\": null, \"name\": null}");

	(void)state;
	fixture.request.method = "PATCH";
	form = form_of(&fixture.request, &fixture.response);
	assert_null(form_text(&form, "image", OPTIONAL, 63));
	assert_true(form_takes_null(&form, "image"));
	assert_null(form_title(&form, "name", OPTIONAL));
	assert_int_equal(form_end(&form), -EBADMSG);
	assert_string_equal(detail(&fixture), "name is null; accepted is a value, or a body without it");
	end(&fixture);
}

static void test_fields_nobody_asked_for(void **state)
{
	struct fixture fixture;
	struct form form = begin(&fixture, "{\"name\": \"a\", \"nmae\": \"b\"}");

	(void)state;
	assert_string_equal(form_name(&form, "name", REQUIRED), "a");
	(void)form_bool(&form, "enabled", OPTIONAL);
	assert_int_equal(form_end(&form), -EBADMSG);
	assert_string_equal(detail(&fixture), "nmae is no field here; accepted are: name, enabled");
	end(&fixture);
}

static void test_secrets_are_not_quoted(void **state)
{
	struct fixture fixture;
	struct peer_input input;

	(void)state;
	(void)begin(&fixture, "{\"name\": \"a\", \"public_key\": \"my-private-key\"}");
	assert_int_equal(peer_input_read(&fixture.request, &fixture.response, false, REQUIRED, &input),
			 -EBADMSG);
	assert_null(strstr(detail(&fixture), "my-private-key"));
	peer_input_free(&input);
	end(&fixture);
	(void)begin(
		&fixture,
		"{\"name\": \"a\\u0001\", \"public_key\": \"x\", \"preshared_key\": \"my-preshared-key\"}");
	assert_int_equal(peer_input_read(&fixture.request, &fixture.response, true, OPTIONAL, &input),
			 -EBADMSG);
	assert_null(strstr(detail(&fixture), "my-preshared-key"));
	peer_input_free(&input);
	end(&fixture);
}

static void test_uuids(void **state)
{
	(void)state;
	assert_true(is_uuid("f33b330f-9732-401d-b9cb-15933cde955a"));
	assert_true(is_uuid("F33B330F-9732-401D-B9CB-15933CDE955A"));
	assert_false(is_uuid("f33b330f-9732-401d-b9cb-15933cde955"));
	assert_false(is_uuid("f33b330f-9732-401d-b9cb-15933cde955aa"));
	assert_false(is_uuid("f33b330f09732-401d-b9cb-15933cde955a"));
	assert_false(is_uuid("g33b330f-9732-401d-b9cb-15933cde955a"));
	assert_false(is_uuid(""));
}

/* ---- secrets ---- */

static void test_token_hash(void **state)
{
	char hash[TOKEN_HASH_SIZE], first[TOKEN_TEXT_SIZE], second[TOKEN_TEXT_SIZE];

	(void)state;
	/* python3 -c 'import hashlib; print(hashlib.blake2b(b"abc", digest_size=32).hexdigest())' */
	token_hash("abc", hash);
	assert_string_equal(hash, "\\xbddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	token_generate(first);
	token_generate(second);
	assert_int_equal(strlen(first), 43);
	assert_string_not_equal(first, second);
}

static void test_sealing(void **state)
{
	struct sealing_key sealing = {.id = 1}, other = {.id = 1, .bytes = {1}};
	char first[SEALED_TEXT_SIZE], second[SEALED_TEXT_SIZE];
	struct key key, opened;

	(void)state;
	key_generate_preshared(&key);
	seal_preshared_key(&sealing, "owner", "gateway", "peer", &key, first);
	seal_preshared_key(&sealing, "owner", "gateway", "peer", &key, second);
	assert_string_not_equal(first, second);
	assert_int_equal(strlen(first), SEALED_TEXT_SIZE - 1);
	assert_int_equal(unseal_preshared_key(&sealing, "owner", "gateway", "peer", first, &opened), 0);
	assert_true(key_equal(&key, &opened));
	assert_int_equal(unseal_preshared_key(&sealing, "owner", "gateway", "another", first, &opened),
			 -EBADMSG);
	assert_int_equal(unseal_preshared_key(&sealing, "another", "gateway", "peer", first, &opened),
			 -EBADMSG);
	assert_int_equal(unseal_preshared_key(&other, "owner", "gateway", "peer", first, &opened), -EBADMSG);
	assert_int_equal(unseal_preshared_key(&sealing, "owner", "gateway", "peer", "\\x01", &opened),
			 -EBADMSG);
	assert_int_equal(unseal_preshared_key(&sealing, "owner", "gateway", "peer", "", &opened), -EBADMSG);
	first[40] ^= 1; /* another hexadecimal digit of the nonce */
	assert_int_equal(unseal_preshared_key(&sealing, "owner", "gateway", "peer", first, &opened),
			 -EBADMSG);
}

static void test_sealing_key_file(void **state)
{
	char folder[] = "/tmp/wiretoll-seal-XXXXXX", path[64];
	struct sealing_key first, second;
	struct stat status;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/key", folder);
	assert_int_equal(sealing_key_load(path, &first), -ENOENT);
	assert_int_equal(sealing_key_create(path), 0);
	assert_int_equal(sealing_key_load(path, &first), 0);
	assert_int_equal(sealing_key_create(path), 0); /* an existing one stays */
	assert_int_equal(sealing_key_load(path, &second), 0);
	assert_memory_equal(first.bytes, second.bytes, sizeof(first.bytes));
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(truncate(path, 31), 0);
	assert_int_equal(sealing_key_load(path, &first), -EINVAL);
	unlink(path);
	rmdir(folder);
}

/* ---- shares ---- */

static void offer_report(struct shares *shares, struct exchange *exchange, const char *gateway,
			 const char *owner, enum share_result expected)
{
	struct exchange *refused;

	exchange->share_key.kind = SHARE_REPORTS;
	snprintf(exchange->share_key.name, sizeof(exchange->share_key.name), "%s", gateway);
	snprintf(exchange->share_key.fleet, sizeof(exchange->share_key.fleet), "%s", owner);
	assert_int_equal(shares_offer(shares, exchange, &refused), expected);
	assert_null(refused);
}

static void test_fleets_take_turns(void **state)
{
	const struct share_limits limits[N_SHARE_KINDS] = {[SHARE_REPORTS] = {1, 8}, [SHARE_FLEET] = {3, 5}};
	struct exchange large[6] = {0}, small = {0};
	const char *const gateways[] = {"a", "b", "c", "d", "a", "e"};
	struct shares *shares;

	(void)state;
	assert_int_equal(shares_new(100, limits, &shares), 0);
	for (size_t i = 0; i < ARRAY_SIZE(large); i++)
		offer_report(shares, &large[i], gateways[i], "large", i < 5 ? SHARE_TAKEN : FLEET_FULL);
	offer_report(shares, &small, "x", "small", SHARE_TAKEN);
	/* The other owner's only report comes second, and of four gateways three are served at a time. */
	assert_ptr_equal(shares_take(shares), &large[0]);
	assert_ptr_equal(shares_take(shares), &small);
	assert_ptr_equal(shares_take(shares), &large[1]);
	assert_ptr_equal(shares_take(shares), &large[2]);
	assert_null(shares_take(shares));
	shares_done(shares, &large[1]);
	assert_ptr_equal(shares_take(shares), &large[3]);
	/* A gateway's second waits for its first, whoever has room. */
	shares_done(shares, &large[2]);
	assert_null(shares_take(shares));
	shares_done(shares, &large[0]);
	assert_ptr_equal(shares_take(shares), &large[4]);
	shares_done(shares, &large[3]);
	shares_done(shares, &large[4]);
	shares_done(shares, &small);
	assert_null(shares_take(shares));
	shares_free(shares);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_url_decode),
		cmocka_unit_test(test_fleets_take_turns),
		cmocka_unit_test(test_route_find),
		cmocka_unit_test(test_route_table),
		cmocka_unit_test(test_decimals),
		cmocka_unit_test(test_the_first_problem_is_told),
		cmocka_unit_test(test_null_is_absent_but_known),
		cmocka_unit_test(test_null_changes_what_it_means_something_for),
		cmocka_unit_test(test_fields_nobody_asked_for),
		cmocka_unit_test(test_secrets_are_not_quoted),
		cmocka_unit_test(test_uuids),
		cmocka_unit_test(test_token_hash),
		cmocka_unit_test(test_sealing),
		cmocka_unit_test(test_sealing_key_file),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
