// SPDX-License-Identifier: BSD-2-Clause
/* The command line's reading of arguments, and what it prints for people. */
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/values.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_json(const json_t *value, const char *expected)
{
	char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

	assert_string_equal(text, expected);
	free(text);
}

static void test_peer_names(void **state)
{
	static const char *const wrong[] = {"", "prod", "/laptop", "prod/", "/", "prod/laptop/x", "prod//x"};
	char longest[2 * NAME_SIZE];
	struct peer_name name;

	(void)state;
	assert_int_equal(peer_name_parse("prod/laptop", &name), 0);
	assert_string_equal(name.gateway, "prod");
	assert_string_equal(name.peer, "laptop");
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(peer_name_parse(wrong[i], &name), -EINVAL);

	memset(longest, 'a', sizeof(longest));
	longest[NAME_SIZE - 1] = '/';
	longest[2 * NAME_SIZE - 1] = '\0';
	assert_int_equal(peer_name_parse(longest, &name), 0);
	assert_int_equal(strlen(name.gateway), NAME_SIZE - 1);
	assert_int_equal(strlen(name.peer), NAME_SIZE - 1);
	longest[NAME_SIZE - 1] = 'a';
	longest[NAME_SIZE] = '/';
	assert_int_equal(peer_name_parse(longest, &name), -EINVAL);
}

