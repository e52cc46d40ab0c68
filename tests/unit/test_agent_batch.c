// SPDX-License-Identifier: BSD-2-Clause
/* Batches: only what changed, totals that never fall, hours split so that nothing is lost (I11); and the
 * slots beneath. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/batch.h"
#include "agent/split.h"
#include "base/clock.h"
#include "base/crc32c.h"

#define CAPACITY 8

static const uint8_t peer_a[UUID_SIZE] = {0xa}, peer_b[UUID_SIZE] = {0xb};

static int64_t at(const char *text)
{
	int64_t ns;

	assert_int_equal(clock_parse(text, &ns), 0);
	return ns;
}

static struct slots make_slots(void)
{
	struct slots slots;

	assert_int_equal(slots_create(CAPACITY, &slots), 0);
	return slots;
}

static uint32_t assign(struct slots *slots, const uint8_t *peer)
{
	uint32_t slot = 0;

	assert_int_equal(slots_assign(slots, peer, &slot), 0);
	return slot;
}

static struct meter_totals bytes(uint64_t upload, uint64_t download)
{
	return (struct meter_totals){.upload_bytes = upload,
				     .download_bytes = download,
				     .upload_packets = upload / 100,
				     .download_packets = download / 100};
}

static bool sample(struct slots *slots, uint32_t slot, uint64_t upload, uint64_t download)
{
	struct meter_totals cell = bytes(upload, download);

	return slots_sample(slots, slot, &cell);
}

static struct batch_head make_head(const char *from, const char *to)
{
	/* Booted an hour before. */
	return (struct batch_head){.generation = 3,
				   .epoch = {0xe},
				   .seq = 5,
				   .covered_from_ns = at(from),
				   .covered_to_ns = at(to),
				   .boot_from_ns = NSEC_PER_HOUR,
				   .boot_to_ns = NSEC_PER_HOUR + at(to) - at(from),
				   .utc_to_ns = at(to)};
}

static json_t *build(const struct batch_head *head, const struct slots *slots)
{
	struct batch_list list;
	json_error_t error;
	json_t *batch;

	assert_int_equal(batch_build(head, slots, NULL, NULL, &list), 0);
	assert_int_equal(list.n, 1);
	assert_int_equal(strlen(list.parts[0].body), list.parts[0].length);
	batch = json_loadb(list.parts[0].body, list.parts[0].length, JSON_REJECT_DUPLICATES, &error);
	assert_non_null(batch);
	batch_list_free(&list);
	return batch;
}

static const char *text_of(const json_t *object, const char *field)
{
	const char *text = json_string_value(json_object_get(object, field));

	assert_non_null(text);
	return text;
}

static uint64_t count_of(const json_t *object, const char *field)
{
	return strtoull(text_of(object, field), NULL, 10);
}

static json_t *record_at(const json_t *batch, size_t i)
{
	return json_array_get(json_object_get(batch, "records"), i);
}

static size_t n_records(const json_t *batch)
{
	return json_array_size(json_object_get(batch, "records"));
}

static void test_only_changed_slots(void **state)
{
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	struct slots slots = make_slots();
	uint32_t a = assign(&slots, peer_a), b = assign(&slots, peer_b);
	json_t *batch;

	(void)state;
	assert_true(a == 1 && b == 2);
	assert_true(sample(&slots, b, 500, 700));
	assert_false(sample(&slots, b, 500, 700));
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 1);
	assert_int_equal(json_integer_value(json_object_get(record_at(batch, 0), "slot")), b);
	assert_int_equal(json_integer_value(json_object_get(record_at(batch, 0), "incarnation")), 1);
	assert_string_equal(text_of(record_at(batch, 0), "peer"), "0b000000-0000-0000-0000-000000000000");
	assert_string_equal(text_of(record_at(batch, 0), "hour"), "2026-11-22T14:00:00.000000Z");
	assert_string_equal(text_of(record_at(batch, 0), "upload_bytes"), "500");
	assert_string_equal(text_of(record_at(batch, 0), "download_packets"), "7");
	json_decref(batch);
	batch_settled(&slots, 5);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 0);
	json_decref(batch);
	/* Totals, not differences; what belongs to nobody has no peer. */
	sample(&slots, b, 501, 700);
	sample(&slots, WT_SLOT_UNATTRIBUTED, 9, 0);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 2);
	assert_true(json_is_null(json_object_get(record_at(batch, 0), "peer")));
	assert_int_equal(count_of(record_at(batch, 1), "upload_bytes"), 501);
	json_decref(batch);
	slots_free(&slots);
}

