// SPDX-License-Identifier: BSD-2-Clause
#include "agent/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where the prefix is, or would be put. */
static size_t place_of(const struct table *table, const struct cidr *prefix)
{
	size_t low = 0, high = table->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (cidr_compare(&table->entries[middle].prefix, prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct table *table, size_t place, const struct cidr *prefix)
{
	return place < table->count && cidr_compare(&table->entries[place].prefix, prefix) == 0;
}

const struct table_entry *table_find(const struct table *table, const struct cidr *prefix)
{
	size_t place = place_of(table, prefix);

	return is_at(table, place, prefix) ? &table->entries[place] : NULL;
}

int table_put(struct table *table, const struct table_entry *entry)
{
	size_t place = place_of(table, &entry->prefix);

	if (is_at(table, place, &entry->prefix)) {
		table->entries[place] = *entry;
		return 0;
	}
	if (table->count == table->size) {
		size_t size = table->size ? table->size * 2 : 16;
		struct table_entry *larger = realloc(table->entries, size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		table->entries = larger;
		table->size = size;
	}
	memmove(table->entries + place + 1, table->entries + place,
		(table->count - place) * sizeof(*table->entries));
	table->entries[place] = *entry;
	table->count++;
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	const struct table_entry *left = a, *right = b;

	return cidr_compare(&left->prefix, &right->prefix);
}

/* Of two sorted lists; where both have a prefix, the new one. */
static size_t merge(struct table_entry *merged, const struct table *old, const struct table_entry *new,
		    size_t n)
{
	size_t count = 0, i = 0, j = 0;

	while (i < old->count || j < n) {
		int order = i == old->count ? 1 : j == n ? -1 : compare_entries(&old->entries[i], &new[j]);

		if (count > 0 && order >= 0 && compare_entries(&merged[count - 1], &new[j]) == 0) {
			j++;
			continue;
		}
		merged[count++] = order < 0 ? old->entries[i] : new[j];
		i += order <= 0;
		j += order >= 0;
	}
	return count;
}

int table_put_all(struct table *table, const struct table_entry *entries, size_t n)
{
	struct table_entry *sorted _cleanup_free_ = calloc(n + 1, sizeof(*sorted));
	struct table_entry *merged = calloc(table->count + n + 1, sizeof(*merged));

	if (!sorted || !merged) {
		free(merged);
		return -ENOMEM;
	}
	if (n > 0)
		memcpy(sorted, entries, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_entries);
	table->size = table->count + n + 1;
	table->count = merge(merged, table, sorted, n);
	free(table->entries);
	table->entries = merged;
	return 0;
}

void table_delete(struct table *table, const struct cidr *prefix)
{
	size_t place = place_of(table, prefix);

	if (!is_at(table, place, prefix))
		return;
	table->count--;
	memmove(table->entries + place, table->entries + place + 1,
		(table->count - place) * sizeof(*table->entries));
}

bool table_has_slot(const struct table *table, uint32_t slot)
{
	for (size_t i = 0; i < table->count; i++)
		if (table->entries[i].slot == slot)
			return true;
	return false;
}

void table_free(struct table *table)
{
	free(table->entries);
	*table = (struct table){0};
}