static void test_amounts(void **state)
{
	static const char *const right[] = {"0", "10.5", "0.000000001", "9999999999.999999999"};
	static const char *const wrong[] = {"",    ".5", "5.", "-1",           "+1",          "1e3",  "1,5",
					    "0x1", " 1", "1 ", "1.0000000000", "10000000000", "1.2.3"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(right); i++)
		assert_int_equal(amount_check(right[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(amount_check(wrong[i]), -EINVAL);
}

static void test_integers(void **state)
{
	int64_t value = -1;

	(void)state;
	assert_int_equal(integer_parse("51820", &value), 0);
	assert_int_equal(value, 51820);
	assert_int_equal(integer_parse("9223372036854775807", &value), 0);
	assert_true(value == INT64_MAX);
	assert_int_equal(integer_parse("9223372036854775808", &value), -ERANGE);
	assert_int_equal(integer_parse("", &value), -EINVAL);
	assert_int_equal(integer_parse("-1", &value), -EINVAL);
	assert_int_equal(integer_parse("12x", &value), -EINVAL);
}

static void assert_choice(const char *choices, const char *text, const char *expected)
{
	char *word = NULL;

	if (!expected) {
		assert_int_equal(choice_parse(choices, text, &word), -EINVAL);
		assert_null(word);
		return;
	}
	assert_int_equal(choice_parse(choices, text, &word), 0);
	assert_string_equal(word, expected);
	free(word);
}

static void test_choices(void **state)
{
	(void)state;
	assert_choice("road_warrior|site_to_site", "site", "site_to_site");
	assert_choice("road_warrior|site_to_site", "road-warrior", "road_warrior");
	assert_choice("road_warrior|site_to_site", "site_to_site", "site_to_site");
	assert_choice("road_warrior|site_to_site", "site_to_sites", NULL);
	assert_choice("road_warrior|site_to_site", "vpc", NULL);
	assert_choice("road_warrior|site_to_site", "", NULL);
	assert_choice("abc|ab|abd", "a", NULL);
	assert_choice("abc|ab|abd", "ab", "ab");
	assert_choice("abc|ab|abd", "abd", "abd");
}

static void assert_subnet(const char *text, bool is_public, const char *expected)
{
	_cleanup_json_ json_t *subnet = NULL;
	struct json_problem problem;

	assert_int_equal(subnet_parse(text, is_public, &subnet, &problem), 0);
	assert_json(subnet, expected);
}

static void test_subnets(void **state)
{
	(void)state;
	assert_subnet("10.1.0.0/24", false,
		      "{\"attachment\":null,\"cidr\":\"10.1.0.0/24\",\"gateway_range\":null,\"public\":false,"
		      "\"router\":null}");
	assert_subnet(
		"10.1.0.0/24,bridge=br1,range=10.1.0.2-10.1.0.9,hypervisor=h,route-netns=,route-netns=b",
		false,
		"{\"attachment\":{\"bridge\":\"br1\",\"hypervisor\":\"h\",\"route_netns\":[\"\",\"b\"]},"
		"\"cidr\":\"10.1.0.0/24\",\"gateway_range\":\"10.1.0.2-10.1.0.9\",\"public\":false,"
		"\"router\":null}");
	assert_subnet(
		"2001:db8::/64,range=2001:db8::10/124,router=2001:db8::1", true,
		"{\"attachment\":null,\"cidr\":\"2001:db8::/64\",\"gateway_range\":\"2001:db8::10/124\","
		"\"public\":true,\"router\":\"2001:db8::1\"}");
}

/* Each message names the part that is wrong. */
static void test_wrong_subnets(void **state)
{
	static const struct {
		const char *text, *named;
	} cases[] = {
		{"", "subnet"},
		{"10.1.0.0", "subnet"},
		{"10.1.0.1/24", "10.1.0.1/24"},
		{"10.1.0.0/33", "10.1.0.0/33"},
		{"10.1.0.0/24,range=10.1.0.9-10.1.0.2", "range"},
		{"10.1.0.0/24,range=10.1.0.2-2001:db8::1", "range"},
		{"10.1.0.0/24,range=10.1.0.2-", "range"},
		{"10.1.0.0/24,range=", "range"},
		{"10.1.0.0/24,router=10.1.0.1/24", "router"},
		{"10.1.0.0/24,bridge=", "bridge"},
		{"10.1.0.0/24,bridge", "bridge"},
		{"10.1.0.0/24,bridge=\xff", "bridge"},
		{"10.1.0.0/24,route-netns", "route-netns"},
		{"10.1.0.0/24,hypervisor=h", "bridge="},
		{"10.1.0.0/24,route-netns=a", "bridge="},
		{"10.1.0.0/24,vlan=7", "vlan"},
		{"10.1.0.0/24,", "NAME=VALUE"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct json_problem problem = {0};
		json_t *subnet = NULL;

		assert_int_equal(subnet_parse(cases[i].text, false, &subnet, &problem), -EINVAL);
		assert_null(subnet);
		assert_non_null(strstr(problem.message, cases[i].named));
	}
}

static void test_fingerprints(void **state)
{
	char text[65] = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
	uint8_t hash[32];

	(void)state;
	assert_int_equal(fingerprint_parse(text, hash), 0);
	assert_int_equal(hash[0], 0x00);
	assert_int_equal(hash[31], 0xff);
	text[63] = '\0';
	assert_int_equal(fingerprint_parse(text, hash), -EINVAL);
	text[63] = 'g';
	assert_int_equal(fingerprint_parse(text, hash), -EINVAL);
	assert_int_equal(fingerprint_parse("00:11", hash), -EINVAL);
}

static const struct cli_option TEST_OPTIONS[] = {
	{"name", OPTION_TEXT, "name", "NAME", ""},
	{"cpu", OPTION_INTEGER, "cpu", "N", ""},
	{"included-gb", OPTION_AMOUNT, "included_gb", "GB", ""},
	{"unlimited", OPTION_NULL, "included_gb", NULL, ""},
	{"vpn", OPTION_SWITCH, "vpn", "on|off", ""},
	{"dns", OPTION_LIST, "dns", "A,…", ""},
	{"wait", OPTION_FLAG, NULL, NULL, ""},
	{"limit", OPTION_INTEGER, NULL, "N", ""},
	{0},
};

/* Splits at spaces; "_" stands for an empty argument. */
static int parse(char *line, struct arguments *arguments, struct json_problem *problem)
{
	const struct cli_option *tables[] = {TEST_OPTIONS, NULL};
	char *argv[32], *word;
	int argc = 0;

	while ((word = strsep(&line, " ")))
		argv[argc++] = strcmp(word, "_") == 0 ? word + 1 : word;
	return arguments_parse(argc, argv, tables, arguments, problem);
}

static void test_arguments(void **state)
{
	char line[] = "small --cpu 2 --included-gb=10.5 GB --vpn off --wait --dns a,b --dns c -- --name";
	_cleanup_arguments_ struct arguments arguments = {0};
	struct json_problem problem;

	(void)state;
	assert_int_equal(parse(line, &arguments, &problem), 0);
	assert_int_equal(arguments.positional_count, 3);
	assert_string_equal(arguments.positional[0], "small");
	assert_string_equal(arguments.positional[1], "GB");
	assert_string_equal(arguments.positional[2], "--name");
	assert_true(argument_given(&arguments, "wait"));
	assert_false(argument_given(&arguments, "limit"));
	assert_string_equal(argument_value(&arguments, "cpu"), "2");
	assert_json(arguments.fields,
		    "{\"cpu\":2,\"dns\":[\"a\",\"b\",\"c\"],\"included_gb\":\"10.5\",\"vpn\":false}");
}

static void test_null_and_empty(void **state)
{
	char line[] = "--unlimited --dns _";
	_cleanup_arguments_ struct arguments arguments = {0};
	struct json_problem problem;

	(void)state;
	assert_int_equal(parse(line, &arguments, &problem), 0);
	assert_json(arguments.fields, "{\"dns\":[],\"included_gb\":null}");
}

static void test_wrong_arguments(void **state)
{
	static const struct {
		const char *line, *named;
	} cases[] = {
		{"--colour red", "--colour"},
		{"--colour=secret", "--colour"},
		{"-x", "-x"},
		{"--name", "--name needs a value"},
		{"--wait=yes", "--wait takes no value"},
		{"--cpu two", "\"two\""},
		{"--cpu -1", "whole number"},
		{"--included-gb 1.0000000001", "at most 9 places"},
		{"--vpn yes", "on or off"},
		{"--dns a,,b", "--dns"},
		{"--limit x", "--limit"},
		{"--unlimited --included-gb 3", "set twice"},
		{"--cpu 1 --cpu 2", "set twice"},
		{"a b c d", "too many arguments"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_arguments_ struct arguments arguments = {0};
		char *line = strdup(cases[i].line);
		struct json_problem problem = {0};

		assert_int_equal(parse(line, &arguments, &problem), -EINVAL);
		assert_non_null(strstr(problem.message, cases[i].named));
		assert_null(strstr(problem.message, "secret"));
		free(line);
	}
}

static void test_bytes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{999, "999 B"},
		{1000, "1 kB"},
		{1500000000, "1.5 GB"},
		{10000000000, "10 GB"},
		{9999999, "9.999 MB"},
		{9999999999, "9.999 GB"},
		{2000000000000, "2000 GB"},
		{1001000, "1.001 MB"},
		{UINT64_MAX, "18446744073.709 GB"},
	};
	char text[BYTES_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(bytes_format(cases[i].bytes, text), cases[i].text);
}

static void assert_formatted(const char *field, const char *json, const char *expected)
{
	_cleanup_json_ json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
	_cleanup_free_ char *text = field_format(field, value);

	assert_string_equal(text, expected);
}

/* G5, and names that would steer the terminal. */
static void test_fields(void **state)
{
	(void)state;
	assert_formatted("bandwidth",
			 "{\"used_bytes\":\"1500000000\",\"allowance_bytes\":\"9000000000\","
			 "\"extra_bytes\":\"1000000000\",\"enforced\":true}",
			 "1.5 GB / 10 GB");
	assert_formatted("bandwidth",
			 "{\"used_bytes\":\"84\",\"allowance_bytes\":null,\"extra_bytes\":\"0\","
			 "\"enforced\":false}",
			 "84 B / ∞");
	assert_formatted("bandwidth",
			 "{\"used_bytes\":\"84\",\"allowance_bytes\":\"10000000000\",\"extra_bytes\":\"0\","
			 "\"enforced\":false}",
			 "84 B / ∞ (plan includes 10 GB, not enforced)");
	assert_formatted("included_gb", "null", "∞");
	assert_formatted("included_gb", "\"10.5\"", "10.5 GB");
	assert_formatted("upload_bytes", "\"1500000\"", "1.5 MB");
	assert_formatted("allowed_ips", "[\"10.0.0.0/8\",\"fd00::/8\"]", "10.0.0.0/8, fd00::/8");
	assert_formatted("allowed_ips", "[]", "-");
	assert_formatted("name", "\"a\\u001b[31mb\\u009bc\\nd\"", "a?[31mb??c?d");
}

static void test_tables(void **state)
{
	_cleanup_json_ json_t *rows = json_loads("[{\"name\":\"ä\",\"included_gb\":\"10.5\",\"ok\":true},"
						 "{\"name\":\"longer\",\"included_gb\":null,\"ok\":false}]",
						 0, NULL);
	char *text = NULL;
	size_t length;
	FILE *file = open_memstream(&text, &length);

	(void)state;
	assert_int_equal(table_print(file, "name,included_gb,ok=FINE", rows), 0);
	fclose(file);
	assert_string_equal(text, "NAME    INCLUDED  FINE\n"
				  "ä        10.5 GB  yes\n"
				  "longer         ∞  no\n");
	free(text);
}

static void test_paths(void **state)
{
	char *path = path_format("/v1/gateways/%s/peers/%s", "a/../b?c", "ü");

	(void)state;
	assert_string_equal(path, "/v1/gateways/a%2F..%2Fb%3Fc/peers/%C3%BC");
	free(path);
}

/* Every entry can be run and is described; no option of a command hides another one. */
static void test_command_table(void **state)
{
	(void)state;
	for (const struct command *command = COMMANDS; command->noun; command++) {
		const struct cli_option *tables[MAX_TABLES], *all[64];
		size_t count = 0;

		assert_true((command->run != NULL) != (command->program != NULL));
		assert_non_null(command->arguments);
		assert_true(*command->summary != '\0');
		command_options(command, tables);
		for (unsigned t = 0; tables[t]; t++) {
			for (const struct cli_option *option = tables[t]; option->name; option++) {
				for (size_t i = 0; i < count; i++)
					assert_string_not_equal(all[i]->name, option->name);
				all[count++] = option;
				assert_true(count < ARRAY_SIZE(all));
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_peer_names),     cmocka_unit_test(test_amounts),
		cmocka_unit_test(test_integers),       cmocka_unit_test(test_choices),
		cmocka_unit_test(test_subnets),        cmocka_unit_test(test_wrong_subnets),
		cmocka_unit_test(test_fingerprints),   cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_null_and_empty), cmocka_unit_test(test_wrong_arguments),
		cmocka_unit_test(test_bytes),          cmocka_unit_test(test_fields),
		cmocka_unit_test(test_tables),         cmocka_unit_test(test_paths),
		cmocka_unit_test(test_command_table),
	};

	return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
