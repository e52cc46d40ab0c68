/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The attribution table in plain memory: user space's writer and the programs' reader, both compiled here.
 * TABLE_CLAIM(condition) is what the includer has for an assertion.
 */
#ifndef WIRETOLL_TESTS_UNIT_PREFIX_TABLE_H
#define WIRETOLL_TESTS_UNIT_PREFIX_TABLE_H

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cidr.h"
#include "meter/attribution.h"

#ifndef TABLE_CLAIM
#include <assert.h>
#define TABLE_CLAIM(condition) assert(condition)
#endif

static struct attribution_table table;
static uint32_t capacity, buckets, hints;

static const struct wt_family *family_at(uint32_t family)
{
	return &table.heads->families[family];
}

static const struct wt_window_line *window_line_at(uint32_t family, uint32_t line)
{
	uint32_t lines = wt_window_size(capacity) / WT_WINDOW_LINE;

	TABLE_CLAIM(line < lines);
	return &table.windows[family * lines + line];
}

static const struct wt_bucket4 *bucket4_at(uint32_t bucket)
{
	TABLE_CLAIM(bucket < buckets);
	return &table.buckets4[bucket];
}

static const struct wt_bucket6 *bucket6_at(uint32_t bucket)
{
	TABLE_CLAIM(bucket < buckets);
	return &table.buckets6[bucket];
}

static const struct wt_hint_line *hint_line_at(uint32_t line)
{
	TABLE_CLAIM(line < wt_hint_lines(hints));
	return &table.hint_lines[line];
}

#include "../../bpf/attribute.h"

/* The slot that the programs find for a packet with this source. */
static inline uint32_t answered(const struct cidr *address)
{
	uint8_t header[40] = {address->family == AF_INET ? 0x45 : 0x60};
	const struct wt_packet packet = {.data = header, .length = 40, .captured = 40};

	memcpy(header + (address->family == AF_INET ? 12 : 8), address->bytes,
	       address->family == AF_INET ? 4 : 16);
	return slot_of(attribute_any(&packet, wt_ip_version(&packet), WT_UPLOADS));
}

static inline void make_table(uint32_t slots)
{
	table = (struct attribution_table){.capacity = slots};
	capacity = slots;
	buckets = wt_buckets(slots);
	hints = wt_hints(slots);
	table.heads = calloc(1, sizeof(*table.heads));
	table.windows =
		calloc(WT_FAMILIES * (wt_window_size(slots) / WT_WINDOW_LINE), sizeof(*table.windows));
	table.buckets4 = calloc(buckets, sizeof(*table.buckets4));
	table.buckets6 = calloc(buckets, sizeof(*table.buckets6));
	table.hint_lines = calloc(wt_hint_lines(hints), sizeof(*table.hint_lines));
	table.incarnations = calloc(WT_FAMILIES * buckets, sizeof(*table.incarnations));
	TABLE_CLAIM(table.heads && table.windows && table.buckets4 && table.buckets6 && table.hint_lines &&
		    table.incarnations);
	table.heads->families[WT_IPV4].seed = table.heads->families[WT_IPV6].seed = 0x123456789abcdefULL;
	TABLE_CLAIM(attribution_recover(&table) == 0);
}

/* Nothing that sends lookups on their way stays behind, or they would become slower with every change. */
static inline bool table_is_empty(void)
{
	uint64_t left = 0;

	for (int family = 0; family < WT_FAMILIES; family++) {
		const struct wt_family *head = &table.heads->families[family];

		left |= head->lengths[0] | head->lengths[1] | head->fallback;
	}
	for (uint32_t bucket = 0; bucket < buckets; bucket++)
		left |= table.buckets4[bucket].words[0] | table.buckets6[bucket].entries[0].head;
	for (uint32_t line = 0; line < wt_hint_lines(hints); line++)
		for (int i = 0; i < WT_HINT_LINE6; i++)
			left |= table.hint_lines[line].marks6[i];
	return left == 0;
}

static inline void free_table(void)
{
	attribution_release(&table);
	free(table.heads);
	free(table.windows);
	free(table.buckets4);
	free(table.buckets6);
	free(table.hint_lines);
	free(table.incarnations);
}

#endif
