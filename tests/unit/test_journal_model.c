// SPDX-License-Identifier: BSD-2-Clause
/*
 * The journal against a model: random operations, crashes in the middle of every write, full disks and a full
 * bound. Whatever happens, what is found is the records that were durable and not given up, in order, each
 * once, and whole groups' prefixes of the write that was torn (I9).
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "journal/journal.h"

#include "../append_data.h"

#define SEGMENT     512
#define RECORDS_MAX 20000
#define PAYLOAD_MAX 200

static char folder[64];
static uint64_t seed;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t below(uint64_t limit)
{
	return next_random() % limit;
}

/* What was appended, by sequence; the journal's own records have no kind here. */
static struct expected {
	enum journal_kind kind;
	uint8_t length, byte;
} expected[RECORDS_MAX];
static uint64_t durable; /* the last sequence that must be found, or has been given up as acknowledged */
static uint64_t acknowledged;

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status, (void)type, (void)ftw;
	return remove(path);
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/dev/shm/wiretoll-journal-XXXXXX");
	memset(expected, 0, sizeof(expected));
	durable = acknowledged = 0;
	return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
	(void)state;
	umount2(folder, MNT_DETACH);
	nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static struct journal *open_journal(uint64_t max_bytes)
{
	struct journal *journal = NULL;

	assert_int_equal(journal_open(&(struct journal_options){.folder = folder,
								.segment_bytes = SEGMENT,
								.max_bytes = max_bytes},
				      &journal),
			 0);
	return journal;
}

static void fill_group(struct journal_entry *entries, size_t n, char payloads[][PAYLOAD_MAX])
{
	for (size_t i = 0; i < n; i++) {
		size_t length = below(PAYLOAD_MAX);

		memset(payloads[i], (int)below(256), PAYLOAD_MAX);
		entries[i] = (struct journal_entry){.kind = below(2) ? JOURNAL_BATCH : JOURNAL_SAMPLE,
						    .head = payloads[i],
						    .head_length = length / 3,
						    .payload = payloads[i] + length / 3,
						    .length = length - length / 3};
	}
}

static void expect_group(const struct journal_entry *entries, size_t n, uint64_t first)
{
	for (size_t i = 0; i < n; i++)
		expected[first + i] = (struct expected){entries[i].kind,
							(uint8_t)(entries[i].head_length + entries[i].length),
							*(const uint8_t *)entries[i].head};
}

struct walk {
	uint64_t first, last, count;
};

static int check_record(const struct journal_record *record, void *data)
{
	struct walk *walk = data;
	const struct expected *want = &expected[record->sequence];

	assert_true(record->sequence > walk->last);
	/* None left out in between: what is skipped are the journal's own records. */
	for (uint64_t s = walk->last + 1; walk->last > 0 && s < record->sequence; s++)
		assert_int_equal(expected[s].kind, 0);
	assert_int_equal(record->kind, want->kind);
	assert_int_equal(record->length, want->length);
	for (size_t i = 0; i < record->length; i++)
		assert_int_equal(((const uint8_t *)record->payload)[i], want->byte);
	if (walk->count++ == 0)
		walk->first = record->sequence;
	walk->last = record->sequence;
	return 0;
}

/* All that is durable and unacknowledged is there, at least; returns the last sequence found. */
static uint64_t check(struct journal *journal)
{
	struct walk walk = {0};

	assert_int_equal(journal_for_each(journal, check_record, &walk), 0);
	for (uint64_t s = acknowledged + 1; s <= durable; s++)
		if (expected[s].kind != 0)
			assert_true(walk.count > 0 && walk.first <= s && walk.last >= s);
	return walk.last;
}

static int put(const struct journal_write *write, size_t length)
{
	return pwrite(write->fd, write->data, length, write->offset) == (ssize_t)length ? 0 : -EIO;
}

static void append_some(struct journal *journal)
{
	char payloads[3][PAYLOAD_MAX];
	struct journal_entry entries[3];
	struct journal_write write;
	size_t n = 1 + below(3);
	bool fails = below(5) == 0;

	fill_group(entries, n, payloads);
	assert_int_equal(journal_prepare(journal, entries, n, &write), 0);
	/* A failed one may have left anything of itself on the disk. */
	assert_int_equal(put(&write, fails ? below(write.length + 1) : write.length), 0);
	if (fails) {
		assert_int_equal(journal_finish(journal, -EIO), -EIO);
		return;
	}
	assert_int_equal(journal_finish(journal, 0), 0);
	memset(&expected[durable + 1], 0, (size_t)(write.sequence - durable - 1) * sizeof(*expected));
	expect_group(entries, n, write.sequence);
	durable = write.sequence + n - 1;
}

