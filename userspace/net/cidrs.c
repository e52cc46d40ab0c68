// SPDX-License-Identifier: BSD-2-Clause
#include "net/net_internal.h"

#include "base/cidr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

size_t net_address_size(const struct cidr *cidr)
{
	return cidr->family == AF_INET ? 4 : 16;
}

int net_cidr_from_kernel(int family, const void *bytes, int length, unsigned prefix_length,
			 struct cidr *ret_cidr)
{
	struct cidr cidr = {.family = family, .prefix_length = prefix_length};

	if ((family != AF_INET && family != AF_INET6) || length != (int)net_address_size(&cidr) ||
	    prefix_length > cidr_max_length(&cidr))
		return -EPROTO;
	memcpy(cidr.bytes, bytes, (size_t)length);
	*ret_cidr = cidr;
	return 0;
}

int net_cidrs_add(struct net_cidrs *list, const struct cidr *cidr)
{
	/* The capacity is the power of two at or above n: full exactly when n is 0 or such a power. */
	if ((list->n & (list->n - 1)) == 0) {
		size_t capacity = list->n == 0 ? 1 : list->n * 2;
		struct cidr *larger = reallocarray(list->items, capacity, sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		list->items = larger;
	}
	list->items[list->n++] = *cidr;
	return 0;
}

void net_cidrs_sort(struct net_cidrs *list)
{
	if (list->n > 1)
		qsort(list->items, list->n, sizeof(*list->items), cidr_compare);
}

bool net_cidrs_contain(const struct net_cidrs *list, const struct cidr *cidr)
{
	return list->n > 0 && bsearch(cidr, list->items, list->n, sizeof(*list->items), cidr_compare);
}

void net_cidrs_clear(struct net_cidrs *list)
{
	free(list->items);
	*list = (struct net_cidrs){0};
}
