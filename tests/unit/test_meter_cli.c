// SPDX-License-Identifier: BSD-2-Clause
/* What `wiretoll meter` reads and remembers: amounts, periods, names, requests, the history (M10, M4). */
#include "base/clock.h"
#include "base/file.h"
#include "cli/meter.h"
#include "standalone/station_internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GB 1000000000ULL

#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="
#define KEY_B "//////////////////////////////////////////8="

static int64_t utc(const char *text)
{
	int64_t ns;

	assert_int_equal(clock_parse(text, &ns), 0);
	return ns;
}

static void test_amounts(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		enum period period;
	} right[] = {
		{"0", 0, PERIOD_EVER},
		{"1234567", 1234567, PERIOD_EVER},
		{"1B", 1, PERIOD_EVER},
		{"50GB/month", 50 * GB, PERIOD_MONTH},
		{"50 gb/day", 50 * GB, PERIOD_DAY},
		{"1.5GB", 1500000000, PERIOD_EVER},
		{"0.000000001GB", 1, PERIOD_EVER},
		{"1GiB", 1 << 30, PERIOD_EVER},
		{"0.5KiB/day", 512, PERIOD_DAY},
		{"9223372036854775807", INT64_MAX, PERIOD_EVER},
		{"8PB/month", 8000000 * GB, PERIOD_MONTH},
	};
	static const char *const wrong[] = {
		"",     "GB",    "-1",   "+1",       "1e9",      "1.GB",          ".5GB",  "1.5",     "1.5B",
		"1GBs", "1 GB ", "1GB/", "1GB/hour", "1GB/ever", "1GB/month/day", "1,5GB", "1.0.0GB", " 1GB"};
	struct amount amount;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
		assert_int_equal(amount_parse(right[i].text, &amount), 0);
		assert_int_equal(amount.bytes, right[i].bytes);
		assert_int_equal(amount.period, right[i].period);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(amount_parse(wrong[i], &amount), -EINVAL);
	assert_int_equal(amount_parse("9223372036854775808", &amount), -ERANGE);
	assert_int_equal(amount_parse("9224PB", &amount), -ERANGE);
	assert_true(amount_parse("99999999999999999999999999999999999999999PB", &amount) < 0);
}

static void test_periods(void **state)
{
	int64_t leap = utc("2028-02-29T23:59:59.999999999Z"), december = utc("2026-12-31T12:00:00Z");

	(void)state;
	assert_int_equal(period_start(PERIOD_DAY, leap), utc("2028-02-29T00:00:00Z"));
	assert_int_equal(period_end(PERIOD_DAY, leap), utc("2028-03-01T00:00:00Z"));
	assert_int_equal(period_start(PERIOD_MONTH, leap), utc("2028-02-01T00:00:00Z"));
	assert_int_equal(period_end(PERIOD_MONTH, leap), utc("2028-03-01T00:00:00Z"));
	assert_int_equal(period_end(PERIOD_MONTH, december), utc("2027-01-01T00:00:00Z"));
	assert_int_equal(period_start(PERIOD_MONTH, period_end(PERIOD_MONTH, december)),
			 utc("2027-01-01T00:00:00Z"));
	assert_int_equal(period_end(PERIOD_EVER, december), INT64_MAX);
}

static void test_intervals(void **state)
{
	static const char *const wrong[] = {"", "0", "0.05", "86401", "1.2345", "1s", "-1", ".5", "1."};
	int64_t ns;

	(void)state;
	assert_int_equal(interval_parse("1", &ns), 0);
	assert_int_equal(ns, NSEC_PER_SEC);
	assert_int_equal(interval_parse("0.125", &ns), 0);
	assert_int_equal(ns, NSEC_PER_SEC / 8);
	assert_int_equal(interval_parse("86400", &ns), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(interval_parse(wrong[i], &ns), -EINVAL);
}

static void test_f16_the_pause_between_two_looks_is_bounded(void **state)
{
	(void)state;
	assert_int_equal(station_dump_pause_ns(0), NSEC_PER_SEC);
	assert_int_equal(station_dump_pause_ns(NSEC_PER_SEC / 100), NSEC_PER_SEC);
	assert_int_equal(station_dump_pause_ns(NSEC_PER_SEC / 40), 5 * NSEC_PER_SEC / 2);
	assert_int_equal(station_dump_pause_ns(5 * NSEC_PER_SEC / 2), 5 * NSEC_PER_SEC);
	assert_int_equal(station_dump_pause_ns(INT64_MAX), 5 * NSEC_PER_SEC);
}

/* ---- names ----------------------------------------------------------------------------------------------
 */

static int read_name_bytes(const char *text, size_t length, struct names *names, struct json_problem *problem)
{
	char path[] = "/tmp/wiretoll-names-XXXXXX";
	int fd = mkstemp(path), r;

	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, text, length), 0);
	close(fd);
	r = names_read(path, names, problem);
	unlink(path);
	return r;
}

