/* SPDX-License-Identifier: BSD-2-Clause */
/* A copy of the meter's attribution table: which slot each prefix is counted in. */
#ifndef WIRETOLL_AGENT_TABLE_H
#define WIRETOLL_AGENT_TABLE_H

#include "base/base.h"
#include "base/cidr.h"

struct table_entry {
	struct cidr prefix;
	uint32_t slot;
	uint32_t incarnation;
};

struct table {
	struct table_entry *entries; /* sorted by prefix */
	size_t count, size;
};

const struct table_entry *table_find(const struct table *table, const struct cidr *prefix);

/* Adds the entry or replaces the one of the same prefix. Returns -ENOMEM. */
WT_MUST_CHECK int table_put(struct table *table, const struct table_entry *entry);

/* The same for many, in one pass; of two with the same prefix one stays. Returns -ENOMEM, with nothing
 * changed. */
WT_MUST_CHECK int table_put_all(struct table *table, const struct table_entry *entries, size_t n);

void table_delete(struct table *table, const struct cidr *prefix);
bool table_has_slot(const struct table *table, uint32_t slot);
void table_free(struct table *table);

#endif