/* Power fails in the middle of a write: any part of it is there, whole records of it may be found. */
static struct journal *crash_in_append(struct journal *journal, uint64_t max_bytes)
{
	char payloads[3][PAYLOAD_MAX];
	struct journal_entry entries[3];
	struct journal_write write;
	uint64_t found;

	fill_group(entries, 3, payloads);
	assert_int_equal(journal_prepare(journal, entries, 3, &write), 0);
	assert_int_equal(put(&write, below(write.length + 1)), 0);
	journal_close(journal);
	memset(&expected[durable + 1], 0, (size_t)(write.sequence - durable - 1) * sizeof(*expected));
	expect_group(entries, 3, write.sequence);
	journal = open_journal(max_bytes);
	found = check(journal);
	assert_true(found <= write.sequence + 2);
	/* From here on it stands, or its numbers are free. */
	if (found > durable)
		durable = found;
	memset(&expected[durable + 1], 0, 8 * sizeof(*expected));
	return journal;
}

static void test_I9_random_operations(void **state)
{
	(void)state;
	seed = (uint64_t)clock_utc_ns() | 1;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (int life = 0; life < 60; life++) {
		/* Above all that is ever unacknowledged at once, with a spare segment and the next group. */
		uint64_t max_bytes = SEGMENT * (8 + below(60));
		struct journal *journal;

		assert_int_equal(drop_folder(NULL), 0);
		assert_int_equal(make_folder(NULL), 0);
		journal = open_journal(max_bytes);
		for (int turn = 0; turn < 300 && durable + 8 < RECORDS_MAX; turn++) {
			switch (below(12)) {
			case 0:
				journal_close(journal);
				journal = open_journal(max_bytes);
				break;
			case 1:
				journal = crash_in_append(journal, max_bytes);
				break;
			case 2:
				assert_int_equal(journal_expire(journal, clock_utc_ns() + NSEC_PER_SEC), 0);
				break;
			default:
				append_some(journal);
			}
			/* What was acknowledged and not yet noted is acknowledged again, as the API would. */
			journal_acknowledge(journal, acknowledged);
			if (durable > acknowledged + 3) {
				acknowledged = durable - below(3);
				journal_acknowledge(journal, acknowledged);
			}
			check(journal);
		}
		journal_close(journal);
	}
}

/* The same group torn at each of its bytes. */
static void test_I9_crash_at_every_byte_of_a_write(void **state)
{
	size_t length = 1;

	(void)state;
	for (size_t cut = 0; cut <= length; cut++) {
		char payloads[3][PAYLOAD_MAX];
		struct journal_entry entries[3];
		struct journal_write write;
		struct journal *journal;
		uint64_t found, whole;
		size_t end = 32; /* of the acknowledgement in front */

		seed = 88172645463325252ULL;
		assert_int_equal(drop_folder(NULL), 0);
		assert_int_equal(make_folder(NULL), 0);
		journal = open_journal(0);
		while (durable == 0)
			append_some(journal);
		journal_acknowledge(journal, 1);
		acknowledged = 1;
		whole = durable;
		fill_group(entries, 3, payloads);
		assert_int_equal(journal_prepare(journal, entries, 3, &write), 0);
		length = write.length;
		assert_int_equal(put(&write, cut), 0);
		expect_group(entries, 3, write.sequence);
		for (size_t i = 0; i < 3; i++) {
			end += 24 + entries[i].head_length + entries[i].length;
			whole = end <= cut ? write.sequence + i : whole;
		}
		journal_close(journal);
		journal = open_journal(0);
		found = check(journal);
		assert_int_equal(found, whole);
		journal_close(journal);
	}
}

static uint64_t folder_bytes;

static int add_size(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)path, (void)ftw;
	if (type == FTW_F)
		folder_bytes += (uint64_t)status->st_size;
	return 0;
}

static uint64_t measure_folder(void)
{
	folder_bytes = 0;
	nftw(folder, add_size, 16, FTW_PHYS);
	return folder_bytes;
}