static int read_names(const char *text, struct names *names, struct json_problem *problem)
{
	return read_name_bytes(text, strlen(text), names, problem);
}

static void test_f5_f6_names_are_utf8_text(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{"# \xff\n", "line 1: it has bytes that are no UTF-8"},
		{KEY_A " anna\n" KEY_B " b\xfc\x62\n", "line 2: it has bytes that are no UTF-8"},
		{KEY_A " cut\xc3\n", "line 1: it has bytes that are no UTF-8"},
		{KEY_A " \xed\xa0\x80\n", "no UTF-8"},
		{KEY_A " c1\xc2\x9b\n", "control character"},
		{KEY_A " # nobody\n", "line 1: it is to be a public key"},
	};
	static const char nul[] = "# one\n" KEY_A " an\0na\n" KEY_B " bob\n";
	static const char last_nul[] = KEY_A " anna\n\0";
	struct json_problem problem;
	struct names names = {0};
	struct key key;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(read_names(wrong[i].text, &names, &problem), -EBADMSG);
		assert_non_null(strstr(problem.message, wrong[i].says));
	}
	assert_int_equal(read_name_bytes(nul, sizeof(nul) - 1, &names, &problem), -EBADMSG);
	assert_non_null(strstr(problem.message, "line 2: it has a NUL byte"));
	assert_int_equal(read_name_bytes(last_nul, sizeof(last_nul) - 1, &names, &problem), -EBADMSG);
	assert_non_null(strstr(problem.message, "line 2: it has a NUL byte"));
	/* A byte order mark, ends of lines as Windows writes them, comments behind names. */
	assert_int_equal(read_names("\xef\xbb\xbf" KEY_A " anna # her laptop\r\n" KEY_B "\tb#2\t#x\r\n",
				    &names, &problem),
			 0);
	assert_int_equal(names.count, 2);
	assert_int_equal(key_parse(KEY_A, &key), 0);
	assert_string_equal(names_find(&names, &key), "anna");
	assert_int_equal(key_parse(KEY_B, &key), 0);
	assert_string_equal(names_find(&names, &key), "b#2");
	names_free(&names);
	assert_int_equal(read_names("\xef\xbb\xbf", &names, &problem), 0);
	assert_int_equal(names.count, 0);
	names_free(&names);
}

static void test_names(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{KEY_A "\n", "line 1"},
		{"\n" KEY_A " anna\nnokey bob\n", "line 3"},
		{KEY_A " a\x1b[2J\n", "control character"},
		{KEY_A " anna\n" KEY_A " bob\n", "the key"},
		{KEY_A " anna\n" KEY_B " anna\n", "\"anna\""},
	};
	struct json_problem problem;
	struct names names = {0};
	struct key key;

	(void)state;
	assert_int_equal(
		read_names("# all\n\n" KEY_B "\tbob \r\n  " KEY_A " anna's old laptop", &names, &problem), 0);
	assert_int_equal(names.count, 2);
	assert_int_equal(key_parse(KEY_A, &key), 0);
	assert_string_equal(names_find(&names, &key), "anna's old laptop");
	assert_true(key_equal(names_find_key(&names, "anna's old laptop"), &key));
	assert_null(names_find_key(&names, "carl"));
	names_free(&names);
	assert_int_equal(read_names("", &names, &problem), 0);
	assert_null(names_find(&names, &key));
	names_free(&names);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(read_names(wrong[i].text, &names, &problem), -EBADMSG);
		assert_non_null(strstr(problem.message, wrong[i].says));
	}
	assert_int_equal(names_read("/nowhere/names", &names, &problem), -ENOENT);
}

/* ---- the history ----------------------------------------------------------------------------------------
 */

static struct record *record_of(struct history *history, const char *text)
{
	struct record *record;
	struct key key;

	assert_int_equal(key_parse(text, &key), 0);
	record = history_take(history, &key);
	assert_non_null(record);
	return record;
}

static void count(struct record *record, uint64_t upload, uint64_t download)
{
	struct meter_totals cell = record->cell;

	cell.upload_bytes += upload;
	cell.upload_packets++;
	cell.download_bytes += download;
	cell.download_packets++;
	assert_true(record_add(record, &cell));
	assert_false(record_add(record, &cell));
}