/* What an API that leaves a batch out does not know of slots that are idle since. */
static void test_a_whole_batch_says_idle_slots(void **state)
{
	struct batch_head head = make_head("2026-11-22T13:59:50Z", "2026-11-22T14:00:10Z");
	struct slots slots = make_slots();
	json_t *batch;

	(void)state;
	assign(&slots, peer_a);
	assign(&slots, peer_b);
	sample(&slots, 1, 1000, 500);
	batch_settled(&slots, 4);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 0);
	json_decref(batch);
	head.whole = true;
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 1);
	assert_int_equal(json_integer_value(json_object_get(record_at(batch, 0), "slot")), 1);
	assert_int_equal(count_of(record_at(batch, 0), "upload_bytes"), 1000);
	assert_string_equal(text_of(record_at(batch, 0), "hour"), "2026-11-22T14:00:00.000000Z");
	json_decref(batch);
	slots_free(&slots);
}

static void test_I11_hours_are_split_by_time(void **state)
{
	struct batch_head head = make_head("2026-11-22T13:30:00Z", "2026-11-22T16:15:00Z");
	static const char *const hours[] = {"2026-11-22T13:00:00.000000Z", "2026-11-22T14:00:00.000000Z",
					    "2026-11-22T15:00:00.000000Z", "2026-11-22T16:00:00.000000Z"};
	/* 165 minutes: 30, 60, 60, 15 of them; 1,000 bytes on top of 100: 181.8, 363.6, 363.6 and 90.9. */
	static const uint64_t reached[] = {282, 646, 1009, 1100};
	struct slots slots = make_slots();
	json_t *batch;

	(void)state;
	assign(&slots, peer_a);
	sample(&slots, 1, 100, 0);
	batch_settled(&slots, 4);
	sample(&slots, 1, 1100, 0);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), ARRAY_SIZE(hours));
	for (size_t i = 0; i < ARRAY_SIZE(hours); i++) {
		assert_string_equal(text_of(record_at(batch, i), "hour"), hours[i]);
		assert_int_equal(count_of(record_at(batch, i), "upload_bytes"), reached[i]);
		/* Shared out and not measured: it says so. */
		assert_true(json_is_true(json_object_get(record_at(batch, i), "split")));
	}
	json_decref(batch);
	slots_free(&slots);
}

static void test_an_edge_belongs_to_the_hour_before(void **state)
{
	struct batch_head head = make_head("2026-11-22T13:59:50Z", "2026-11-22T14:00:00Z");
	struct slots slots = make_slots();
	json_t *batch;

	(void)state;
	assign(&slots, peer_a);
	sample(&slots, 1, 100, 0);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 1);
	assert_string_equal(text_of(record_at(batch, 0), "hour"), "2026-11-22T13:00:00.000000Z");
	assert_null(json_object_get(record_at(batch, 0), "split"));
	json_decref(batch);
	head = make_head("2026-11-22T14:00:00Z", "2026-11-22T14:00:10Z");
	batch = build(&head, &slots);
	assert_string_equal(text_of(record_at(batch, 0), "hour"), "2026-11-22T14:00:00.000000Z");
	json_decref(batch);
	slots_free(&slots);
}

/* A total whose beginning a restart does not know must not be shared out over hours: it would seem to fall.
 */
