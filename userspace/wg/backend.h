/* SPDX-License-Identifier: BSD-2-Clause */
/* What wg.c asks of the two kinds of device; internal to wg/. */
#ifndef WIRETOLL_WG_BACKEND_H
#define WIRETOLL_WG_BACKEND_H

#include "wg/wg.h"

/* One SET. */
struct wg_request {
	const struct key *private_key; /* NULL: unchanged */
	bool set_listen_port;
	uint16_t listen_port;
	bool set_mark;
	uint32_t mark;
	const struct wg_peer_change *changes;
	size_t n_changes;
};

struct wg_backend {
	const char *kind;
	/* -ENODEV when the interface is not of this kind. */
	int (*open)(const char *interface, void **ret_state);
	void (*close)(void *state);
	/* Fills in an empty device, in any order. */
	int (*dump)(void *state, struct wg_device *device);
	int (*set)(void *state, const struct wg_request *request);
	/* NULL, or -EOPNOTSUPP: there is no such operation. */
	int (*remove_allowed_ip)(void *state, const struct key *public_key, const struct cidr *prefix);
};

extern const struct wg_backend wg_netlink_backend;
extern const struct wg_backend wg_uapi_backend;

/* A new zeroed peer at the end of the list; earlier pointers to peers are void then. NULL without memory. */
struct wg_peer *wg_device_add_peer(struct wg_device *device);
WT_MUST_CHECK int wg_peer_add_allowed_ip(struct wg_peer *peer, const struct cidr *prefix);

/* Wipes and forgets all peers; the device may be filled again. */
void wg_device_clear(struct wg_device *device);

/* Brings peers and allowed IPs in the order that wg.h promises. */
WT_MUST_CHECK int wg_device_sort(struct wg_device *device);

#endif
