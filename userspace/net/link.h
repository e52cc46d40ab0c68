/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel says about a link; internal to net/ and wg/. */
#ifndef WIRETOLL_NET_LINK_H
#define WIRETOLL_NET_LINK_H

#include "base/base.h"

#include <net/if.h>

struct net;
struct nlmsghdr;

struct net_link {
	int index;
	unsigned flags; /* IFF_* */
	char name[IFNAMSIZ];
	char kind[24]; /* "wireguard", "tun", …; empty for hardware */
	bool merges;   /* its program may hand it, and be handed, several segments as one packet */
};

/* -ENODEV without such an interface. */
WT_MUST_CHECK int net_link_get(struct net *net, const char *interface, struct net_link *ret_link);

/* Reads an RTM_NEWLINK or RTM_DELLINK message; -EPROTO when it is malformed. */
WT_MUST_CHECK int net_link_parse(const struct nlmsghdr *header, struct net_link *ret_link);

#endif