static void test_unknown_totals_are_not_split(void **state)
{
	struct batch_head head = make_head("2026-11-22T13:30:00Z", "2026-11-22T16:15:00Z");
	struct wt_owner owner = {.peer_id = {0xa}, .incarnation = 2, .flags = WT_OWNER_IN_USE};
	struct slots slots = make_slots();
	json_t *batch;

	(void)state;
	slots_restore(&slots, 3, &owner);
	sample(&slots, 3, 4000, 0);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 1);
	assert_int_equal(count_of(record_at(batch, 0), "upload_bytes"), 4000);
	assert_string_equal(text_of(record_at(batch, 0), "hour"), "2026-11-22T16:00:00.000000Z");
	json_decref(batch);
	slots_free(&slots);
}

static uint64_t seed = 88172645463325252ULL;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* I11: parts >= 0, their sum is the whole, each less than one from its exact share; any number of hours. */
static void test_I11_parts_add_up(void **state)
{
	uint64_t parts[SPLIT_HOURS_MAX];
	struct split split;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		int64_t length = (int64_t)(next_random() % (uint64_t)(900 * NSEC_PER_HOUR)) >> (round % 40);
		int64_t utc = at("2026-11-22T13:30:00Z") + (int64_t)(next_random() >> 16);
		uint64_t amount = next_random() >> (round % 64), sum = 0;

		split_interval(NSEC_PER_SEC, NSEC_PER_SEC + length, utc, &split);
		split_share(&split, amount, parts);
		for (size_t i = 0; i < split.n; i++) {
			unsigned __int128 exact = (unsigned __int128)amount * split.weights[i];
			unsigned __int128 whole = split.n > 1 ? split.whole : 1;

			sum += parts[i];
			if (split.n == 1)
				continue;
			assert_true((unsigned __int128)parts[i] * whole < exact + whole);
			assert_true(exact < ((unsigned __int128)parts[i] + 1) * whole);
		}
		assert_true(sum == amount);
		assert_int_equal(split.first_hour_ns % NSEC_PER_HOUR, 0);
	}
}

/* I5: growth, spans and 64-bit totals at random: totals never fall, and end at the whole. */
static void test_I5_totals_never_fall(void **state)
{
	(void)state;
	for (int round = 0; round < 300; round++) {
		struct slots slots = make_slots();
		struct batch_head head = make_head("2026-11-22T13:30:00Z", "2026-11-22T13:30:00Z");
		uint64_t before = next_random() >> 2, growth = next_random() >> (round % 60 + 2),
			 last = before;
		json_t *batch;

		head.boot_to_ns += (int64_t)(next_random() % (30 * (uint64_t)NSEC_PER_HOUR));
		assign(&slots, peer_a);
		sample(&slots, 1, before, 0);
		batch_settled(&slots, 1);
		sample(&slots, 1, before + growth, 0);
		batch = build(&head, &slots);
		for (size_t i = 0; i < n_records(batch); i++) {
			assert_true(count_of(record_at(batch, i), "upload_bytes") >= last);
			last = count_of(record_at(batch, i), "upload_bytes");
		}
		assert_true(last == before + growth || growth == 0);
		json_decref(batch);
		slots_free(&slots);
	}
}

/*
 * I12: the wall clock is set at random between batches of 10 s. Totals are what they are, nothing is
 * negative, and no byte is put further from the hour that the clock showed, before or after the step, than
 * its interval is long.
 */
