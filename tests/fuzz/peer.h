/* SPDX-License-Identifier: BSD-2-Clause */
/* A peer as WireGuard tells of it: what must hold of it, and how it is written again. */
#ifndef WIRETOLL_TESTS_FUZZ_PEER_H
#define WIRETOLL_TESTS_FUZZ_PEER_H

#include "fuzz.h"

#include "wg/wg.h"

static inline void claim_well_formed(const struct wg_peer *peer)
{
	for (size_t i = 0; i < peer->n_allowed_ips; i++) {
		const struct cidr *prefix = &peer->allowed_ips[i];

		CLAIM(prefix->family == AF_INET || prefix->family == AF_INET6);
		CLAIM(prefix->prefix_length <= (prefix->family == AF_INET ? 32 : 128));
	}
	CLAIM(peer->handshake_ns >= 0);
	CLAIM(peer->endpoint.ss_family == AF_UNSPEC || peer->endpoint.ss_family == AF_INET ||
	      peer->endpoint.ss_family == AF_INET6);
}

/* What makes a peer like this one. */
static inline struct wg_peer_change change_to(const struct wg_peer *peer)
{
	return (struct wg_peer_change){
		.public_key = peer->public_key,
		.set_preshared_key = true,
		.preshared_key = peer->preshared_key,
		.set_endpoint = peer->endpoint.ss_family != AF_UNSPEC,
		.endpoint = peer->endpoint,
		.set_keepalive = true,
		.keepalive = peer->keepalive,
		.allowed_ips = peer->allowed_ips,
		.n_allowed_ips = peer->n_allowed_ips,
	};
}

/* A device that has the peer, as far as a change sets it, and no other. */
static inline void claim_has(const struct wg_device *device, const struct wg_peer *peer)
{
	const struct wg_peer *found = device->peers;

	CLAIM(device->n_peers == 1);
	CLAIM(key_equal(&found->public_key, &peer->public_key));
	CLAIM(key_equal(&found->preshared_key, &peer->preshared_key));
	CLAIM(found->has_preshared_key == peer->has_preshared_key);
	CLAIM(found->keepalive == peer->keepalive);
	CLAIM(memcmp(&found->endpoint, &peer->endpoint, sizeof(peer->endpoint)) == 0);
	CLAIM(found->n_allowed_ips == peer->n_allowed_ips);
	for (size_t i = 0; i < peer->n_allowed_ips; i++)
		CLAIM(cidr_equal(&found->allowed_ips[i], &peer->allowed_ips[i]));
}

#endif
