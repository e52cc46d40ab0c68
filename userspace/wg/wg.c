// SPDX-License-Identifier: BSD-2-Clause
#include "wg/wg.h"

#include "wg/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

struct wg {
	const struct wg_backend *backend;
	void *state;
};

int wg_open(const char *interface, struct wg **ret_wg)
{
	static const struct wg_backend *const backends[] = {&wg_netlink_backend, &wg_uapi_backend};
	struct wg *wg = calloc(1, sizeof(*wg));
	int r = -ENODEV;

	if (!wg)
		return -ENOMEM;
	for (size_t i = 0; r == -ENODEV && i < ARRAY_SIZE(backends); i++) {
		wg->backend = backends[i];
		r = wg->backend->open(interface, &wg->state);
	}
	if (r < 0) {
		free(wg);
		return r;
	}
	*ret_wg = wg;
	return 0;
}

void wg_close(struct wg *wg)
{
	if (!wg)
		return;
	wg->backend->close(wg->state);
	free(wg);
}

const char *wg_kind(const struct wg *wg)
{
	return wg->backend->kind;
}

int wg_dump(struct wg *wg, struct wg_device **ret_device)
{
	struct wg_device *device = calloc(1, sizeof(*device));
	int r;

	if (!device)
		return -ENOMEM;
	r = wg->backend->dump(wg->state, device);
	if (r == 0)
		r = wg_device_sort(device);
	if (r < 0) {
		wg_device_free(device);
		return r;
	}
	*ret_device = device;
	return 0;
}

int wg_set_interface(struct wg *wg, const struct key *private_key, uint16_t listen_port)
{
	const struct wg_request request = {
		.private_key = private_key, .set_listen_port = true, .listen_port = listen_port};

	return wg->backend->set(wg->state, &request);
}

int wg_set_mark(struct wg *wg, uint32_t mark)
{
	const struct wg_request request = {.set_mark = true, .mark = mark};

	return wg->backend->set(wg->state, &request);
}

static int check_change(const struct wg_peer_change *change)
{
	if (change->set_endpoint && change->endpoint.ss_family != AF_INET &&
	    change->endpoint.ss_family != AF_INET6)
		return -EINVAL;
	for (size_t i = 0; i < change->n_allowed_ips; i++) {
		const struct cidr *prefix = &change->allowed_ips[i];

		/* WireGuard would clear host bits silently, and a later comparison never agree. */
		if ((prefix->family != AF_INET && prefix->family != AF_INET6) ||
		    prefix->prefix_length > cidr_max_length(prefix) || !cidr_is_network(prefix))
			return -EINVAL;
	}
	return 0;
}

int wg_change_peers(struct wg *wg, const struct wg_peer_change *changes, size_t n_changes)
{
	const struct wg_request request = {.changes = changes, .n_changes = n_changes};

	for (size_t i = 0; i < n_changes; i++) {
		int r = check_change(&changes[i]);

		if (r < 0)
			return r;
	}
	return n_changes == 0 ? 0 : wg->backend->set(wg->state, &request);
}

static bool has_allowed_ip(const struct wg_peer *peer, const struct cidr *prefix)
{
	return peer && peer->n_allowed_ips > 0 &&
	       bsearch(prefix, peer->allowed_ips, peer->n_allowed_ips, sizeof(*prefix), cidr_compare);
}

/* Adding a prefix to a peer takes it from the one that has it, and from that one nothing else. */
static int park_allowed_ip(struct wg *wg, const struct cidr *prefix)
{
	struct wg_peer_change changes[2] = {{.allowed_ips = prefix, .n_allowed_ips = 1}, {.remove = true}};
	struct key WT_CLEANUP(key_wipe) private_key;
	int r;

	/* A real public key: wireguard-go refuses points of low order. */
	key_generate_private(&private_key);
	r = key_public(&private_key, &changes[0].public_key);
	if (r < 0)
		return r;
	changes[1].public_key = changes[0].public_key;
	return wg_change_peers(wg, changes, ARRAY_SIZE(changes));
}

int wg_remove_allowed_ip(struct wg *wg, const struct key *public_key, const struct cidr *prefix)
{
	struct wg_device *device;
	int r = -EOPNOTSUPP;
	bool held;

	if (wg->backend->remove_allowed_ip)
		r = wg->backend->remove_allowed_ip(wg->state, public_key, prefix);
	if (r != -EOPNOTSUPP)
		return r;
	/* Parking does not ask whose the prefix is: it may be another peer's by now. */
	r = wg_dump(wg, &device);
	if (r < 0)
		return r;
	held = has_allowed_ip(wg_device_find(device, public_key), prefix);
	wg_device_free(device);
	return held ? park_allowed_ip(wg, prefix) : 0;
}