static void test_I12_steps_of_the_clock(void **state)
{
	const int64_t interval = 10 * NSEC_PER_SEC;
	struct slots slots = make_slots();
	int64_t boot = NSEC_PER_HOUR, offset = at("2026-11-22T13:59:31Z"), covered = offset + boot;
	uint64_t total = 0, told = 0;

	(void)state;
	assign(&slots, peer_a);
	for (int round = 0; round < 2000; round++) {
		struct batch_head head = make_head("2026-11-22T13:30:00Z", "2026-11-22T13:30:00Z");
		int64_t begun = boot;
		json_t *batch;

		total += 1 + next_random() % 100000;
		boot += interval;
		if (next_random() % 3 == 0)
			offset += (int64_t)(next_random() % (uint64_t)(48 * NSEC_PER_HOUR)) -
				  24 * NSEC_PER_HOUR;
		head.boot_from_ns = begun;
		head.boot_to_ns = boot;
		head.utc_to_ns = offset + boot;
		head.covered_from_ns = covered;
		covered = head.covered_to_ns = head.utc_to_ns > covered ? head.utc_to_ns : covered + 1000;
		sample(&slots, 1, total, 0);
		batch = build(&head, &slots);
		assert_true(n_records(batch) == 1 || n_records(batch) == 2);
		for (size_t i = 0; i < n_records(batch); i++) {
			int64_t hour = at(text_of(record_at(batch, i), "hour"));
			uint64_t reached = count_of(record_at(batch, i), "upload_bytes");

			assert_true(hour < head.utc_to_ns &&
				    hour + NSEC_PER_HOUR > head.utc_to_ns - interval);
			assert_true(reached >= told);
			told = reached;
		}
		assert_true(told == total);
		assert_true(strcmp(text_of(batch, "covered_from"), text_of(batch, "covered_to")) < 0);
		batch_settled(&slots, 1);
		json_decref(batch);
	}
	slots_free(&slots);
}

/* Bytes found undelivered are a total like the others: alone they make a record, and they are split by time.
 */
static void test_undelivered_is_a_total(void **state)
{
	struct batch_head head = make_head("2026-11-22T13:30:00Z", "2026-11-22T14:30:00Z");
	struct slots slots = make_slots();
	struct batch_record record;
	json_t *batch;

	(void)state;
	assign(&slots, peer_a);
	sample(&slots, 1, 0, 5000);
	slots.slots[1].undelivered = 100;
	batch_settled(&slots, 1);
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 0);
	json_decref(batch);
	slots.slots[1].undelivered = 301;
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 2);
	assert_int_equal(count_of(record_at(batch, 0), "undelivered_bytes"),
			 201); /* of equal remainders the first */
	assert_int_equal(count_of(record_at(batch, 0), "download_bytes"), 5000);
	assert_int_equal(count_of(record_at(batch, 1), "undelivered_bytes"), 301);
	assert_int_equal(batch_parse_record(record_at(batch, 1), &record), 0);
	assert_int_equal(record.undelivered, 301);
	/* Files of earlier versions do not have the field; a wrong one is refused. */
	json_object_del(record_at(batch, 1), "undelivered_bytes");
	assert_int_equal(batch_parse_record(record_at(batch, 1), &record), 0);
	assert_int_equal(record.undelivered, 0);
	json_object_set_new(record_at(batch, 1), "undelivered_bytes", json_string("-1"));
	assert_int_equal(batch_parse_record(record_at(batch, 1), &record), -EINVAL);
	json_decref(batch);
	/* What was found only since is not in a batch before it is on disk. */
	batch_settled(&slots, 2);
	slots.slots[1].audit.undelivered = 999;
	batch = build(&head, &slots);
	assert_int_equal(n_records(batch), 0);
	json_decref(batch);
	slots_free(&slots);
}

