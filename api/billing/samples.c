// SPDX-License-Identifier: BSD-2-Clause
#include "billing/samples.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void read_sample(const json_t *record, size_t index, struct sample *ret)
{
	static const char *const totals[WT_REPORT_N_COUNTS] = WT_REPORT_COUNT_NAMES;
	const char *peer = json_string_value(json_object_get(record, "peer"));

	*ret = (struct sample){
		.slot = json_integer_value(json_object_get(record, "slot")),
		.incarnation = json_integer_value(json_object_get(record, "incarnation")),
		.index = index,
		.split = json_is_true(json_object_get(record, "split")),
	};
	if (peer && uuid_parse(peer, ret->peer) < 0)
		memset(ret->peer, 0, sizeof(ret->peer));
	if (clock_parse(json_string_value(json_object_get(record, "hour")), &ret->hour_ns) < 0)
		ret->hour_ns = 0;
	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++)
		ret->totals[i] = strtoull(json_string_value(json_object_get(record, totals[i])), NULL, 10);
}

bool sample_same_slot(const struct sample *a, const struct sample *b)
{
	return a->slot == b->slot && a->incarnation == b->incarnation;
}

static int compare(int64_t a, int64_t b)
{
	return a < b ? -1 : a > b;
}

static int by_slot(const struct sample *a, const struct sample *b)
{
	return a->slot != b->slot ? compare(a->slot, b->slot) : compare(a->incarnation, b->incarnation);
}

static int by_index(const void *left, const void *right)
{
	const struct sample *a = left, *b = right;
	int order = by_slot(a, b);

	return order ? order : compare((int64_t)a->index, (int64_t)b->index);
}

static int by_hour(const void *left, const void *right)
{
	const struct sample *a = left, *b = right;
	int order = by_slot(a, b);

	if (order == 0)
		order = compare(a->hour_ns, b->hour_ns);
	return order ? order : compare((int64_t)a->index, (int64_t)b->index);
}

static bool follows(const struct sample *before, const struct sample *after)
{
	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++) {
		if (after->totals[i] < before->totals[i])
			return false;
	}
	return memcmp(before->peer, after->peer, sizeof(before->peer)) == 0;
}

static bool only_grow(const struct sample_list *list)
{
	for (size_t i = 1; i < list->n; i++) {
		if (sample_same_slot(&list->samples[i - 1], &list->samples[i]) &&
		    !follows(&list->samples[i - 1], &list->samples[i]))
			return false;
	}
	return true;
}

static bool is_tangled(const struct sample_list *list)
{
	for (size_t i = 1; i < list->n; i++) {
		if (sample_same_slot(&list->samples[i - 1], &list->samples[i]) &&
		    list->samples[i].hour_ns < list->samples[i - 1].hour_ns)
			return true;
	}
	return false;
}

static int by_peer(const void *left, const void *right)
{
	const struct sample *const *a = left, *const *b = right;

	return memcmp((*a)->peer, (*b)->peer, sizeof((*a)->peer));
}

/* A slot's samples lie together. */
static int find_several(struct sample_list *list)
{
	const struct sample **peers = calloc(list->n ? list->n : 1, sizeof(*peers));
	size_t n = 0;

	if (!peers)
		return -ENOMEM;
	for (size_t i = 0; i < list->n; i++) {
		if (i == 0 || !sample_same_slot(&list->samples[i - 1], &list->samples[i]))
			peers[n++] = &list->samples[i];
	}
	qsort(peers, n, sizeof(*peers), by_peer);
	for (size_t i = 1; i < n; i++)
		list->several |= by_peer(&peers[i - 1], &peers[i]) == 0;
	free(peers);
	return 0;
}

int samples_order(struct sample_list *list)
{
	/* In the order of the report; or, if that cannot be, in that of the hours. */
	if (list->n > 0)
		qsort(list->samples, list->n, sizeof(*list->samples), by_index);
	if (!only_grow(list)) {
		qsort(list->samples, list->n, sizeof(*list->samples), by_hour);
		list->shrunk = !only_grow(list);
	}
	list->tangled = is_tangled(list);
	return find_several(list);
}

int samples_read(const json_t *records, struct sample_list *ret_list)
{
	struct sample_list list = {.n = json_array_size(records)};
	const json_t *record;
	size_t i;
	int r;

	list.samples = calloc(list.n ? list.n : 1, sizeof(*list.samples));
	if (!list.samples)
		return -ENOMEM;
	json_array_foreach (records, i, record)
		read_sample(record, i, &list.samples[i]);
	r = samples_order(&list);
	if (r < 0) {
		cleanup_samples(&list);
		return r;
	}
	*ret_list = list;
	return 0;
}

void cleanup_samples(struct sample_list *list)
{
	free(list->samples);
	list->samples = NULL;
}
