// SPDX-License-Identifier: BSD-2-Clause
/* The journal under truncation at every byte, bit flips, torn writes and a second writer (I9). */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "journal/format.h"
#include "journal/journal.h"

#include "../append_data.h"

#define N_RECORDS 12
/* Room for all of them, and an end that stays empty. */
#define ONE_SEGMENT 512

static char folder[64];

/* Folders that were synced since n_synced was last set to 0. */
static struct stat synced[8];
static size_t n_synced;

/* In the place of the C library's. */
int fsync(int fd)
{
	struct stat status;

	if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode) && n_synced < ARRAY_SIZE(synced))
		synced[n_synced++] = status;
	return (int)syscall(SYS_fsync, fd);
}

/* A page of each segment that the disk does not give back; 0: there is none. */
static off_t bad_page, bad_page_end;

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
	if (bad_page_end > 0 && at < bad_page_end && at + (off_t)size > bad_page) {
		if (at >= bad_page) {
			errno = EIO;
			return -1;
		}
		size = (size_t)(bad_page - at);
	}
	return syscall(SYS_pread64, fd, data, size, at);
}

static bool was_synced(const char *path)
{
	struct stat status;
	bool was = false;

	assert_int_equal(stat(path, &status), 0);
	for (size_t i = 0; i < n_synced; i++)
		was |= synced[i].st_ino == status.st_ino && synced[i].st_dev == status.st_dev;
	return was;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status, (void)type, (void)ftw;
	return remove(path);
}

static void remove_folder(void)
{
	nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/dev/shm/wiretoll-journal-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
	(void)state;
	remove_folder();
	return 0;
}

static struct journal *open_journal(size_t segment_bytes)
{
	struct journal *journal = NULL;

	assert_int_equal(
		journal_open(&(struct journal_options){.folder = folder, .segment_bytes = segment_bytes},
			     &journal),
		0);
	return journal;
}

/* Record i holds i bytes of its own number, so that any other content is told apart. */
static void append_numbered(struct journal *journal, unsigned number)
{
	char payload[256];

	memset(payload, (int)number, sizeof(payload));
	assert_int_equal(append_data(journal, payload, number, NULL), 0);
}

struct walk {
	unsigned count;
	unsigned acknowledged;
	uint64_t last_sequence;
};

static int check_numbered(const struct journal_record *record, void *data)
{
	struct walk *walk = data;
	unsigned number = ++walk->count;

	assert_int_equal(record->length, number);
	for (unsigned i = 0; i < number; i++)
		assert_int_equal(((const uint8_t *)record->payload)[i], number);
	assert_true(record->sequence > walk->last_sequence);
	walk->last_sequence = record->sequence;
	walk->acknowledged += record->acknowledged;
	return 0;
}

/* The records that are kept: always 1 … n, in order, each once. */
static struct walk walk_journal(struct journal *journal)
{
	struct walk walk = {0};

	assert_int_equal(journal_for_each(journal, check_numbered, &walk), 0);
	return walk;
}

static void path_in_folder(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", folder, name);
}

static void write_file(const char *name, const char *data, size_t length)
{
	char path[128];
	int fd;

	path_in_folder(path, sizeof(path), name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, data, length), 0);
	close(fd);
}

static const char *const first_segment = "0000000000000001.wtj";

static char *fill_one_segment(size_t *ret_length)
{
	struct journal *journal = open_journal(ONE_SEGMENT);
	char path[128], *image = NULL;

	for (unsigned i = 1; i <= N_RECORDS; i++)
		append_numbered(journal, i);
	journal_close(journal);
	path_in_folder(path, sizeof(path), first_segment);
	assert_int_equal(file_read(path, 1 << 20, &image, ret_length), 0);
	return image;
}

/* Number of records that end within the first `bytes` bytes. */
static unsigned records_within(size_t bytes)
{
	unsigned count = 0;

	for (size_t end = 0; count < N_RECORDS; count++) {
		end += sizeof(struct journal_header) + count + 1;
		if (end > bytes)
			break;
	}
	return count;
}