/* A slot's reading is added once, whichever process reads it, and a new epoch begins at nothing. */
static void test_totals_over_epochs(void **state)
{
	struct history history;
	struct record *record;

	(void)state;
	assert_int_equal(history_create("wg0", &history), 0);
	record = record_of(&history, KEY_B);
	assert_ptr_equal(history.records[1], record);
	assert_ptr_equal(record_of(&history, KEY_B), record);
	record->slot = 7;
	count(record, 100, 1000);
	count(record, 10, 0);
	assert_int_equal(record->total.upload_bytes, 110);
	history_end_epoch(&history);
	assert_int_equal(record->slot, 0);
	count(record, 5, 5);
	assert_int_equal(record->total.upload_bytes, 115);
	assert_int_equal(record->total.download_bytes, 1005);
	assert_int_equal(record->cell.upload_bytes, 5);
	history_free(&history);
}

static void test_periods_of_use(void **state)
{
	struct history history;
	struct record *record;

	(void)state;
	assert_int_equal(history_create("wg0", &history), 0);
	assert_true(history_turn(&history, utc("2026-11-30T23:00:00Z")));
	assert_false(history_turn(&history, utc("2026-11-30T23:59:59Z")));
	record = record_of(&history, KEY_A);
	record->limit.amount.period = PERIOD_DAY;
	history.limit.amount.period = PERIOD_MONTH;
	count(record, 100, 1000);
	assert_int_equal(record_used(&history, record), 1100);
	history.accounting = WT_UPLOADS;
	assert_int_equal(record_used(&history, record), 100);
	history.accounting = WT_UPLOADS | WT_DOWNLOADS;
	assert_int_equal(history_used(&history), 1100);
	/* A day and a month end; what was not delivered is given back in the period that counted it. */
	assert_true(history_turn(&history, utc("2026-12-01T00:00:00Z")));
	assert_int_equal(record_used(&history, record), 0);
	count(record, 0, 50);
	record->delivery.undelivered = 20;
	assert_int_equal(record_used(&history, record), 30);
	assert_true(history_turn(&history, utc("2026-12-02T00:00:00Z")));
	assert_int_equal(record_used(&history, record), 0);
	assert_int_equal(history_used(&history), 30);
	/* The clock goes back: nothing begins again. */
	assert_false(history_turn(&history, utc("2026-11-30T00:00:00Z")));
	history_free(&history);
}

static void fill(struct history *history)
{
	struct record *record;
	struct cidr prefix;

	assert_int_equal(history_create("wg0", history), 0);
	snprintf(history->place, sizeof(history->place), "12-34");
	memset(history->epoch, 0xa5, sizeof(history->epoch));
	history->accounting = WT_DOWNLOADS;
	assert_true(history_turn(history, utc("2026-11-30T00:00:00Z")));
	history->limit = (struct limit){.set = true,
					.amount = {5 * GB, PERIOD_MONTH},
					.cycle = 3,
					.cycle_period = PERIOD_MONTH,
					.cycle_began = utc("2026-11-01T00:00:00Z")};
	record = record_of(history, KEY_A);
	record->name = strdup("anna \"x\" ü");
	record->present = true;
	record->slot = 3;
	record->incarnation = 2;
	count(record, UINT64_MAX / 2, 7);
	record->before_attach = (struct volume){1, 2};
	record->period_undelivered[PERIOD_DAY] = 4;
	record->delivery = (struct delivery){.undelivered = 5, .base_bytes = 6, .last_sent = 8};
	record->limit = (struct limit){.set = true, .amount = {1, PERIOD_DAY}};
	assert_int_equal(cidr_parse("fd00:1::/64", &prefix), 0);
	record->allowed_ips = calloc(1, sizeof(prefix));
	record->allowed_ips[record->n_allowed_ips++] = prefix;
}

static void test_history_file(void **state)
{
	char path[] = "/tmp/wiretoll-history-XXXXXX";
	struct history written, read;
	struct json_problem problem;
	const struct record *a, *b;

	(void)state;
	close(mkstemp(path));
	fill(&written);
	assert_int_equal(history_save(&written, path), 0);
	assert_int_equal(history_load(path, &read, &problem), 0);
	assert_string_equal(read.interface, "wg0");
	assert_string_equal(read.place, "12-34");
	assert_memory_equal(read.epoch, written.epoch, sizeof(read.epoch));
	assert_memory_equal(read.period_began, written.period_began, sizeof(read.period_began));
	assert_memory_equal(&read.limit, &written.limit, sizeof(read.limit));
	assert_int_equal(read.accounting, WT_DOWNLOADS);
	assert_int_equal(read.n_records, 2);
	a = written.records[1];
	b = read.records[1];
	assert_string_equal(b->name, a->name);
	assert_true(b->present && b->slot == 3 && b->incarnation == 2);
	assert_memory_equal(&b->total, &a->total, sizeof(b->total));
	assert_memory_equal(&b->cell, &a->cell, sizeof(b->cell));
	assert_memory_equal(&b->before_attach, &a->before_attach, sizeof(b->before_attach));
	assert_memory_equal(b->period_undelivered, a->period_undelivered, sizeof(b->period_undelivered));
	assert_memory_equal(&b->delivery, &a->delivery, sizeof(b->delivery));
	assert_memory_equal(&b->limit, &a->limit, sizeof(b->limit));
	assert_true(b->n_allowed_ips == 1 && cidr_equal(b->allowed_ips, a->allowed_ips));
	history_free(&read);
	history_free(&written);
	unlink(path);
}

