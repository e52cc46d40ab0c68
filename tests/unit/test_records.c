// SPDX-License-Identifier: BSD-2-Clause
/* The short way of reading a report's records, against the long one through JSON: what it takes, both read
 * alike. */
#include "billing/records.h"
#include "billing/report.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PEER "\"0b2d8a4e-6c1f-4f7a-9a3e-00fF10a2b3c4\""
#define COUNTS                                                                                               \
	",\"download_bytes\":\"20\",\"upload_packets\":\"3\",\"download_packets\":\"9223372036854775807\","  \
	"\"undelivered_bytes\":\"0\",\"refused_bytes\":\"1\""
#define RECORD(slot, peer, hour, up, split)                                                                  \
	"{\"slot\":" slot ",\"incarnation\":7,\"peer\":" peer ",\"hour\":\"2026-11-22T" hour                 \
	":00:00.000000Z\",\"upload_bytes\":\"" up "\"" COUNTS split "}"
#define BEFORE                                                                                               \
	"{\"generation\":1,\"epoch\":{\"id\":" PEER ",\"boot_id\":" PEER ",\"final\":false},\"seq\":1,"      \
	"\"covered_from\":\"2026-11-22T14:00:00Z\",\"covered_to\":\"2026-11-22T15:00:00Z\",\"states\":[],"   \
	"\"cannot_apply\":[{\"what\":\"\\\\\\\"records\\\":[\",\"reason\":\"x\"}],\"public_key\":"           \
	"\"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\",\"applied_revision\":1,\"counted\":\"1\","         \
	"\"records\":"
#define BEHIND ",\"status\":[],\"now\":\"2026-11-22T15:00:00Z\"}"

static const char body[] = BEFORE "[" RECORD("0", "null", "14", "0", "") "," RECORD(
	"1", PEER, "15", "10", ",\"split\":true") "," RECORD("1", PEER, "14", "11", "") "]" BEHIND;

static json_t *parse(const char *text, size_t length)
{
	return json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
}

static void compare(const struct sample_list *a, const struct sample_list *b)
{
	assert_int_equal(a->n, b->n);
	assert_int_equal(a->shrunk, b->shrunk);
	assert_int_equal(a->tangled, b->tangled);
	assert_int_equal(a->several, b->several);
	for (size_t i = 0; i < a->n; i++) {
		const struct sample *left = &a->samples[i], *right = &b->samples[i];

		assert_true(left->slot == right->slot && left->incarnation == right->incarnation &&
			    left->hour_ns == right->hour_ns && left->index == right->index &&
			    left->split == right->split);
		assert_memory_equal(left->peer, right->peer, sizeof(left->peer));
		assert_memory_equal(left->totals, right->totals, sizeof(left->totals));
	}
}

/* Whether the short way takes it and the rest is right; if so, both ways have read the same. */
static bool read_both_ways(const char *text, size_t length)
{
	_cleanup_samples_ struct sample_list taken = {0}, read = {0};
	_cleanup_json_ json_t *whole = NULL, *without = NULL;
	struct json_problem problem = {0};
	_cleanup_free_ char *rest = NULL;
	size_t rest_length;
	int r = records_take(text, length, &taken, &rest, &rest_length);

	assert_true(r == 0 || r == -ENODATA);
	if (r < 0)
		return false;
	without = parse(rest, rest_length);
	if (!without || report_check(without, &problem) < 0)
		return false;
	assert_int_equal(json_array_size(json_object_get(without, "records")), 0);
	whole = parse(text, length);
	assert_non_null(whole);
	assert_int_equal(report_check(whole, &problem), 0);
	assert_int_equal(samples_read(json_object_get(whole, "records"), &read), 0);
	compare(&taken, &read);
	assert_int_equal(json_array_clear(json_object_get(whole, "records")), 0);
	assert_true(json_equal(whole, without));
	return true;
}

static void test_the_agents_form(void **state)
{
	static const char *const others[] = {
		BEFORE "[]" BEHIND,
		BEFORE "[" RECORD("2", PEER, "00", "0", "") "]" BEHIND,
		/* Two slots of one peer. */
		BEFORE "[" RECORD("2", PEER, "00", "0", "") "," RECORD("3", PEER, "00", "0", "") "]" BEHIND,
		/* A total that shrank. */
		BEFORE "[" RECORD("2", PEER, "00", "9", "") "," RECORD("2", PEER, "00", "8", "") "]" BEHIND,
	};

	(void)state;
	assert_true(read_both_ways(body, strlen(body)));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_true(read_both_ways(others[i], strlen(others[i])));
}

static void test_other_forms_are_left(void **state)
{
	static const char *const others[] = {
		"",
		"{",
		"[\"records\":[",
		BEFORE,
		BEFORE "[",
		"{\"a\":\"\\",
		"{\"epoch\":{\"records\":[]}}",
		BEFORE "[ ]" BEHIND,
		BEFORE "[" RECORD("2", "null", "00", "0", "") "]" BEHIND,
		BEFORE "[" RECORD("0", PEER, "00", "0", "") "]" BEHIND,
		BEFORE "[" RECORD("01", PEER, "00", "0", "") "]" BEHIND,
		BEFORE "[" RECORD("2147483648", PEER, "00", "0", "") "]" BEHIND,
		BEFORE "[" RECORD("1", PEER, "00", "9223372036854775808", "") "]" BEHIND,
		BEFORE "[" RECORD("1", PEER, "00", "18446744073709551617", "") "]" BEHIND,
		BEFORE "[" RECORD("1", PEER, "00", "", "") "]" BEHIND,
		BEFORE "[" RECORD("1", PEER, "24", "0", "") "]" BEHIND,
		BEFORE "[" RECORD("1", PEER, "00", "0", ",\"split\":false") "]" BEHIND,
		BEFORE "[" RECORD("1", PEER, "00", "0", "") ",]" BEHIND,
		/* Twice, which no reader of JSON may resolve. */
		BEFORE "[]" BEHIND "," BEFORE "[]" BEHIND,
		BEFORE "[],\"records\":[]" BEHIND,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_false(read_both_ways(others[i], strlen(others[i])));
}

/* Every byte replaced, left out and doubled, and every prefix. */
static void test_every_damage(void **state)
{
	static const char replacements[] = "\"\\,:[]{}09aZ- \n\200";
	const size_t length = sizeof(body) - 1;
	char damaged[sizeof(body) + 1];

	(void)state;
	for (size_t at = 0; at < length; at++) {
		char *exact = malloc(at + 1); /* so that a sanitizer sees a look beyond */

		assert_non_null(exact);
		memcpy(exact, body, at);
		assert_false(read_both_ways(exact, at));
		free(exact);
		memcpy(damaged, body, sizeof(body));
		for (size_t i = 0; i < sizeof(replacements) - 1; i++) {
			damaged[at] = replacements[i];
			(void)read_both_ways(damaged, length);
		}
		memmove(damaged + at, body + at + 1, length - at);
		(void)read_both_ways(damaged, length - 1);
		memmove(damaged + at, body + at, length - at);
		damaged[at] = body[at];
		memmove(damaged + at + 1, body + at, length - at);
		(void)read_both_ways(damaged, length + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_agents_form),
		cmocka_unit_test(test_other_forms_are_left),
		cmocka_unit_test(test_every_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
