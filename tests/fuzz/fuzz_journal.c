// SPDX-License-Identifier: BSD-2-Clause
/*
 * The journal's reader on damaged segments (I9). A journal of known records is cut, overwritten, prolonged
 * and shuffled as the input says, or a segment is the input itself. Whatever is found then: of the records
 * known before none is changed or left out between others, no other is invented, a second reading finds the
 * same, and writing goes on.
 */
#include "fuzz.h"

#include "journal/journal.h"

#include "../append_data.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define FOLDER      "journal"
#define KNOWN       12
#define SEGMENTS    16
#define SEGMENT_MAX 65536

struct segment_file {
	char name[64];
	uint8_t bytes[SEGMENT_MAX];
	size_t size;
};

static uint64_t known_sequences[KNOWN + 1];
static struct segment_file pristine[SEGMENTS];
static size_t n_pristine;

static void clear_folder(void)
{
	DIR *folder = opendir(FOLDER);
	struct dirent *entry;

	CLAIM(folder);
	while ((entry = readdir(folder)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(folder), entry->d_name, 0);
	closedir(folder);
}

static void write_segment(const char *name, const void *data, size_t size)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), FOLDER "/%s", name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CLAIM(fd >= 0);
	CLAIM(size == 0 || write(fd, data, size) == (ssize_t)size);
	close(fd);
}

static void read_pristine(void)
{
	DIR *folder = opendir(FOLDER);
	struct dirent *entry;

	CLAIM(folder);
	while ((entry = readdir(folder))) {
		struct segment_file *file = &pristine[n_pristine];
		ssize_t got;
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		CLAIM(n_pristine < SEGMENTS);
		snprintf(file->name, sizeof(file->name), "%.60s", entry->d_name);
		fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
		got = read(fd, file->bytes, sizeof(file->bytes));
		CLAIM(got >= 0 && got < SEGMENT_MAX);
		file->size = (size_t)got;
		close(fd);
		n_pristine++;
	}
	closedir(folder);
}

static struct journal *open_journal(void)
{
	struct journal *journal = NULL;

	CLAIM(journal_open(&(struct journal_options){.folder = FOLDER, .segment_bytes = 256}, &journal) == 0);
	return journal;
}

/* Record i is i times its own letter. */
static size_t known_record(unsigned number, char buffer[static 64])
{
	memset(buffer, 'a' + (int)number, 3 * number);
	return 3 * number;
}

static void make_pristine(void)
{
	struct journal *journal;
	char record[64];

	mkdir(FOLDER, 0700);
	clear_folder();
	journal = open_journal();
	for (unsigned i = 1; i <= KNOWN; i++) {
		if (i % 5 == 0)
			journal_acknowledge(journal, i / 2);
		CLAIM(append_data(journal, record, known_record(i, record), &known_sequences[i]) == 0);
	}
	journal_close(journal);
	read_pristine();
	CLAIM(n_pristine > 0);
}

/* One edit of a segment. */
static void damage(struct segment_file *file, struct input *input)
{
	size_t at = take_number(input, 2) % (file->size + 1), length = take_number(input, 1) % 48;

	switch (take_number(input, 1) % 4) {
	case 0:
		file->size = at;
		break;
	case 1:
		if (at < file->size)
			file->bytes[at] ^= (uint8_t)(1U << length % 8);
		break;
	case 2:
		if (at + length <= SEGMENT_MAX)
			take(input, file->bytes + at, length);
		file->size = at + length > file->size ? at + length : file->size;
		break;
	default: /* the same records once more behind the end */
		if (file->size + length <= SEGMENT_MAX && at + length <= file->size) {
			memmove(file->bytes + file->size, file->bytes + at, length);
			file->size += length;
		}
	}
}

struct found {
	unsigned count;
	unsigned last_known; /* 0: none is */
	bool unknown;        /* there is one that was never written */
	uint64_t last;
	uint32_t digest;
};

/* Which of the known records this is: 0 is none of them, and they may not leave one another out. */
static unsigned recognise(const struct journal_record *record, unsigned last)
{
	char expected[64];

	for (unsigned i = 1; i <= KNOWN; i++)
		if (known_sequences[i] == record->sequence && record->length == known_record(i, expected) &&
		    memcmp(record->payload, expected, record->length) == 0)
			return last == 0 || i == last + 1 ? i : 0;
	return 0;
}

static int note_record(const struct journal_record *record, void *data)
{
	struct found *found = data;
	unsigned known = recognise(record, found->last_known);

	CLAIM(record->sequence > found->last);
	found->last = record->sequence;
	found->count++;
	found->unknown |= known == 0;
	found->last_known = known;
	for (size_t i = 0; i < record->length; i++)
		found->digest = found->digest * 31 + ((const uint8_t *)record->payload)[i];
	found->digest = found->digest * 31 + record->acknowledged;
	return 0;
}

static struct found look(struct journal *journal)
{
	struct found found = {0};

	CLAIM(journal_for_each(journal, note_record, &found) == 0);
	return found;
}

static void claim_usable(bool invents_nothing)
{
	struct journal *journal = open_journal();
	struct found before = look(journal), after;
	enum journal_kind kind = JOURNAL_ACK;
	uint64_t sequence = 0;
	char *payload = NULL;
	size_t length;

	CLAIM(!invents_nothing || !before.unknown);
	journal_close(journal);
	journal = open_journal();
	after = look(journal);
	CLAIM(before.count == after.count && before.last == after.last && before.digest == after.digest);
	CLAIM(append_data(journal, "again", 5, &sequence) == 0);
	CLAIM(sequence > before.last);
	CLAIM(journal_read(journal, sequence, &kind, &payload, &length) == 0);
	CLAIM(kind == JOURNAL_SAMPLE && length == 5 && memcmp(payload, "again", 5) == 0);
	free(payload);
	journal_close(journal);
	journal = open_journal();
	CLAIM(look(journal).count == before.count + 1);
	journal_close(journal);
}

static void read_damaged(struct input *input)
{
	static struct segment_file file;
	size_t which = take_number(input, 1) % n_pristine;

	for (size_t i = 0; i < n_pristine; i++) {
		file = pristine[i];
		if (i == which)
			do {
				damage(&file, input);
			} while (input->left > 8);
		if (i != which || file.size % 13)
			write_segment(file.name, file.bytes, file.size);
	}
	/* Only a byte or two that happen to fit their checksum could be another record. */
	claim_usable(true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};

	if (!n_pristine)
		make_pristine();
	clear_folder();
	if (take_number(&input, 1) % 2) {
		read_damaged(&input);
	} else {
		write_segment(pristine[0].name, input.data, input.left);
		claim_usable(false);
	}
	return 0;
}
