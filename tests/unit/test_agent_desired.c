// SPDX-License-Identifier: BSD-2-Clause
/* What the agent reads: the desired state and endpoints. A wrong field is named with its value and what is
 * accepted. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/desired.h"
#include "agent/endpoints.h"

#define KEY_B "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="

static const char state_text[] =
	"{\"revision\": 7, \"gateway\": \"6f1c2d3e-4b5a-4978-8697-a5b4c3d2e1f0\", \"unknown\": [1],"
	" \"interface\": {\"addresses\": [\"10.99.0.1/24\", \"fd12::1/64\"], \"listen_port\": 51820, "
	"\"mtu\": 1380},"
	" \"firewall\": {\"tunnel_subnets\": [\"10.99.0.0/24\"], \"vpc_subnets\": [\"10.1.0.0/24\"], "
	"\"remote_subnets\": []},"
	" \"routes\": [\"192.168.7.0/24\", \"192.168.6.0/24\", \"192.168.7.0/24\"], \"masquerade\": \"all\","
	" \"peers\": [{\"id\": \"00000000-0000-0000-0000-000000000001\", \"public_key\": \"" KEY_B "\","
	" \"preshared_key\": null, \"endpoint\": null, \"keepalive\": 25, \"allowed_ips\": "
	"[\"10.99.0.2/32\"], \"enabled\": false},"
	" {\"id\": \"00000000-0000-0000-0000-000000000002\", \"public_key\": \"" KEY_A
	"\", \"preshared_key\": \"" KEY_B "\","
	" \"endpoint\": \"site.example:51820\", \"keepalive\": 0, \"allowed_ips\": [\"192.168.7.0/24\"], "
	"\"enabled\": true}],"
	" \"refuse\": [\"admin\", \"billing\"],"
	" \"grants\": [{\"cycle\": 202611, \"grant_seq\": 4, \"ceiling\": \"18446744073709551614\", "
	"\"mask\": \"uploads\", \"epoch\": \"00000000-0000-0000-0000-000000000007\"},"
	" {\"cycle\": 202611, \"grant_seq\": 5, \"ceiling\": null, \"mask\": \"both\"}]}";

static json_t *state(void)
{
	json_t *body = json_loads(state_text, 0, NULL);

	assert_non_null(body);
	return body;
}

static void test_a_whole_state(void **unused)
{
	struct json_problem problem = {0};
	struct desired *desired = NULL;
	json_t *body = state();
	uint8_t id[UUID_SIZE] = {[15] = 2};

	(void)unused;
	assert_int_equal(desired_parse(body, &desired, &problem), 0);
	assert_int_equal(desired->revision, 7);
	assert_int_equal(desired->listen_port, 51820);
	assert_int_equal(desired->mtu, 1380);
	assert_int_equal(desired->addresses.count, 2);
	assert_int_equal(desired->routes.count, 2);
	assert_int_equal(desired->masquerade, NET_MASQUERADE_ALL);
	assert_int_equal(desired->refuse, WT_REFUSE_ADMIN | WT_REFUSE_BILLING);
	assert_int_equal(desired->n_peers, 2);
	assert_true(desired->grants[0].grant.ceiling == 18446744073709551614ULL &&
		    desired->grants[0].grant.mask == WT_UPLOADS);
	assert_true(desired->grants[0].has_epoch && desired->grants[0].epoch[15] == 7);
	assert_true(desired->grants[1].grant.ceiling == WT_NO_CEILING && !desired->grants[1].has_epoch);
	assert_string_equal(desired_find_id(desired, id)->endpoint, "site.example:51820");
	assert_true(desired_find_id(desired, id)->has_preshared_key);
	assert_ptr_equal(desired_find_key(desired, &desired->peers[1].public_key), &desired->peers[1]);
	desired_free(desired);
	json_decref(body);
}

static void test_the_next_grant_comes_last(void **unused)
{
	json_t *next = json_pack("{s:i, s:i, s:s, s:s, s:s}", "cycle", 202612, "grant_seq", 1, "mask", "both",
				 "ceiling", "9", "not_before", "2026-12-01T00:00:00.000000Z");
	struct json_problem problem = {0};
	struct desired *desired = NULL;
	json_t *body = state();

	(void)unused;
	assert_int_equal(desired_parse(body, &desired, &problem), 0);
	assert_int_equal(desired->n_grants, 2);
	desired_free(desired);
	assert_int_equal(json_object_set_new(body, "next_grant", next), 0);
	assert_int_equal(desired_parse(body, &desired, &problem), 0);
	assert_int_equal(desired->n_grants, 3);
	assert_true(desired->grants[0].not_before_ns == 0 && desired->grants[1].not_before_ns == 0);
	assert_true(desired->grants[2].not_before_ns == 1796083200 * 1000000000LL);
	assert_true(desired->grants[2].grant.cycle == 202612 && desired->grants[2].grant.ceiling == 9);
	desired_free(desired);
	json_decref(body);
}

static void test_gone_needs_nothing_else(void **unused)
{
	json_t *body = json_pack("{s:i, s:b}", "revision", 9, "gone", 1);
	struct json_problem problem = {0};
	struct desired *desired = NULL;

	(void)unused;
	assert_int_equal(desired_parse(body, &desired, &problem), 0);
	assert_true(desired->gone);
	desired_free(desired);
	json_decref(body);
}

/* What is put in place of a field, and the words of the message. */
static const struct {
	const char *object, *field, *value, *words;
} mistakes[] = {
	{NULL, "revision", "-1", "revision is -1; accepted is an integer from 0"},
	{NULL, "revision", "null", "revision is required"},
	{NULL, "interface", "null", "interface is required"},
	{NULL, "routes", "[\"10.0.0.1/24\"]",
	 "routes[0] is \"10.0.0.1/24\"; accepted is ADDRESS/LENGTH without host bits"},
	{NULL, "masquerade", "\"some\"", "masquerade is \"some\""},
	{NULL, "refuse", "[\"mood\"]", "refuse is \"mood\""},
	{NULL, "grants", "[{\"cycle\": 1, \"grant_seq\": 1, \"ceiling\": 5, \"mask\": \"both\"}]",
	 "ceiling is 5; accepted is a string"},
	{NULL, "grants", "[{\"cycle\": 1, \"grant_seq\": 1, \"ceiling\": \"5\"}]", "mask is required"},
	{NULL, "grants",
	 "[{\"cycle\": 1, \"grant_seq\": 1, \"ceiling\": \"5\", \"mask\": \"both\", \"epoch\": \"no\"}]",
	 "accepted is a UUID"},
	{NULL, "next_grant", "{\"cycle\": 2, \"grant_seq\": 1, \"mask\": \"both\"}",
	 "not_before is required"},
	{NULL, "next_grant", "{\"cycle\": 2, \"grant_seq\": 1, \"mask\": \"both\", \"not_before\": \"soon\"}",
	 "not_before is \"soon\"; accepted is an RFC 3339 instant"},
	{"interface", "listen_port", "0", "listen_port is 0; accepted is an integer from 1 to 65535"},
	{"interface", "mtu", "100", "mtu is 100"},
	{"interface", "addresses", "[\"10.0.0.256/24\"]", "addresses[0] is \"10.0.0.256/24\""},
	{"firewall", "vpc_subnets", "[7]", "vpc_subnets[0]"},
	{"peer", "id", "\"me\"", "id is \"me\"; accepted is a UUID"},
	{"peer", "public_key", "\"short\"", "public_key is not a key; accepted is 44 characters of base64"},
	{"peer", "preshared_key", "\"secret-but-wrong\"", "preshared_key is not a key"},
	{"peer", "endpoint", "\"nowhere\"", "endpoint is \"nowhere\"; accepted is HOST:PORT"},
	{"peer", "keepalive", "70000", "keepalive is 70000"},
	{"peer", "allowed_ips", "[\"::/129\"]", "allowed_ips[0] is \"::/129\""},
};