static void test_truncation_at_every_byte(void **state)
{
	size_t length;
	char *image = fill_one_segment(&length);

	(void)state;
	for (size_t cut = 0; cut <= length; cut++) {
		struct journal *journal;
		unsigned kept = records_within(cut);

		write_file(first_segment, image, cut);
		journal = open_journal(ONE_SEGMENT);
		assert_int_equal(walk_journal(journal).count, kept);
		/* It goes on behind what is valid, and that holds after another start. */
		append_numbered(journal, kept + 1);
		journal_close(journal);
		journal = open_journal(ONE_SEGMENT);
		assert_int_equal(walk_journal(journal).count, kept + 1);
		journal_close(journal);
	}
	free(image);
}

static void test_every_flipped_bit(void **state)
{
	size_t length;
	char *image = fill_one_segment(&length);

	(void)state;
	for (size_t bit = 0; bit < length * 8; bit++) {
		struct journal *journal;

		image[bit / 8] ^= (char)(1 << (bit % 8));
		write_file(first_segment, image, length);
		journal = open_journal(ONE_SEGMENT);
		assert_int_equal(walk_journal(journal).count, records_within(bit / 8));
		journal_close(journal);
		image[bit / 8] ^= (char)(1 << (bit % 8));
	}
	free(image);
}

static void test_damage_in_an_early_segment(void **state)
{
	struct journal *journal = open_journal(96);
	char path[128];
	struct stat status;
	int fd;

	(void)state;
	for (unsigned i = 1; i <= N_RECORDS; i++)
		append_numbered(journal, i);
	journal_close(journal);
	/* An append asks for 32 bytes besides, for an acknowledgement: records 1 and 2, then 3 and 4, then 5.
	 */
	path_in_folder(path, sizeof(path), "0000000000000003.wtj");
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "x", 1, 30), 1);
	close(fd);
	n_synced = 0;
	journal = open_journal(96);
	/* A segment that came back by its name would go on with the numbers that are given anew. */
	assert_true(was_synced(folder));
	assert_int_equal(walk_journal(journal).count, 3);
	append_numbered(journal, 4);
	journal_close(journal);
	path_in_folder(path, sizeof(path), "0000000000000005.wtj.bad");
	assert_int_equal(stat(path, &status), 0);
	journal = open_journal(96);
	assert_int_equal(walk_journal(journal).count, 4);
	journal_close(journal);
}

static int count_record(const struct journal_record *record, void *data)
{
	(void)record;
	++*(unsigned *)data;
	return 0;
}

static unsigned count_records(struct journal *journal)
{
	unsigned count = 0;

	assert_int_equal(journal_for_each(journal, count_record, &count), 0);
	return count;
}

/* What stood before a bad block is kept, and the journal goes on in a file without it. */
static void test_a_block_that_cannot_be_read(void **state)
{
	struct journal *journal = open_journal(1 << 16);
	enum journal_kind kind;
	char block[1000] = "a", *payload;
	size_t length;
	unsigned kept;

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(append_data(journal, block, sizeof(block), NULL), 0);
	bad_page = 2 * getpagesize();
	bad_page_end = bad_page + getpagesize();
	kept = (unsigned)((size_t)bad_page / (sizeof(struct journal_header) + sizeof(block)));
	/* While it is open, its other records can be read. */
	assert_int_equal(journal_read(journal, kept, &kind, &payload, &length), 0);
	free(payload);
	assert_int_equal(journal_read(journal, kept + 1, &kind, &payload, &length), -EIO);
	assert_int_equal(count_records(journal), kept);
	journal_close(journal);
	journal = open_journal(1 << 16);
	bad_page_end = 0;
	assert_int_equal(count_records(journal), kept);
	assert_int_equal(append_data(journal, block, sizeof(block), NULL), 0);
	journal_close(journal);
	journal = open_journal(1 << 16);
	assert_int_equal(count_records(journal), kept + 1);
	journal_close(journal);
}

