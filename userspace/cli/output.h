/* SPDX-License-Identifier: BSD-2-Clause */
/* What people read: aligned tables and amounts with units. Machines read --json. */
#ifndef WIRETOLL_CLI_OUTPUT_H
#define WIRETOLL_CLI_OUTPUT_H

#include "base/base.h"

#include <jansson.h>
#include <stdio.h>

#define BYTES_TEXT_SIZE 32

/* "84 B", "1.5 MB", "10 GB": at most three decimals, cut off and not rounded up; GB is the largest unit. */
const char *bytes_format(uint64_t bytes, char buffer[static BYTES_TEXT_SIZE]);

/*
 * A member of an API object as text, by its name: members that end in _bytes or _gb get a unit (null is then
 * ∞), `bandwidth` is "1.5 GB / 10 GB". What could steer a terminal is replaced. The caller frees it; NULL
 * without memory.
 */
char *field_format(const char *field, const json_t *value);

/*
 * Prints objects as a table. `columns` is "name,status,included_gb": members in order; "member=TITLE" names
 * the column, else the title is the member's name. Returns -ENOMEM.
 */
WT_MUST_CHECK int table_print(FILE *file, const char *columns, const json_t *objects);

/* Prints all members of one object, one a line. Returns -ENOMEM. */
WT_MUST_CHECK int object_print(FILE *file, const json_t *object);

/* Prints text with what could steer a terminal replaced. */
void text_print(FILE *file, const char *text);

#endif