static void test_states_grant_and_nulls(void **state)
{
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	struct slots slots = make_slots();
	json_t *batch = build(&head, &slots), *item;

	(void)state;
	assert_true(json_is_null(json_object_get(batch, "active_since")));
	assert_true(json_is_null(json_object_get(batch, "grant")));
	assert_int_equal(json_array_size(json_object_get(batch, "states")), 0);
	json_decref(batch);
	head.active_since_ns = at("2026-11-22T14:00:12.5Z");
	head.states[0] = (struct batch_state){head.active_since_ns, head.covered_to_ns, GATEWAY_SUSPENDED};
	head.n_states = 1;
	head.limit = (struct meter_limit_state){
		.grant = {.cycle = 202611, .grant_seq = 4}, .cycle_counted = UINT64_MAX, .exhausted = true};
	head.final = true;
	batch = build(&head, &slots);
	assert_string_equal(text_of(batch, "active_since"), "2026-11-22T14:00:12.500000Z");
	item = json_array_get(json_object_get(batch, "states"), 0);
	assert_string_equal(text_of(item, "state"), "suspended");
	assert_string_equal(text_of(item, "to"), "2026-11-22T14:00:20.000000Z");
	item = json_object_get(batch, "grant");
	assert_string_equal(text_of(item, "cycle_counted"), "18446744073709551615");
	assert_true(json_is_true(json_object_get(item, "exhausted")));
	assert_true(json_is_true(json_object_get(json_object_get(batch, "epoch"), "final")));
	json_decref(batch);
	slots_free(&slots);
}

static void test_renewed_batch_keeps_its_counts(void **state)
{
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	struct slots slots = make_slots();
	struct batch_list list;
	struct batch renewed;
	json_t *before, *after;

	(void)state;
	assign(&slots, peer_a);
	sample(&slots, 1, 77, 88);
	assert_int_equal(batch_build(&head, &slots, NULL, NULL, &list), 0);
	assert_int_equal(batch_renew(&list.parts[0].summary, list.parts[0].body, list.parts[0].length,
				     at("2027-01-01T00:00:00Z"), &renewed),
			 0);
	before = json_loadb(list.parts[0].body, list.parts[0].length, 0, NULL);
	after = json_loadb(renewed.body, renewed.length, 0, NULL);
	assert_string_equal(text_of(after, "now"), "2027-01-01T00:00:00.000000Z");
	assert_int_equal(renewed.summary.checksum, crc32c(0, renewed.body, renewed.length));
	assert_int_equal(renewed.summary.seq, list.parts[0].summary.seq);
	json_object_del(before, "now");
	json_object_del(after, "now");
	assert_true(json_equal(before, after));
	json_decref(before);
	json_decref(after);
	assert_int_equal(batch_renew(&list.parts[0].summary, "{", 1, 1, &list.parts[0]), -EINVAL);
	free(renewed.body);
	batch_list_free(&list);
	slots_free(&slots);
}

static void test_record_gives_back_what_was_built(void **state)
{
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	struct slots slots = make_slots();
	struct batch_summary summary;
	struct batch_record record;
	struct batch_list list;
	struct journal_entry entry;
	const char *body;
	char payload[4096];
	size_t length;
	json_t *batch;

	(void)state;
	head.counted = 1234;
	head.final = true;
	assign(&slots, peer_a);
	sample(&slots, 1, 1ULL << 63, 88);
	assert_int_equal(batch_build(&head, &slots, NULL, NULL, &list), 0);
	entry = batch_entry(&list.parts[0]);
	memcpy(payload, entry.head, entry.head_length);
	memcpy(payload + entry.head_length, entry.payload, entry.length);
	length = entry.head_length + entry.length;
	assert_int_equal(batch_from_record(JOURNAL_BATCH, payload, length, &summary, &body, &length), 0);
	assert_memory_equal(summary.epoch, head.epoch, UUID_SIZE);
	assert_int_equal(summary.seq, 5);
	assert_int_equal(summary.covered_to_ns, head.covered_to_ns);
	assert_int_equal(summary.counted, 1234);
	assert_int_equal(summary.flags, BATCH_FINAL);
	assert_int_equal(summary.checksum, crc32c(0, list.parts[0].body, list.parts[0].length));
	assert_int_equal(length, list.parts[0].length);
	assert_memory_equal(body, list.parts[0].body, length);
	assert_int_equal(batch_from_record(JOURNAL_BATCH, payload, 100, &summary, &body, &length), -EINVAL);
	assert_int_equal(batch_from_record(JOURNAL_SAMPLE, payload, 400, &summary, &body, &length), -EINVAL);
	batch = json_loadb(list.parts[0].body, list.parts[0].length, 0, NULL);
	assert_int_equal(batch_parse_record(record_at(batch, 0), &record), 0);
	assert_true(record.slot == 1 && record.totals.upload_bytes == 1ULL << 63 &&
		    record.totals.download_bytes == 88);
	json_decref(batch);
	batch_list_free(&list);
	slots_free(&slots);
}

