// SPDX-License-Identifier: BSD-2-Clause
/* The small types that everything else is built from. */
#include "base/cidr.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/host_port.h"
#include "base/file.h"
#include "base/json.h"
#include "base/key.h"
#include "base/special_range.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct cidr parsed(const char *text)
{
	struct cidr cidr;

	if (cidr_parse(text, &cidr) < 0)
		fail_msg("%s is refused", text);
	return cidr;
}

static void test_cidr_round_trip(void **state)
{
	static const char *const texts[][2] = {
		{"10.0.0.0/24", "10.0.0.0/24"},
		{"10.0.0.1", "10.0.0.1/32"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"255.255.255.255/32", "255.255.255.255/32"},
		{"::/0", "::/0"},
		{"fd00:0:0::1", "fd00::1/128"},
		{"2001:DB8::/32", "2001:db8::/32"},
		{"::ffff:192.0.2.1/128", "::ffff:192.0.2.1/128"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct cidr cidr = parsed(texts[i][0]);
		char text[CIDR_TEXT_SIZE];

		assert_string_equal(cidr_format(&cidr, text), texts[i][1]);
	}
}

static void test_endpoint(void **state)
{
	static const char *const good[] = {
		"192.0.2.1:51820", "[2001:db8::1]:1",         "vpn.example.org:65535", "a:1",
		"7.example:1",     "xn--bcher-kva.example:7", "1.2.3.4.example:1",     "a-b.c-d:9",
	};
	static const char *const bad[] = {
		"",
		":1",
		"192.0.2.1",
		"192.0.2.1:",
		"192.0.2.1:0",
		"192.0.2.1:65536",
		"192.0.2.1:+1",
		"192.0.2.1:01",
		"192.0.2.1: 1",
		"192.0.2.1:1 ",
		"192.0.2.1:100000",
		"192.0.2.256:1",
		"999.1.1.1:1",
		"192.0.2.1.5:1",
		"192.0.2.010:1",
		"192.0.2:1",
		"3221225985:1",
		"0xc0000201:1",
		"a.0x7f:1",
		"192.0.2.1.:1",
		"a..b:1",
		".a:1",
		"a.:1",
		"-a.b:1",
		"a-.b:1",
		"a_b.c:1",
		"a b:1",
		"2001:db8::1:1",
		"[2001:db8::1]",
		"[2001:db8::1:1",
		"[192.0.2.1]:1",
		"[fe80::1%eth0]:1",
		"[]:1",
		"[::1]]:1",
		"a.7:1",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example:1",
	};
	struct host_port endpoint;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(host_port_parse(good[i], &endpoint), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (host_port_parse(bad[i], &endpoint) == 0)
			fail_msg("%s is accepted", bad[i]);
	}
	assert_int_equal(host_port_parse("[fd00::7]:51820", &endpoint), 0);
	assert_true(!endpoint.is_name && endpoint.port == 51820 && endpoint.address.family == AF_INET6);
	assert_int_equal(host_port_parse("192.0.2.1.example:2", &endpoint), 0);
	assert_true(endpoint.is_name && endpoint.port == 2);
}

static void test_special_ranges(void **state)
{
	static const char *const usable[] = {
		"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12",    "192.168.0.0/16",   "198.18.0.0/15",
		"8.8.8.8",    "11.0.0.0/8",    "223.255.255.0/24", "fd00::/8",         "fc00::/7",
		"2000::1",    "2a00::/16",     "64:ff9b::/96",     "64:ff9b:1::/48",   "2001:2::/48",
		"2620::/32",  "192.0.1.0/24",  "1.0.0.0/8",        "64:ff9b::8.8.8.8",
	};
	static const char *const unusable[] = {
		"0.0.0.0/0",
		"0.0.0.0/5",
		"0.0.0.0",
		"0.1.2.0/24",
		"64.0.0.0/2",
		"127.0.0.1",
		"126.0.0.0/7",
		"169.254.169.254",
		"192.0.0.8",
		"192.0.0.0/8",
		"224.0.0.0/24",
		"239.1.2.3",
		"240.0.0.0/8",
		"255.255.255.255",
		"::/0",
		"::",
		"::1",
		"::ffff:10.0.0.1",
		"::2",
		"100::1",
		"fe80::/64",
		"fec0::1",
		"ff02::/16",
		"5f00::/32",
		"2001::/32",
		"4000::/16",
		"f000::/16",
		"fe00::1",
		"64:ff9b::/64",
		"64:ff9c::1",
		"64:ff9b::7f00:1",
		"64:ff9b::224.0.0.1",
	};
	static const char *const examples[] = {"192.0.2.0/24", "198.51.100.7", "203.0.113.0/25",
					       "2001:db8::/48", "3fff:1::/32"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(usable); i++) {
		struct cidr cidr = parsed(usable[i]);

		if (special_range_find(&cidr, SPECIAL_UNUSABLE | SPECIAL_DOCUMENTATION))
			fail_msg("%s is special", usable[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(unusable); i++) {
		struct cidr cidr = parsed(unusable[i]);

		if (!special_range_find(&cidr, SPECIAL_UNUSABLE))
			fail_msg("%s is not special", unusable[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
		struct cidr cidr = parsed(examples[i]);

		assert_null(special_range_find(&cidr, SPECIAL_UNUSABLE));
		assert_string_equal(special_range_find(&cidr, SPECIAL_DOCUMENTATION)->name, "documentation");
	}
}

static void test_cidr_refuses(void **state)
{
	static const char *const texts[] = {
		"",
		"/",
		"10.0.0.0/",
		"10.0.0.0/33",
		"10.0.0.0/-1",
		"10.0.0.0/ 8",
		"10.0.0.0/08",
		"10.0.0/8",
		"10.0.0.0.0",
		"10.0.0.256",
		"010.0.0.1",
		"10.0.0.1 ",
		" 10.0.0.1",
		"10.0.0.0/8/8",
		"::/129",
		":::/0",
		"1::2::3",
		"g::/16",
		"10.0.0.0/8x",
		"::/4294967296",
		"10.0.0.0/999999999999",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/1",
	};
	struct cidr cidr;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (cidr_parse(texts[i], &cidr) != -EINVAL)
			fail_msg("\"%s\" is accepted", texts[i]);
	}
	assert_int_equal(cidr_parse_address("10.0.0.0/24", &cidr), -EINVAL);
}

static bool bit(const struct cidr *cidr, unsigned i)
{
	return cidr->bytes[i / 8] >> (7 - i % 8) & 1;
}

/* By definition: all of the shorter prefix's bits agree. */
static bool contains_bitwise(const struct cidr *outer, const struct cidr *inner)
{
	if (outer->family != inner->family || outer->prefix_length > inner->prefix_length)
		return false;
	for (unsigned i = 0; i < outer->prefix_length; i++) {
		if (bit(outer, i) != bit(inner, i))
			return false;
	}
	return true;
}

static struct cidr random_cidr(void)
{
	struct cidr cidr = {.family = rand() % 2 ? AF_INET : AF_INET6};
	unsigned bytes = cidr.family == AF_INET ? 4 : 16;

	/* Few values, so that prefixes often nest. */
	for (unsigned i = 0; i < bytes; i++)
		cidr.bytes[i] = rand() % 8 ? 0 : (uint8_t)(rand() % 4 * 64);
	cidr.prefix_length = (unsigned)rand() % (bytes * 8 + 1);
	return cidr;
}

static void test_cidr_containment(void **state)
{
	int contained = 0;

	(void)state;
	srand(1);
	for (int i = 0; i < 100000; i++) {
		struct cidr a = random_cidr(), b = random_cidr(), network = cidr_network(&a);
		bool expected = contains_bitwise(&a, &b);

		assert_int_equal(cidr_contains(&a, &b), expected);
		assert_int_equal(cidr_overlaps(&a, &b), expected || contains_bitwise(&b, &a));
		assert_true(cidr_is_network(&network) && contains_bitwise(&a, &network));
		assert_int_equal(cidr_equal(&network, &a), cidr_is_network(&a));
		assert_int_equal(cidr_compare(&a, &b) > 0, cidr_compare(&b, &a) < 0);
		contained += expected;
	}
	assert_in_range(contained, 1000, 99000);
}

static void test_cidr_order(void **state)
{
	struct cidr sorted[] = {parsed("10.0.0.0/8"), parsed("10.0.0.0/24"), parsed("10.0.1.0/24"),
				parsed("::/0"), parsed("fd00::/8")};

	(void)state;
	for (size_t i = 0; i + 1 < ARRAY_SIZE(sorted); i++) {
		assert_true(cidr_compare(&sorted[i], &sorted[i + 1]) < 0);
		assert_true(cidr_compare(&sorted[i + 1], &sorted[i]) > 0);
	}
}

/* RFC 7748, section 6.1. */
static void test_key_public(void **state)
{
	struct key private_key, public_key;
	char text[KEY_TEXT_SIZE], hex[65];

	(void)state;
	assert_int_equal(key_parse("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", &private_key), 0);
	assert_int_equal(key_public(&private_key, &public_key), 0);
	assert_string_equal(key_format(&public_key, text), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
	key_format_hex(&public_key, hex);
	assert_string_equal(hex, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
	assert_int_equal(key_parse_hex(hex, 64, &private_key), 0);
	assert_true(key_equal(&private_key, &public_key));
}

static void test_key_refuses(void **state)
{
	static const char *const texts[] = {
		"",
		"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo",    /* no padding */
		"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCp=",   /* unused bits set */
		"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n", /* a line, not a key */
		" wdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
		"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LC-=",
		"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LA==",
	};
	static const char hex[] = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6g";
	struct key key;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (key_parse(texts[i], &key) != -EINVAL)
			fail_msg("text %zu is accepted", i);
	}
	assert_int_equal(key_parse_hex(hex, 64, &key), -EINVAL);
	assert_int_equal(key_parse_hex(hex, 63, &key), -EINVAL);
	assert_int_equal(key_parse_hex(hex, 62, &key), -EINVAL);
}

static void test_key_generate(void **state)
{
	struct key first, second, copy;
	char text[KEY_TEXT_SIZE];

	(void)state;
	for (int i = 0; i < 256; i++) {
		key_generate_private(&first);
		assert_int_equal(first.bytes[0] & 7, 0);
		assert_int_equal(first.bytes[31] & 0xc0, 0x40);
		assert_int_equal(key_parse(key_format(&first, text), &copy), 0);
		assert_true(key_equal(&first, &copy));
	}
	key_generate_preshared(&second);
	assert_false(key_equal(&first, &second) || key_is_zero(&second));
	key_wipe(&second);
	assert_true(key_is_zero(&second));
}

static void test_clock_text(void **state)
{
	/* 29 February, a year's end, before 1970: as `date -u -d TEXT +%s` has them. */
	static const struct {
		const char *text;
		int64_t seconds;
	} instants[] = {
		{"1970-01-01T00:00:00.000000Z", 0},          {"2024-02-29T23:59:59.000000Z", 1709251199},
		{"2026-12-31T23:00:00.000000Z", 1798758000}, {"1969-12-31T23:59:59.000000Z", -1},
		{"2038-01-19T03:14:08.000000Z", 2147483648},
	};
	char text[CLOCK_TEXT_SIZE];
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(instants); i++) {
		assert_string_equal(clock_format(instants[i].seconds * NSEC_PER_SEC, text), instants[i].text);
		assert_int_equal(clock_parse(instants[i].text, &ns), 0);
		assert_int_equal(ns, instants[i].seconds * NSEC_PER_SEC);
	}
	assert_int_equal(clock_parse("2026-12-31T23:00:00.123456789Z", &ns), 0);
	assert_int_equal(ns, 1798758000 * NSEC_PER_SEC + 123456789);
	assert_string_equal(clock_format(ns, text), "2026-12-31T23:00:00.123456Z");
	assert_string_equal(clock_format(-1, text), "1969-12-31T23:59:59.999999Z");
}

static void test_clock_refuses(void **state)
{
	static const char *const texts[] = {
		"",
		"2026-12-31",
		"2026-12-31T23:00:00",
		"2026-12-31T23:00:00+00:00",
		"2026-12-31 23:00:00Z",
		"2026-13-31T23:00:00Z",
		"2026-12-31T24:00:00Z",
		"2026-12-31T23:00:00.1234567891Z",
		"2026-12-31T23:00:00Z ",
		" 2026-12-31T23:00:00Z",
		"2026-02-30T23:00:00Z",
		"2026-12-31T23:00:60Z",
		"2026-12-31T23:00:00.Z",
		"2026-2-3T23:00:00Z",
	};
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (clock_parse(texts[i], &ns) != -EINVAL)
			fail_msg("\"%s\" is accepted", texts[i]);
	}
}

static void test_clock_hours(void **state)
{
	const int64_t hour = 3600 * NSEC_PER_SEC;
	int64_t before = clock_boot_ns();

	(void)state;
	assert_int_equal(clock_hour_start(0), 0);
	assert_int_equal(clock_hour_start(hour - 1), 0);
	assert_int_equal(clock_hour_start(hour), hour);
	assert_int_equal(clock_hour_start(-1), -hour);
	assert_int_equal(clock_hour_start(-hour), -hour);
	assert_true(clock_boot_ns() >= before);
}

static void test_crc32c(void **state)
{
	uint8_t zeros[32] = {0}, ones[32], ascending[32];

	(void)state;
	/* RFC 3720, appendix B.4. */
	memset(ones, 0xff, sizeof(ones));
	for (unsigned i = 0; i < sizeof(ascending); i++)
		ascending[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aa);
	assert_int_equal(crc32c(0, ones, 32), 0x62a8ab43);
	assert_int_equal(crc32c(0, ascending, 32), 0x46dd794e);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(crc32c(0, "", 0), 0);
}

static void test_json_reads(void **state)
{
	_cleanup_json_ json_t *object = json_loads(
		"{\"name\": \"wg0\", \"on\": true, \"port\": 51820, \"bytes\": \"18446744073709551615\","
		" \"list\": [1], \"inner\": {}, \"nothing\": null, \"zero\": \"a\\u0000b\"}",
		JSON_ALLOW_NUL, NULL);
	struct json_problem problem = {0};
	const json_t *value;
	const char *text = "untouched";
	uint64_t bytes = 0;
	int64_t port = 0;
	bool on = false;

	(void)state;
	assert_non_null(object);
	assert_int_equal(json_read_string(object, "name", &text, &problem), 0);
	assert_string_equal(text, "wg0");
	assert_int_equal(json_read_bool(object, "on", &on, &problem), 0);
	assert_true(on);
	assert_int_equal(json_read_int(object, "port", 1, 65535, &port, &problem), 0);
	assert_int_equal(port, 51820);
	assert_int_equal(json_read_u64(object, "bytes", &bytes, &problem), 0);
	assert_true(bytes == UINT64_MAX);
	assert_int_equal(json_read_array(object, "list", &value, &problem), 0);
	assert_int_equal(json_read_object(object, "inner", &value, &problem), 0);
	assert_int_equal(json_read_string(object, "nothing", &text, &problem), -ENOENT);
	assert_int_equal(json_read_string(object, "absent", &text, &problem), -ENOENT);
	assert_string_equal(problem.message, "");
	assert_string_equal(text, "wg0");
	assert_int_equal(json_read_string(object, "zero", &text, &problem), -EINVAL);
	assert_int_equal(json_require(-ENOENT, "absent", &problem), -EINVAL);
	assert_string_equal(problem.field, "absent");
	assert_non_null(strstr(problem.message, "absent"));
}

/* A message names field, value and what is accepted. */
static void assert_problem(const struct json_problem *problem, const char *field, const char *value,
			   const char *accepted)
{
	assert_string_equal(problem->field, field);
	assert_non_null(strstr(problem->message, field));
	assert_non_null(strstr(problem->message, value));
	assert_non_null(strstr(problem->message, accepted));
}

static void test_json_refuses(void **state)
{
	_cleanup_json_ json_t *object =
		json_loads("{\"port\": 65536, \"real\": 1.0, \"name\": 7, \"on\": 1, \"bytes\": 5, \"over\": "
			   "\"18446744073709551616\","
			   " \"signed\": \"-1\", \"empty\": \"\", \"spaced\": \" 1\"}",
			   0, NULL);
	static const char *const counts[] = {"bytes", "over", "signed", "empty", "spaced"};
	struct json_problem problem;
	const char *text;
	uint64_t bytes;
	int64_t port;
	bool on;

	(void)state;
	assert_non_null(object);
	assert_int_equal(json_read_int(object, "port", 1, 65535, &port, &problem), -EINVAL);
	assert_problem(&problem, "port", "65536", "1 to 65535");
	assert_int_equal(json_read_int(object, "real", 0, 9, &port, &problem), -EINVAL);
	assert_int_equal(json_read_string(object, "name", &text, &problem), -EINVAL);
	assert_problem(&problem, "name", "7", "string");
	assert_int_equal(json_read_bool(object, "on", &on, &problem), -EINVAL);
	assert_problem(&problem, "on", "1", "true or false");
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		assert_int_equal(json_read_u64(object, counts[i], &bytes, &problem), -EINVAL);
	assert_problem(&problem, "spaced", " 1", "decimal digits");
}

static void test_key_can_agree(void **state)
{
	struct key private_key, public_key, none = {{0}};

	(void)state;
	key_generate_private(&private_key);
	assert_int_equal(key_public(&private_key, &public_key), 0);
	assert_true(key_can_agree(&public_key));
	assert_false(key_can_agree(&none));
	none.bytes[0] = 1;
	assert_false(key_can_agree(&none));
	/* The same point by other bytes than those that the peer's own are. */
	public_key.bytes[31] |= 0x80;
	assert_false(key_can_agree(&public_key));
	/* 2^255 - 21, the greatest on the curve, and what is behind the modulus. */
	memset(none.bytes, 0xff, sizeof(none.bytes));
	none.bytes[31] = 0x7f;
	none.bytes[0] = 0xeb;
	assert_true(key_can_agree(&none));
	none.bytes[0] = 0xf6;
	assert_false(key_can_agree(&none));
}

static void test_text(void **state)
{
	static const struct {
		const char *text, *shown; /* the same: it is printable */
		size_t length;
	} cases[] = {
		{"", "", 0},
		{"plain", "plain", 5},
		{"\xc3\xa4\xe2\x82\xac\xf0\x9d\x84\x9e", "\xc3\xa4\xe2\x82\xac\xf0\x9d\x84\x9e", 3},
		{"a\nb\x7f", "a\\x0ab\\x7f", 4},
		{"\xff.", "\\xff.", 2},
		{"\xc3", "\xe2\x80\xa6", 1},
		{"\xf0\x9d\x84\"x", "\xe2\x80\xa6\"x", 3},
		{"\xc0\xaf", "\\xc0\\xaf", 1},                   /* "/" in two bytes */
		{"\xed\xa0\x80", "\\xed\\xa0\\x80", 1},          /* a half of a pair of UTF-16 */
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80", 1}, /* behind the last character */
		{"\xc2\x85", "\\xc2\\x85", 1},
		{"\xe2\x80\xae", "\\xe2\\x80\\xae", 1},
		{"a\xe2\x80\x8b", "a\\xe2\\x80\\x8b", 2}, /* a space without a width */
		{"\xc2\xad", "\\xc2\\xad", 1},
	};
	char shown[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_string_equal(text_show(cases[i].text, shown, sizeof(shown)), cases[i].shown);
		assert_int_equal(text_is_printable(cases[i].text),
				 strcmp(cases[i].text, cases[i].shown) == 0);
		assert_int_equal(text_length(cases[i].text), cases[i].length);
	}
	assert_string_equal(text_show("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", shown, 8),
			    "\xc3\xa4\xc3\xa4\xe2\x80\xa6");
}

static char folder[] = "/tmp/test_base.XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[PATH_MAX];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static const char *in_folder(const char *name, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s", folder, name);
	return path;
}

static void test_file_replace(void **state)
{
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX], leftover[PATH_MAX];
	struct stat info;
	size_t length;
	int fd;

	(void)state;
	in_folder("secret", path);
	/* What a crash left behind, readable by all. */
	fd = open(in_folder("secret.new", leftover), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(file_replace(path, "one", 3, 0600), 0);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0600);
	assert_int_equal(access(leftover, F_OK), -1);
	assert_int_equal(file_replace(path, "two!", 4, 0640), 0);
	assert_int_equal(file_read(path, 4, &text, &length), 0);
	assert_string_equal(text, "two!");
	assert_int_equal(length, 4);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0640);
	assert_int_equal(file_replace(in_folder("missing/file", path), "x", 1, 0600), -ENOENT);
}

