/* SPDX-License-Identifier: BSD-2-Clause */
/* One record of bytes that mean nothing, appended to a journal. */
#ifndef TESTS_APPEND_DATA_H
#define TESTS_APPEND_DATA_H

#include "journal/journal.h"

WT_MUST_CHECK static inline int append_data(struct journal *journal, const void *payload, size_t length,
					    uint64_t *ret_sequence)
{
	struct journal_entry entry = {.kind = JOURNAL_SAMPLE, .payload = payload, .length = length};

	return journal_append_entries(journal, &entry, 1, ret_sequence);
}

#endif