static void test_mistakes_are_named(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
		struct json_problem problem = {0};
		struct desired *desired = NULL;
		json_t *body = state(), *object = body;

		if (mistakes[i].object && strcmp(mistakes[i].object, "peer") == 0)
			object = json_array_get(json_object_get(body, "peers"), 0);
		else if (mistakes[i].object)
			object = json_object_get(body, mistakes[i].object);
		json_object_set_new(object, mistakes[i].field,
				    json_loads(mistakes[i].value, JSON_DECODE_ANY, NULL));
		assert_int_equal(desired_parse(body, &desired, &problem), -EINVAL);
		assert_null(desired);
		if (!strstr(problem.message, mistakes[i].words))
			fail_msg("\"%s\" does not say \"%s\"", problem.message, mistakes[i].words);
		assert_null(strstr(problem.message, "secret"));
		json_decref(body);
	}
}

static void test_endpoint_texts(void **unused)
{
	static const char *const good[] = {"203.0.113.5:51820", "[2001:db8::1]:1", "0.0.0.0:65535"};
	static const char *const bad[] = {"",
					  ":1",
					  "203.0.113.5",
					  "203.0.113.5:0",
					  "203.0.113.5:65536",
					  "203.0.113.5:+1",
					  "2001:db8::1:1",
					  "[203.0.113.5]:1",
					  "[2001:db8::1]",
					  "[]:1",
					  "[:1",
					  "host:1",
					  "1.2.3.4:1x",
					  "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:1"};
	struct sockaddr_storage address;
	char text[ENDPOINT_NUMERIC_SIZE];

	(void)unused;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(endpoint_parse(good[i], &address), 0);
		assert_string_equal(endpoint_format(&address, text), good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(endpoint_parse(bad[i], &address), -EINVAL);
}

static void test_endpoints_are_kept(void **unused)
{
	char folder[] = "/tmp/wiretoll-endpoints-XXXXXX", path[64];
	struct endpoints book = {0}, again = {0};
	struct sockaddr_storage address;
	struct stat status;

	(void)unused;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/endpoints.json", folder);
	for (unsigned i = 0; i < 100; i++) {
		uint8_t id[UUID_SIZE] = {(uint8_t)(i * 37)};
		char text[32];

		snprintf(text, sizeof(text), "192.0.2.%u:%u", i, i + 1);
		assert_int_equal(endpoint_parse(text, &address), 0);
		assert_int_equal(endpoints_put(&book, id, &address), 0);
	}
	endpoints_forget(&book, (const uint8_t[UUID_SIZE]){37});
	assert_int_equal(endpoints_save(folder, &book), 0);
	assert_false(book.changed);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(endpoints_load(folder, &again), 0);
	assert_int_equal(again.count, 99);
	assert_null(endpoints_find(&again, (const uint8_t[UUID_SIZE]){37}));
	const struct endpoint *found = endpoints_find(&again, (const uint8_t[UUID_SIZE]){2 * 37});
	assert_non_null(found);
	assert_int_equal(ntohs(((const struct sockaddr_in *)&found->address)->sin_port), 3);
	endpoints_free(&book);
	endpoints_free(&again);
	unlink(path);
	/* A book that is missing is an empty one. */
	assert_int_equal(endpoints_load(folder, &again), 0);
	assert_int_equal(again.count, 0);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_whole_state),
		cmocka_unit_test(test_the_next_grant_comes_last),
		cmocka_unit_test(test_gone_needs_nothing_else),
		cmocka_unit_test(test_mistakes_are_named),
		cmocka_unit_test(test_endpoint_texts),
		cmocka_unit_test(test_endpoints_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
