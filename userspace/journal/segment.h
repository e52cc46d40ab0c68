/* SPDX-License-Identifier: BSD-2-Clause */
/* The files of a journal's folder. For the journal and its reader only. */
#ifndef WIRETOLL_JOURNAL_SEGMENT_H
#define WIRETOLL_JOURNAL_SEGMENT_H

#include "base/base.h"

#define SEGMENT_NAME_SIZE 21 /* sixteen hexadecimal digits, ".wtj" and NUL */
#define SEGMENT_SPARE     "spare"
#define SEGMENT_RESCUED   "rescued" /* until it has its name */
#define SEGMENT_ASIDE     ".bad"    /* behind the name of one that was set aside */
#define SEGMENT_PATH_SIZE (SEGMENT_NAME_SIZE + sizeof(SEGMENT_ASIDE) - 1)

struct segment {
	uint64_t first;    /* sequence of its first record, and its name */
	size_t bytes;      /* of valid records */
	size_t size;       /* that the file takes */
	uint32_t last_crc; /* of its last record; 0: there is none */
};

struct segment_list {
	struct segment *segments; /* oldest first */
	size_t n;
};

const char *segment_name(uint64_t first, char buffer[static SEGMENT_NAME_SIZE]);
bool segment_name_parse(const char *name, uint64_t *ret_first);

/* All segments of the folder with `ending` behind their names, in the names' order, with first and size set.
 */
WT_MUST_CHECK int segment_list_read(int folder_fd, const char *ending, struct segment_list *ret_list);
WT_MUST_CHECK int segment_list_add(struct segment_list *list, const struct segment *segment);
/* Removes the oldest one from the folder and the list; `ending` as above. */
WT_MUST_CHECK int segment_list_drop_oldest(int folder_fd, const char *ending, struct segment_list *list);

/* A segment in memory; free it with content_free(). */
struct content {
	char *data;
	size_t size;
	bool is_unreadable; /* in part: what the disk does not give back stands as zeros */
};

/* Read and not mapped: a bad block would be a signal, and the writer may cut the end off at any moment. */
WT_MUST_CHECK int segment_load(int folder_fd, const char *name, struct content *ret_content);
void content_free(struct content *content);

/* Puts the first `size` bytes of the content in the place of the segment, durably and at once. */
WT_MUST_CHECK int segment_replace(int folder_fd, const char *name, const struct content *content,
				  size_t size);

/* Makes a file of that size, its space allocated. Leaves nothing behind on failure; returns -ENOSPC and
 * others.
 */
WT_MUST_CHECK int segment_allocate(int folder_fd, const char *name, size_t size);

#endif
