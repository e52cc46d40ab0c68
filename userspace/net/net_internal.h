/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of net/ share. */
#ifndef WIRETOLL_NET_NET_INTERNAL_H
#define WIRETOLL_NET_NET_INTERNAL_H

#include "net/netlink.h"

struct net {
	struct nl_sock *socket;
};

struct cidr;

/* An address as the kernel hands it over: `bytes` of `length`. -EPROTO when the length is not the family's.
 */
WT_MUST_CHECK int net_cidr_from_kernel(int family, const void *bytes, int length, unsigned prefix_length,
				       struct cidr *ret_cidr);

/* 4 or 16. */
size_t net_address_size(const struct cidr *cidr);

/* A list of prefixes that grows; free `items`. */
struct net_cidrs {
	struct cidr *items;
	size_t n;
};
WT_MUST_CHECK int net_cidrs_add(struct net_cidrs *list, const struct cidr *cidr);
void net_cidrs_sort(struct net_cidrs *list);
/* Of a sorted list. */
bool net_cidrs_contain(const struct net_cidrs *list, const struct cidr *cidr);
void net_cidrs_clear(struct net_cidrs *list);
#define _cleanup_cidrs_ WT_CLEANUP(net_cidrs_clear)

#endif