static void test_file_read(void **state)
{
	_cleanup_free_ char *large = malloc(100000), *text = NULL;
	char path[PATH_MAX];
	char *untouched = large;
	size_t length;

	(void)state;
	memset(large, 'x', 100000);
	in_folder("large", path);
	assert_int_equal(file_replace(path, large, 100000, 0600), 0);
	assert_int_equal(file_read(path, 99999, &untouched, NULL), -EFBIG);
	assert_ptr_equal(untouched, large);
	assert_int_equal(file_read(path, 100000, &text, &length), 0);
	assert_int_equal(length, 100000);
	assert_memory_equal(text, large, 100000);
	assert_int_equal(text[length], '\0');
	assert_int_equal(file_read(in_folder("absent", path), 10, &untouched, NULL), -ENOENT);
}

static void test_file_make_folder(void **state)
{
	char path[PATH_MAX], parent[PATH_MAX];
	struct stat info;

	(void)state;
	in_folder("a/b/c", path);
	assert_int_equal(file_make_folder(path, 0700), 0);
	assert_int_equal(stat(path, &info), 0);
	assert_true(S_ISDIR(info.st_mode) && (info.st_mode & 07777) == 0700);
	assert_int_equal(stat(in_folder("a/b", parent), &info), 0);
	assert_int_equal(info.st_mode & 07777, 0755);
	assert_int_equal(file_make_folder(path, 0755), 0);
	assert_int_equal(file_make_folder("", 0755), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cidr_round_trip),  cmocka_unit_test(test_cidr_refuses),
		cmocka_unit_test(test_cidr_containment), cmocka_unit_test(test_cidr_order),
		cmocka_unit_test(test_key_public),       cmocka_unit_test(test_key_refuses),
		cmocka_unit_test(test_key_generate),     cmocka_unit_test(test_clock_text),
		cmocka_unit_test(test_clock_refuses),    cmocka_unit_test(test_clock_hours),
		cmocka_unit_test(test_crc32c),           cmocka_unit_test(test_json_reads),
		cmocka_unit_test(test_json_refuses),     cmocka_unit_test(test_file_replace),
		cmocka_unit_test(test_file_read),        cmocka_unit_test(test_file_make_folder),
		cmocka_unit_test(test_endpoint),         cmocka_unit_test(test_special_ranges),
		cmocka_unit_test(test_key_can_agree),    cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