static void test_a_new_folder_is_on_the_disk(void **state)
{
	struct journal *journal;
	char path[128];

	(void)state;
	path_in_folder(path, sizeof(path), "new");
	n_synced = 0;
	assert_int_equal(journal_open(&(struct journal_options){.folder = path}, &journal), 0);
	assert_true(was_synced(folder));
	assert_int_equal(append_data(journal, "a", 1, NULL), 0);
	assert_true(was_synced(path));
	journal_close(journal);
}

struct sequences {
	unsigned count;
	uint64_t sequences[N_RECORDS];
};

static int note_sequence(const struct journal_record *record, void *data)
{
	struct sequences *found = data;

	found->sequences[found->count++] = record->sequence;
	return 0;
}

/* A byte of a record goes bad while the journal is open, in turn: no other record is missing for it. */
static void test_I9_damage_under_an_open_journal(void **state)
{
	struct journal *journal = open_journal(ONE_SEGMENT);
	enum journal_kind kind;
	char path[128], *payload;
	size_t at = 0, length;
	uint8_t byte;
	int fd;

	(void)state;
	for (unsigned i = 1; i <= N_RECORDS; i++)
		append_numbered(journal, i);
	path_in_folder(path, sizeof(path), first_segment);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (unsigned i = 1; i <= N_RECORDS; i++) {
		struct sequences found = {0};
		off_t damaged = (off_t)(at + sizeof(struct journal_header));

		assert_int_equal(pread(fd, &byte, 1, damaged), 1);
		byte ^= 1;
		assert_int_equal(pwrite(fd, &byte, 1, damaged), 1);
		assert_int_equal(journal_for_each(journal, note_sequence, &found), 0);
		assert_int_equal(found.count, N_RECORDS - 1);
		for (unsigned n = 0; n < found.count; n++)
			assert_int_equal(found.sequences[n], n + 1 + (n + 1 >= i));
		assert_int_equal(journal_read(journal, i, &kind, &payload, &length), -EIO);
		byte ^= 1;
		assert_int_equal(pwrite(fd, &byte, 1, damaged), 1);
		at += sizeof(struct journal_header) + i;
	}
	/* Where its length cannot be believed, nothing behind it is found in that segment. */
	at = 3 * sizeof(struct journal_header) + 1 + 2 + 3 + offsetof(struct journal_header, length) + 3;
	assert_int_equal(pwrite(fd, "\xff", 1, (off_t)at), 1);
	assert_int_equal(walk_journal(journal).count, 3);
	assert_int_equal(journal_read(journal, 6, &kind, &payload, &length), -EIO);
	close(fd);
	journal_close(journal);
}

static void test_single_writer(void **state)
{
	struct journal *journal = open_journal(0), *second = NULL;

	(void)state;
	assert_int_equal(journal_open(&(struct journal_options){.folder = folder}, &second), -EBUSY);
	assert_null(second);
	journal_close(journal);
	journal_close(open_journal(0));
}

static void test_acknowledgement_is_kept(void **state)
{
	struct journal *journal = open_journal(0);

	(void)state;
	for (unsigned i = 1; i <= 4; i++)
		append_numbered(journal, i);
	journal_acknowledge(journal, 3);
	journal_acknowledge(journal, 99); /* nothing has that number: ignored */
	append_numbered(journal, 5);
	journal_close(journal);
	journal = open_journal(0);
	assert_int_equal(walk_journal(journal).acknowledged, 3);
	journal_acknowledge(journal, 4);
	assert_int_equal(journal_flush(journal), 0);
	assert_int_equal(journal_flush(journal), 0);
	journal_close(journal);
	journal = open_journal(0);
	assert_int_equal(walk_journal(journal).acknowledged, 4);
	assert_int_equal(walk_journal(journal).count, 5);
	journal_close(journal);
}

