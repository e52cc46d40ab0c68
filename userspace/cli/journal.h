/* SPDX-License-Identifier: BSD-2-Clause */
/* wiretoll journal: what an agent has written. */
#ifndef WIRETOLL_CLI_JOURNAL_H
#define WIRETOLL_CLI_JOURNAL_H

#include "base/base.h"
#include "journal/reader.h"

#include <jansson.h>

/* One object for a record: where it is, and what it says. NULL without memory. */
json_t *journal_record_json(const struct reader_record *record);

/* "batch", "sample", "acknowledgement", "data". */
const char *journal_kind_name(enum journal_kind kind);

/* What it says in a few words; the buffer has JOURNAL_WORDS_SIZE bytes; returns it. */
#define JOURNAL_WORDS_SIZE 160
const char *journal_record_words(const struct reader_record *record, char *buffer);

#endif