static void test_counts_made_elsewhere(void **state)
{
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	struct slots slots = make_slots();
	json_t *batch = build(&head, &slots), *said;

	(void)state;
	assert_null(json_object_get(batch, "reconcile"));
	json_decref(batch);
	head.reconcile =
		(struct batch_reconcile){.said = true,
					 .meter = {.upload_bytes = UINT64_MAX, .download_packets = 4},
					 .journal = {.seq = 4, .upload_bytes = 7, .download_bytes = 8}};
	batch = build(&head, &slots);
	said = json_object_get(batch, "reconcile");
	assert_string_equal(text_of(json_object_get(said, "meter"), "upload_bytes"), "18446744073709551615");
	assert_int_equal(count_of(json_object_get(said, "meter"), "download_packets"), 4);
	assert_null(json_object_get(said, "interface"));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(said, "journal"), "seq")), 4);
	assert_null(json_object_get(said, "wireguard"));
	json_decref(batch);
	head.reconcile.has_wireguard = true;
	head.reconcile.wireguard = (struct reconcile_link){UINT64_MAX, 9};
	head.reconcile.has_interface = true;
	head.reconcile.interface = (struct reconcile_link){5, 6};
	head.reconcile.journal.seq = 0;
	batch = build(&head, &slots);
	said = json_object_get(batch, "reconcile");
	assert_int_equal(count_of(json_object_get(said, "interface"), "tx_bytes"), 6);
	assert_null(json_object_get(json_object_get(said, "interface"), "encrypted"));
	assert_string_equal(text_of(json_object_get(said, "wireguard"), "rx_bytes"), "18446744073709551615");
	assert_int_equal(count_of(json_object_get(said, "wireguard"), "tx_bytes"), 9);
	assert_null(json_object_get(said, "journal"));
	json_decref(batch);
	head.reconcile.interface_is_encrypted = true;
	batch = build(&head, &slots);
	said = json_object_get(batch, "reconcile");
	assert_true(json_is_true(json_object_get(json_object_get(said, "interface"), "encrypted")));
	assert_null(json_object_get(json_object_get(said, "wireguard"), "encrypted"));
	json_decref(batch);
	slots_free(&slots);
}

