/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Whose packet it is: the slot of the longest prefix that holds the peer's inner address, which is
 * WireGuard's own rule of cryptokey routing. Whatever has no such prefix belongs to slot 0.
 */
#ifndef WIRETOLL_BPF_ATTRIBUTE_H
#define WIRETOLL_BPF_ATTRIBUTE_H

#include "maps.h"
#include "parse.h"

/* The peer is the source of what it uploads and the destination of what it downloads. */
WT_INLINE const struct wt_attribution *attribute4(const struct wt_packet *packet, __u32 direction)
{
	struct wt_prefix4 key = {.prefix_length = 32};

	if (wt_load(packet, direction == WT_UPLOADS ? 12 : 16, key.address, sizeof(key.address)))
		return NULL;
	return bpf_map_lookup_elem(&prefixes4, &key);
}

WT_INLINE const struct wt_attribution *attribute6(const struct wt_packet *packet, __u32 direction)
{
	struct wt_prefix6 key = {.prefix_length = 128};

	if (wt_load(packet, direction == WT_UPLOADS ? 8 : 24, key.address, sizeof(key.address)))
		return NULL;
	return bpf_map_lookup_elem(&prefixes6, &key);
}

WT_INLINE __u32 attribute(const struct wt_packet *packet, __u32 direction)
{
	const struct wt_attribution *found = NULL;
	__u32 version = wt_ip_version(packet);

	if (version == 4)
		found = attribute4(packet, direction);
	else if (version == 6)
		found = attribute6(packet, direction);
	return found && found->slot < capacity ? found->slot : WT_SLOT_UNATTRIBUTED;
}

#endif
