/* SPDX-License-Identifier: BSD-2-Clause */
/* WireGuard's generic netlink messages, apart from any socket; internal to wg/ and its tests. */
#ifndef WIRETOLL_WG_NETLINK_MESSAGE_H
#define WIRETOLL_WG_NETLINK_MESSAGE_H

#include "wg/backend.h"

struct nl_msg;
struct nlmsghdr;

/*
 * Adds one message of a dump to the device. A peer that continues from the message before is merged. -EPROTO
 * for whatever is malformed; the device then has an unspecified part of it.
 */
WT_MUST_CHECK int wg_netlink_read(const struct nlmsghdr *header, struct wg_device *device);

/* How far a request has been written. Begin with zeros. */
struct wg_netlink_cursor {
	bool interface_done;
	size_t change;
	size_t allowed_ip; /* of that change */
};

/*
 * Puts as much of the request into the message (which has its generic netlink header) as fits, and moves the
 * cursor. The request is complete when cursor->change reaches n_changes. -EMSGSIZE when not even one more
 * step fits.
 */
WT_MUST_CHECK int wg_netlink_write(struct nl_msg *message, const char *interface,
				   const struct wg_request *request, struct wg_netlink_cursor *cursor);

/* The whole message that takes one allowed IP from a peer, for kernels from 6.16 on. */
WT_MUST_CHECK int wg_netlink_write_removal(struct nl_msg *message, const char *interface,
					   const struct key *public_key, const struct cidr *prefix);

#endif