/* More than a body takes, with the longest numbers there are: each part below 1 MiB, together everything. */
static void test_large_samples_are_split(void **state)
{
	enum { PEERS = 2 * WT_REPORT_MAX_RECORDS + 77 };
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	json_t *status = json_array(), *complaints = json_array();
	struct batch_list list;
	struct slots slots;
	uint8_t peer[UUID_SIZE] = {0};
	size_t told = 0, n_status = 0;
	uint32_t slot;

	(void)state;
	assert_int_equal(slots_create(PEERS + 1, &slots), 0);
	for (uint32_t i = 1; i <= PEERS; i++) {
		struct meter_totals most = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, 0};

		memcpy(peer, &i, sizeof(i));
		assert_int_equal(slots_assign(&slots, peer, &slot), 0);
		slots.slots[slot].incarnation = UINT32_MAX;
		slots_sample(&slots, slot, &most);
		slots.slots[slot].undelivered = UINT64_MAX;
		json_array_append_new(status, json_pack("{s:s, s:s, s:s, s:s}", "peer",
							"0b000000-0000-0000-0000-000000000000", "handshake",
							"2026-11-22T14:00:00.000000Z", "endpoint",
							"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535",
							"audit", "over_padding"));
		json_array_append_new(complaints, json_pack("{s:s, s:s}", "what",
							    "peer 0b000000-0000-0000-0000-000000000000",
							    "reason", "the meter has no free slot"));
	}
	head.final = true;
	head.states[0] = (struct batch_state){head.covered_from_ns, head.covered_to_ns, GATEWAY_ACTIVE};
	head.n_states = 1;
	assert_int_equal(batch_build(&head, &slots, status, complaints, &list), 0);
	assert_int_equal(list.n, 5); /* as much status as that */
	for (size_t i = 0; i < list.n; i++) {
		json_t *part = json_loadb(list.parts[i].body, list.parts[i].length, 0, NULL);
		bool last = i + 1 == list.n;

		assert_true(list.parts[i].length < 1 << 20);
		assert_int_equal(json_integer_value(json_object_get(part, "seq")), 5 + i);
		assert_int_equal(list.parts[i].summary.seq, 5 + i);
		assert_int_equal(json_is_true(json_object_get(part, "more")), !last);
		assert_int_equal(list.parts[i].summary.flags, last ? BATCH_FINAL : BATCH_MORE);
		assert_int_equal(json_is_true(json_object_get(json_object_get(part, "epoch"), "final")),
				 last);
		assert_int_equal(json_array_size(json_object_get(part, "states")), last);
		assert_int_equal(json_array_size(json_object_get(part, "cannot_apply")),
				 last ? WT_REPORT_MAX_COMPLAINTS : 0);
		for (size_t j = 0; j < n_records(part); j++)
			assert_int_equal(json_integer_value(json_object_get(record_at(part, j), "slot")),
					 ++told);
		n_status += json_array_size(json_object_get(part, "status"));
		json_decref(part);
	}
	assert_int_equal(told, PEERS);
	assert_int_equal(n_status, PEERS);
	json_decref(status);
	json_decref(complaints);
	batch_list_free(&list);
	slots_free(&slots);
}

static void test_full_is_refused_and_reuse_begins_at_zero(void **state)
{
	struct slots slots = make_slots();
	uint8_t peer[UUID_SIZE] = {0};
	uint32_t slot = 0;

	(void)state;
	for (uint8_t i = 1; i < CAPACITY; i++) {
		peer[0] = i;
		assert_int_equal(assign(&slots, peer), i);
	}
	peer[0] = 99;
	assert_int_equal(slots_assign(&slots, peer, &slot), -ENOSPC);
	assert_int_equal(slots_find(&slots, peer), 0);
	/* Peer 3 goes; its slot is not free before its last count is acknowledged. */
	peer[0] = 3;
	sample(&slots, 3, 1000, 500);
	slots_retire(&slots, 3);
	assert_int_equal(slots_find(&slots, peer), 0);
	peer[0] = 99;
	assert_int_equal(slots_assign(&slots, peer, &slot), -ENOSPC);
	batch_settled(&slots, 41);
	assert_int_equal(slots.slots[3].retire_seq, 41);
	slots_release(&slots, 3);
	assert_int_equal(assign(&slots, peer), 3);
	assert_int_equal(slots_find(&slots, peer), 3);
	assert_int_equal(slots_owner(&slots, 3).incarnation, 2);
	assert_false(sample(&slots, 3, 1000, 500));
	assert_true(sample(&slots, 3, 1010, 500));
	assert_int_equal(slots.slots[3].sampled.upload_bytes, 10);
	slots_free(&slots);
}

/* The disk took its base for no answer: the peer has no slot, and the next one to ask gets this one. */
static void test_a_slot_given_back_is_found_by_nobody(void **state)
{
	struct slots slots = make_slots();

	(void)state;
	slots_release(&slots, assign(&slots, peer_a));
	assert_int_equal(slots_find(&slots, peer_a), 0);
	assign(&slots, peer_b);
	assert_int_equal(slots_find(&slots, peer_a), 0);
	assert_int_not_equal(assign(&slots, peer_a), slots_find(&slots, peer_b));
	slots_free(&slots);
}

