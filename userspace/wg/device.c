// SPDX-License-Identifier: BSD-2-Clause
#include "wg/backend.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* A list's capacity is the power of two at or above its length: full when that is 0 or such a power. */
static bool is_full(size_t n)
{
	return (n & (n - 1)) == 0;
}

static void wipe_peers(struct wg_peer *peers, size_t n)
{
	if (peers)
		sodium_memzero(peers, n * sizeof(*peers));
	free(peers);
}

struct wg_peer *wg_device_add_peer(struct wg_device *device)
{
	if (is_full(device->n_peers)) {
		/* Not realloc(): a moved block would leave preshared keys behind. */
		size_t capacity = device->n_peers == 0 ? 1 : device->n_peers * 2;
		struct wg_peer *larger = calloc(capacity, sizeof(*larger));

		if (!larger)
			return NULL;
		if (device->n_peers > 0)
			memcpy(larger, device->peers, device->n_peers * sizeof(*larger));
		wipe_peers(device->peers, device->n_peers);
		device->peers = larger;
	}
	return &device->peers[device->n_peers++];
}

int wg_peer_add_allowed_ip(struct wg_peer *peer, const struct cidr *prefix)
{
	if (is_full(peer->n_allowed_ips)) {
		size_t capacity = peer->n_allowed_ips == 0 ? 1 : peer->n_allowed_ips * 2;
		struct cidr *larger = reallocarray(peer->allowed_ips, capacity, sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		peer->allowed_ips = larger;
	}
	peer->allowed_ips[peer->n_allowed_ips++] = *prefix;
	return 0;
}

void wg_device_clear(struct wg_device *device)
{
	for (size_t i = 0; i < device->n_peers; i++)
		free(device->peers[i].allowed_ips);
	wipe_peers(device->peers, device->n_peers);
	*device = (struct wg_device){0};
}

void wg_device_free(struct wg_device *device)
{
	if (!device)
		return;
	wg_device_clear(device);
	free(device);
}

static int compare_peers(const void *left, const void *right)
{
	const struct wg_peer *a = left, *b = right;

	return memcmp(a->public_key.bytes, b->public_key.bytes, KEY_SIZE);
}

static int compare_peer_pointers(const void *left, const void *right)
{
	const struct wg_peer *const *a = left, *const *b = right;

	return compare_peers(*a, *b);
}

/* By way of pointers: qsort() may use a block of its own, which it frees without wiping. */
static int sort_peers(struct wg_device *device)
{
	_cleanup_free_ const struct wg_peer **order = calloc(device->n_peers, sizeof(*order));
	struct wg_peer *sorted;
	size_t capacity = 1;

	while (capacity < device->n_peers)
		capacity *= 2;
	sorted = calloc(capacity, sizeof(*sorted));
	if (!order || !sorted) {
		free(sorted);
		return -ENOMEM;
	}
	for (size_t i = 0; i < device->n_peers; i++)
		order[i] = &device->peers[i];
	qsort(order, device->n_peers, sizeof(*order), compare_peer_pointers);
	for (size_t i = 0; i < device->n_peers; i++)
		sorted[i] = *order[i];
	wipe_peers(device->peers, device->n_peers);
	device->peers = sorted;
	return 0;
}

int wg_device_sort(struct wg_device *device)
{
	for (size_t i = 0; i < device->n_peers; i++) {
		struct wg_peer *peer = &device->peers[i];

		if (peer->n_allowed_ips > 1)
			qsort(peer->allowed_ips, peer->n_allowed_ips, sizeof(*peer->allowed_ips),
			      cidr_compare);
	}
	return device->n_peers > 1 ? sort_peers(device) : 0;
}

const struct wg_peer *wg_device_find(const struct wg_device *device, const struct key *public_key)
{
	struct wg_peer wanted = {.public_key = *public_key};

	if (device->n_peers == 0)
		return NULL;
	return bsearch(&wanted, device->peers, device->n_peers, sizeof(wanted), compare_peers);
}
