// SPDX-License-Identifier: BSD-2-Clause
#include "net/net.h"

#include "net/net_internal.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <sys/socket.h>

#define ADDRESS_MESSAGE_SIZE 256

struct address_dump {
	int ifindex;
	struct net_cidrs found;
};

static bool is_link_local(const struct cidr *cidr)
{
	return cidr->family == AF_INET6 && cidr->bytes[0] == 0xfe && (cidr->bytes[1] & 0xc0) == 0x80;
}

static int read_address(const struct nlmsghdr *header, void *data)
{
	struct address_dump *dump = data;
	const struct ifaddrmsg *info = nlmsg_data(header);
	struct nlattr *attributes[IFA_MAX + 1], *address;
	struct cidr cidr;

	if (header->nlmsg_type != RTM_NEWADDR)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)header, sizeof(*info), attributes, IFA_MAX, NULL) < 0)
		return -EPROTO;
	if ((int)info->ifa_index != dump->ifindex)
		return 0;
	/* On a point-to-point interface IFA_ADDRESS is the other end. */
	address = attributes[IFA_LOCAL] ? attributes[IFA_LOCAL] : attributes[IFA_ADDRESS];
	if (!address || net_cidr_from_kernel(info->ifa_family, nla_data(address), nla_len(address),
					     info->ifa_prefixlen, &cidr) < 0)
		return -EPROTO;
	return is_link_local(&cidr) ? 0 : net_cidrs_add(&dump->found, &cidr);
}

static void restart_dump(void *data)
{
	struct address_dump *dump = data;

	net_cidrs_clear(&dump->found);
}

static int dump_addresses(struct net *net, struct address_dump *dump)
{
	_cleanup_netlink_message_ struct nl_msg *message =
		netlink_message(RTM_GETADDR, NLM_F_DUMP, ADDRESS_MESSAGE_SIZE);
	const struct netlink_reader reader = {read_address, restart_dump, dump};
	int r;

	net_cidrs_clear(&dump->found);
	if (!message ||
	    nlmsg_append(message, &(struct ifaddrmsg){0}, sizeof(struct ifaddrmsg), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	r = netlink_request(net->socket, message, &reader);
	if (r == 0)
		net_cidrs_sort(&dump->found);
	return r;
}

static int change_address(struct net *net, uint16_t type, int ifindex, const struct cidr *cidr)
{
	const struct ifaddrmsg info = {.ifa_family = (uint8_t)cidr->family,
				       .ifa_prefixlen = (uint8_t)cidr->prefix_length,
				       .ifa_index = (uint32_t)ifindex};
	_cleanup_netlink_message_ struct nl_msg *message = netlink_message(
		type, type == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_EXCL : 0, ADDRESS_MESSAGE_SIZE);
	int size = (int)net_address_size(cidr);

	if (!message || nlmsg_append(message, (void *)&info, sizeof(info), NLMSG_ALIGNTO) < 0 ||
	    nla_put(message, IFA_LOCAL, size, cidr->bytes) < 0 ||
	    nla_put(message, IFA_ADDRESS, size, cidr->bytes) < 0)
		return -ENOMEM;
	/* Nobody else can hold it: a tunnel has no neighbours to ask. */
	if (cidr->family == AF_INET6 && nla_put_u32(message, IFA_FLAGS, IFA_F_NODAD) < 0)
		return -ENOMEM;
	return netlink_request(net->socket, message, NULL);
}

/* Removes what is not wanted; *ret_removed says whether there was any. */
static int remove_others(struct net *net, const struct address_dump *dump, const struct net_cidrs *wanted,
			 bool *ret_removed)
{
	bool removed = false;

	for (size_t i = 0; i < dump->found.n; i++) {
		int r;

		if (net_cidrs_contain(wanted, &dump->found.items[i]))
			continue;
		r = change_address(net, RTM_DELADDR, dump->ifindex, &dump->found.items[i]);
		/* Gone already: the kernel removes an IPv4 address's secondaries with it. */
		if (r < 0 && r != -EADDRNOTAVAIL)
			return r;
		removed = true;
	}
	*ret_removed = removed;
	return 0;
}

static int add_missing(struct net *net, const struct address_dump *dump, const struct net_cidrs *wanted)
{
	for (size_t i = 0; i < wanted->n; i++) {
		int r = 0;

		if (!net_cidrs_contain(&dump->found, &wanted->items[i]))
			r = change_address(net, RTM_NEWADDR, dump->ifindex, &wanted->items[i]);
		if (r < 0 && r != -EEXIST)
			return r;
	}
	return 0;
}

int net_ensure_addresses(struct net *net, const char *interface, const struct cidr *addresses,
			 size_t n_addresses)
{
	struct address_dump dump = {.ifindex = net_link_index(net, interface)};
	_cleanup_cidrs_ struct net_cidrs wanted = {0};
	bool removed;
	int r = dump.ifindex < 0 ? dump.ifindex : 0;

	for (size_t i = 0; r == 0 && i < n_addresses; i++)
		r = net_cidrs_add(&wanted, &addresses[i]);
	if (r == 0) {
		net_cidrs_sort(&wanted);
		r = dump_addresses(net, &dump);
	}
	if (r == 0)
		r = remove_others(net, &dump, &wanted, &removed);
	if (r == 0 && removed)
		r = dump_addresses(net, &dump);
	if (r == 0)
		r = add_missing(net, &dump, &wanted);
	net_cidrs_clear(&dump.found);
	return r;
}
