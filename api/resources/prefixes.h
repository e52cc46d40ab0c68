/* SPDX-License-Identifier: BSD-2-Clause */
/* Which peer of a gateway has which addresses (P7). All run in a transaction that has locked the gateway. */
#ifndef WIRETOLL_API_PREFIXES_H
#define WIRETOLL_API_PREFIXES_H

#include "base/cidr.h"
#include "resources/owned.h"
#include "resources/peer_input.h"

/*
 * The allowed IPs of a peer become these: a site's networks. -EBADMSG with 409 naming both sides when one
 * overlaps another peer's, the tunnel subnets, the VPC's ranges or the gateway's public address, with 422
 * when one is in no range that the location lets sites use.
 */
WT_MUST_CHECK int set_site_prefixes(struct request *request, struct response *response,
				    const struct owned *gateway, const char *peer,
				    const struct cidr *networks, size_t n);

/*
 * The same for a road warrior's tunnel addresses. An empty text keeps the address that the peer has, or takes
 * the next free one: never used, else longest free, and none within ten minutes of its release.
 */
WT_MUST_CHECK int set_tunnel_addresses(struct request *request, struct response *response,
				       const struct owned *gateway, const char *peer, const char *tunnel_ip,
				       const char *tunnel_ip6);

/* Frees all that the peer has. */
WT_MUST_CHECK int free_prefixes(struct request *request, const struct owned *gateway, const char *peer);

#endif