/* Fills all slots, lets the peer of slot 3 go once its count is told, and gives the slot to another. */
static void reuse_slot_3(struct slots *slots, uint64_t cell, uint8_t name)
{
	uint8_t peer[UUID_SIZE] = {name};

	sample(slots, 3, cell, 0);
	slots_retire(slots, 3);
	batch_settled(slots, cell);
	slots_release(slots, 3);
	assert_int_equal(assign(slots, peer), 3);
}

/* Killed when a reused slot's base is on disk, and its new owner is not in the meter yet. */
static void test_I8_killed_while_a_slot_is_reused(void **state)
{
	struct slots slots = make_slots(), again = make_slots();
	struct batch_head head = make_head("2026-11-22T14:00:10Z", "2026-11-22T14:00:20Z");
	uint8_t peer[UUID_SIZE] = {0};
	struct wt_owner owner;
	json_t *batch;

	(void)state;
	for (uint8_t i = 1; i < CAPACITY; i++) {
		peer[0] = i;
		assign(&slots, peer);
	}
	reuse_slot_3(&slots, 1000, 101);
	owner = slots_owner(&slots, 3);
	owner.flags = 0;
	reuse_slot_3(&slots, 1500, 102);
	slots_restore(&again, 3, &owner);
	slots_restore_base(&again, 3, slots.slots[3].incarnation, &slots.slots[3].base, 0);
	sample(&again, 3, 1500, 0);
	/* All that the cell holds was told, as 1,000 bytes and 500. */
	batch = build(&head, &again);
	assert_int_equal(n_records(batch), 0);
	json_decref(batch);
	for (uint8_t i = 1; i < CAPACITY; i++) {
		peer[0] = 50 + i;
		assign(&again, peer);
	}
	assert_int_equal(slots_owner(&again, 3).incarnation, 4);
	assert_true(sample(&again, 3, 1507, 0));
	assert_int_equal(again.slots[3].sampled.upload_bytes, 7);
	slots_free(&slots);
	slots_free(&again);
}

static void test_owners_survive_a_restart(void **state)
{
	struct slots slots = make_slots(), again = make_slots();
	struct wt_owner owner;

	(void)state;
	assign(&slots, peer_a);
	assign(&slots, peer_b);
	slots_retire(&slots, 1);
	for (uint32_t slot = 1; slot < CAPACITY; slot++) {
		owner = slots_owner(&slots, slot);
		slots_restore(&again, slot, &owner);
	}
	assert_int_equal(slots_find(&again, peer_a), 0);
	assert_int_equal(slots_find(&again, peer_b), 2);
	assert_int_equal(again.slots[1].flags, WT_OWNER_RETIRING);
	assert_int_equal(assign(&again, peer_a), 3);
	slots_free(&slots);
	slots_free(&again);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_changed_slots),
		cmocka_unit_test(test_a_whole_batch_says_idle_slots),
		cmocka_unit_test(test_I11_hours_are_split_by_time),
		cmocka_unit_test(test_I11_parts_add_up),
		cmocka_unit_test(test_I5_totals_never_fall),
		cmocka_unit_test(test_I12_steps_of_the_clock),
		cmocka_unit_test(test_large_samples_are_split),
		cmocka_unit_test(test_counts_made_elsewhere),
		cmocka_unit_test(test_an_edge_belongs_to_the_hour_before),
		cmocka_unit_test(test_unknown_totals_are_not_split),
		cmocka_unit_test(test_undelivered_is_a_total),
		cmocka_unit_test(test_states_grant_and_nulls),
		cmocka_unit_test(test_renewed_batch_keeps_its_counts),
		cmocka_unit_test(test_record_gives_back_what_was_built),
		cmocka_unit_test(test_full_is_refused_and_reuse_begins_at_zero),
		cmocka_unit_test(test_a_slot_given_back_is_found_by_nobody),
		cmocka_unit_test(test_I8_killed_while_a_slot_is_reused),
		cmocka_unit_test(test_owners_survive_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