/* Its last record once more. */
static int write_twice(const char *history, const char *path)
{
	_cleanup_json_ json_t *root = json_loads(history, 0, NULL);
	json_t *records = json_object_get(root, "records");
	_cleanup_free_ char *text = NULL;

	json_array_append(records, json_array_get(records, json_array_size(records) - 1));
	text = json_dumps(root, 0);
	return file_replace(path, text, strlen(text), 0600);
}

/* Whatever a file was cut or changed to: refused with a message, and nothing leaks. */
static void test_damaged_history(void **state)
{
	char path[] = "/tmp/wiretoll-history-XXXXXX";
	_cleanup_free_ char *text = NULL;
	struct json_problem problem;
	struct history history;
	size_t length;

	(void)state;
	close(mkstemp(path));
	fill(&history);
	assert_int_equal(history_save(&history, path), 0);
	history_free(&history);
	assert_int_equal(file_read(path, 1 << 20, &text, &length), 0);
	for (size_t cut = 0; cut < length; cut += 7) {
		assert_int_equal(file_replace(path, text, cut, 0600), 0);
		assert_int_equal(history_load(path, &history, &problem), -EBADMSG);
		assert_non_null(strstr(problem.message, "is no history"));
	}
	/* Every name of a member is needed, or its absence harmless. */
	for (char *member = strchr(text, '"'); member; member = strchr(member + 1, '"')) {
		char saved = member[1];

		member[1] = '~';
		assert_int_equal(file_replace(path, text, length, 0600), 0);
		if (history_load(path, &history, &problem) == 0)
			history_free(&history);
		member[1] = saved;
	}
	/* The same peer twice is no history either. */
	assert_int_equal(write_twice(text, path), 0);
	assert_int_equal(history_load(path, &history, &problem), -EBADMSG);
	assert_non_null(strstr(problem.message, "twice"));
	unlink(path);
	assert_int_equal(history_load(path, &history, &problem), -ENOENT);
}

/* ---- delivery (M4) --------------------------------------------------------------------------------------
 */

static void test_nothing_dropped_is_exactly_zero(void **state)
{
	struct record record = {0};
	uint64_t sent = 1000;

	(void)state;
	delivery_begin(&record, sent);
	for (int64_t second = 1; second < 1000; second++) {
		/* WireGuard sends what was counted, padded to 16 and 32 bytes longer, and now and then more.
		 */
		assert_false(delivery_follow(&record, sent, second * NSEC_PER_SEC));
		count(&record, 0, 1337);
		sent += 1344 + 32 + (second % 120 == 0 ? 148 : 0);
	}
	assert_int_equal(record.delivery.undelivered, 0);
}

static void test_dropped_is_found_after_100_seconds(void **state)
{
	struct record record = {0};
	uint64_t sent = 0;
	bool found = false;

	(void)state;
	delivery_begin(&record, sent);
	for (int64_t second = 1; second <= 100; second++) {
		assert_false(delivery_follow(&record, sent, second * NSEC_PER_SEC));
		count(&record, 0, 1344);
		sent += second <= 75 ? 1344 + 32 : 0;
	}
	for (int64_t second = 101; second <= 301; second++)
		found |= delivery_follow(&record, sent, second * NSEC_PER_SEC);
	assert_true(found);
	assert_int_equal(record.delivery.undelivered, 25 * 1344);
	/* WireGuard's counter begins anew with a peer made again: what is known stays, nothing is invented.
	 */
	for (int64_t second = 302; second <= 700; second++)
		assert_false(delivery_follow(&record, 0, second * NSEC_PER_SEC));
	assert_int_equal(record.delivery.undelivered, 25 * 1344);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_amounts),
		cmocka_unit_test(test_periods),
		cmocka_unit_test(test_intervals),
		cmocka_unit_test(test_f16_the_pause_between_two_looks_is_bounded),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_f5_f6_names_are_utf8_text),
		cmocka_unit_test(test_totals_over_epochs),
		cmocka_unit_test(test_periods_of_use),
		cmocka_unit_test(test_history_file),
		cmocka_unit_test(test_damaged_history),
		cmocka_unit_test(test_nothing_dropped_is_exactly_zero),
		cmocka_unit_test(test_dropped_is_found_after_100_seconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