static void test_failed_append_leaves_no_trace(void **state)
{
	struct journal_entry torn = {.kind = JOURNAL_SAMPLE, .payload = "torn", .length = 4};
	struct journal *journal = open_journal(0);
	struct journal_write write;

	(void)state;
	append_numbered(journal, 1);
	assert_int_equal(journal_prepare(journal, &torn, 1, &write), 0);
	assert_int_equal(pwrite(write.fd, write.data, write.length / 2, write.offset), write.length / 2);
	assert_int_equal(journal_finish(journal, -ENOSPC), -ENOSPC);
	append_numbered(journal, 2);
	assert_int_equal(walk_journal(journal).count, 2);
	assert_int_equal(walk_journal(journal).last_sequence, write.sequence);
	journal_close(journal);
	journal = open_journal(0);
	assert_int_equal(walk_journal(journal).count, 2);
	journal_close(journal);
}

static void test_one_append_at_a_time(void **state)
{
	struct journal *journal = open_journal(0);
	struct journal_entry entry = {.kind = JOURNAL_SAMPLE, .payload = "a", .length = 1};
	struct journal_write write, second;

	(void)state;
	assert_int_equal(journal_prepare(journal, &entry, 1, &write), 0);
	assert_int_equal(journal_prepare(journal, &entry, 1, &second), -EBUSY);
	assert_int_equal(journal_finish(journal, -EIO), -EIO);
	entry.length = (size_t)JOURNAL_RECORD_MAX + 1;
	assert_int_equal(journal_prepare(journal, &entry, 1, &second), -EFBIG);
	journal_close(journal);
}

static void test_read_by_sequence(void **state)
{
	struct journal *journal = open_journal(96);
	enum journal_kind kind = JOURNAL_ACK;
	char *payload = NULL;
	size_t length = 0;

	(void)state;
	for (unsigned i = 1; i <= N_RECORDS; i++)
		append_numbered(journal, i);
	for (unsigned i = 1; i <= N_RECORDS; i++) {
		assert_int_equal(journal_read(journal, i, &kind, &payload, &length), 0);
		assert_int_equal(kind, JOURNAL_SAMPLE);
		assert_int_equal(length, i);
		assert_int_equal(payload[0], i);
		free(payload);
	}
	assert_int_equal(journal_read(journal, N_RECORDS + 1, &kind, &payload, &length), -ENOENT);
	assert_int_equal(journal_read(journal, 0, &kind, &payload, &length), -ENOENT);
	journal_close(journal);
}

static void test_expiry_spares_what_is_unacknowledged(void **state)
{
	struct journal *journal = open_journal(96);
	int64_t later = clock_utc_ns() + 60 * NSEC_PER_SEC;

	(void)state;
	for (unsigned i = 1; i <= N_RECORDS; i++)
		append_numbered(journal, i);
	assert_int_equal(journal_expire(journal, later), 0);
	assert_int_equal(count_records(journal), N_RECORDS);
	journal_acknowledge(journal, 7); /* segments: 1 2, 3 4, 5 6, 7 8 … */
	assert_int_equal(journal_expire(journal, 0), 0);
	assert_int_equal(count_records(journal), N_RECORDS);
	assert_int_equal(journal_expire(journal, later), 0);
	assert_int_equal(count_records(journal), N_RECORDS - 6);
	journal_close(journal);
	journal = open_journal(96);
	assert_int_equal(count_records(journal), N_RECORDS - 6);
	journal_close(journal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_truncation_at_every_byte, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_every_flipped_bit, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_damage_in_an_early_segment, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_a_block_that_cannot_be_read, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_a_new_folder_is_on_the_disk, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_I9_damage_under_an_open_journal, make_folder,
						drop_folder),
		cmocka_unit_test_setup_teardown(test_single_writer, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_acknowledgement_is_kept, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_failed_append_leaves_no_trace, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_one_append_at_a_time, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_read_by_sequence, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(test_expiry_spares_what_is_unacknowledged, make_folder,
						drop_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