/* Acknowledged segments are kept, and given up when space is needed; the bound holds all the time. */
static void test_the_bound_holds(void **state)
{
	const uint64_t bound = 16 * SEGMENT;
	struct journal *journal = open_journal(bound);
	char payload[100] = "a";
	uint64_t sequence = 0;
	int r = 0;

	(void)state;
	for (int i = 0; i < 500; i++) {
		assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
		assert_true(measure_folder() <= bound);
		assert_false(journal_is_tight(journal));
		journal_acknowledge(journal, sequence);
	}
	assert_true(measure_folder() > bound / 2);
	/* Nothing is acknowledged any more: tight at half, -ENOSPC in the end, nothing is given up. */
	for (int i = 0; i < 500 && r == 0; i++) {
		bool was_tight = journal_is_tight(journal);

		r = append_data(journal, payload, sizeof(payload), &sequence);
		assert_true(r == 0 || was_tight);
		assert_true(measure_folder() <= bound);
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(append_data(journal, payload, 1, &sequence), -ENOSPC);
	journal_close(journal);
	journal = open_journal(bound);
	assert_int_equal(append_data(journal, payload, sizeof(payload), NULL), -ENOSPC);
	journal_acknowledge(journal, sequence);
	assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
	assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
	assert_false(journal_is_tight(journal));
	journal_close(journal);
}

static unsigned n_aside;

static int count_aside(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status, (void)type, (void)ftw;
	n_aside += strstr(path, ".wtj.bad") != NULL;
	return 0;
}

static unsigned segments_aside(void)
{
	n_aside = 0;
	nftw(folder, count_aside, 16, FTW_PHYS);
	return n_aside;
}

static void damage(const char *segment)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, segment);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "x", 1, 30), 1);
	close(fd);
}

/* What damage has set aside is within the bound, too, and goes before a record does. */
static void test_the_bound_holds_after_damage(void **state)
{
	const uint64_t bound = 16 * SEGMENT;
	struct journal *journal = open_journal(bound);
	char payload[100] = "a";
	uint64_t sequence = 0, last = 0;
	int r = 0;

	(void)state;
	while (!journal_is_tight(journal))
		assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
	journal_close(journal);
	damage("0000000000000001.wtj");
	journal = open_journal(bound);
	assert_true(segments_aside() >= 4);
	while (r == 0) {
		last = sequence;
		r = append_data(journal, payload, sizeof(payload), &sequence);
		assert_true(measure_folder() <= bound);
		assert_true(r == 0 || segments_aside() == 0);
	}
	assert_int_equal(r, -ENOSPC);
	for (uint64_t kept = 1; kept <= last; kept++) {
		char *read _cleanup_free_ = NULL;
		enum journal_kind kind;
		size_t length;

		assert_int_equal(journal_read(journal, kept, &kind, &read, &length), 0);
	}
	journal_close(journal);
}

/* A real full disk: known of while there still is a segment and its spare to write to, and recovered from. */
static void test_a_full_disk_is_known_of_early(void **state)
{
	struct journal *journal = NULL;
	char ballast[96], payload[4000] = {1};
	struct journal_options options = {.folder = folder, .segment_bytes = 64 << 10};
	uint64_t sequence = 0, last = 0;
	unsigned after = 0;
	int fd, r = 0;

	(void)state;
	if (mount("tmpfs", folder, "tmpfs", 0, "size=1m") < 0) {
		print_message("not allowed to mount: run in tests/envelope.sh\n");
		fail();
	}
	assert_int_equal(journal_open(&options, &journal), 0);
	assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
	assert_false(journal_is_tight(journal));
	snprintf(ballast, sizeof(ballast), "%s/ballast", folder);
	fd = open(ballast, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	for (size_t size = 1 << 20; size >= 4096; size /= 2)
		while (posix_fallocate(fd, lseek(fd, 0, SEEK_END), (off_t)size) == 0)
			;
	while (r == 0) {
		last = sequence;
		r = append_data(journal, payload, sizeof(payload), &sequence);
		after += r == 0 && journal_is_tight(journal);
	}
	assert_int_equal(r, -ENOSPC);
	assert_true(after >= (64 << 10) / sizeof(payload) - 2);
	assert_int_equal(sequence, last);
	/* Acknowledged records make room; then the disk does. */
	journal_acknowledge(journal, sequence);
	assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
	assert_int_equal(unlink(ballast), 0);
	close(fd);
	assert_int_equal(append_data(journal, payload, sizeof(payload), &sequence), 0);
	assert_false(journal_is_tight(journal));
	journal_close(journal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_I9_random_operations, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_I9_crash_at_every_byte_of_a_write, make_folder,
						drop_folder),
		cmocka_unit_test_setup_teardown(test_the_bound_holds, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_the_bound_holds_after_damage, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_a_full_disk_is_known_of_early, make_folder, drop_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
