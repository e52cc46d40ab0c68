/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The journal: what was counted, on disk before it is sent. Segment files of records that are only ever
 * appended, {header, payload}, each with a CRC32C and the next number in one gapless sequence, so that a
 * reader takes the valid prefix and nothing else. One process at a time holds the folder (by a lock on it).
 * Writing is left to the caller's event loop: see journal_prepare(). Not thread-safe.
 *
 * Space is taken beforehand: a segment is allocated whole when it begins, and one more is kept spare, so that
 * a full disk is known of while there is still room. The folder never holds more than `max_bytes`.
 */
#ifndef WIRETOLL_JOURNAL_JOURNAL_H
#define WIRETOLL_JOURNAL_JOURNAL_H

#include "base/base.h"

#include <sys/types.h>

#define JOURNAL_RECORD_MAX    (64u << 20)
#define JOURNAL_SEGMENT_BYTES (4u << 20)
#define JOURNAL_MAX_BYTES     (256u << 20)

enum journal_kind {
	JOURNAL_ACK = 2,    /* the journal's own: the acknowledged sequence, 8 bytes */
	JOURNAL_BATCH = 3,  /* a report as it is sent; see agent/batch.h */
	JOURNAL_SAMPLE = 4, /* what changed within a second; see agent/sample_record.h */
};

struct journal;

struct journal_options {
	const char *folder;   /* created if missing, 0700 */
	size_t segment_bytes; /* 0: JOURNAL_SEGMENT_BYTES */
	uint64_t max_bytes;   /* of all files together; 0: JOURNAL_MAX_BYTES; at least four segments */
};

/*
 * Takes the lock, reads all segments up to the first record that is not whole and valid, and cuts off what
 * follows: a torn tail is truncated, segments behind it are kept aside as NAME.bad. Returns -EBUSY when
 * another process holds the folder.
 */
WT_MUST_CHECK int journal_open(const struct journal_options *options, struct journal **ret_journal);

/* Releases the lock. NULL is accepted. */
void journal_close(struct journal *journal);

struct journal_record {
	uint64_t sequence;
	enum journal_kind kind;
	const void *payload;
	size_t length;
	bool acknowledged;
};

/*
 * Calls fn for each record kept, oldest first; stops at the first non-zero result and returns it. What has
 * been damaged since journal_open() is left out.
 */
typedef int (*journal_fn)(const struct journal_record *record, void *data);
WT_MUST_CHECK int journal_for_each(struct journal *journal, journal_fn fn, void *data);

/*
 * Reads one record back; the caller frees the payload, which has a NUL behind it. -ENOENT: not kept; -EIO:
 * damaged since journal_open().
 */
WT_MUST_CHECK int journal_read(struct journal *journal, uint64_t sequence, enum journal_kind *ret_kind,
			       char **ret_payload, size_t *ret_length);

/* One record to append: its payload in two parts, of which either may be empty. */
struct journal_entry {
	enum journal_kind kind;
	const void *head;
	size_t head_length;
	const void *payload;
	size_t length;
};

/* What an append has to write, and where. It belongs to the journal until journal_finish(). */
struct journal_write {
	int fd;
	const void *data;
	size_t length;
	off_t offset;
	uint64_t sequence; /* of the first entry; the others follow */
};

/*
 * Begins an append of n entries, committed together; exactly one append is open at a time (-EBUSY
 * otherwise). The caller writes all of it at the offset, then fdatasyncs, then calls journal_finish().
 * Returns -EFBIG above JOURNAL_RECORD_MAX, -ENOSPC when the disk is full or unacknowledged records fill the
 * bound. Acknowledged segments have been given up by then.
 */
WT_MUST_CHECK int journal_prepare(struct journal *journal, const struct journal_entry *entries, size_t n,
				  struct journal_write *ret_write);

/*
 * Ends it: `result` is 0 when write and fdatasync both succeeded, else the records do not exist and their
 * numbers are given to the next ones. Returns `result`.
 */
WT_MUST_CHECK int journal_finish(struct journal *journal, int result);

/* The three steps at once, blocking. */
WT_MUST_CHECK int journal_append_entries(struct journal *journal, const struct journal_entry *entries,
					 size_t n, uint64_t *ret_first);

/*
 * All records up to this one are acknowledged. It becomes durable with the next append, or with
 * journal_flush(): an acknowledgement that is lost only makes the caller send known bytes again.
 */
void journal_acknowledge(struct journal *journal, uint64_t sequence);
void journal_acknowledge_all(struct journal *journal);
WT_MUST_CHECK int journal_flush(struct journal *journal);

/* The last record that is durable; 0: there is none. */
uint64_t journal_last(const struct journal *journal);

/* Deletes whole segments that are acknowledged and were last written before the instant (UTC). */
WT_MUST_CHECK int journal_expire(struct journal *journal, int64_t before_utc_ns);

/*
 * Room runs short: unacknowledged records fill half of the bound, or there was no space for the spare
 * segment. The caller should then write less: an hour's totals in place of each batch.
 */
bool journal_is_tight(const struct journal *journal);

#endif
