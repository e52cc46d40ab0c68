// SPDX-License-Identifier: BSD-2-Clause
#include "net/net.h"

#include "net/net_internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <sys/socket.h>

#define ROUTE_MESSAGE_SIZE 256

struct route_dump {
	int ifindex;
	struct net_cidrs ours;
	struct net_cidrs moved; /* ours in the main table, where they no longer belong */
	struct net_cidrs
		others; /* the kernel's own, for an address's prefix: as good as ours, but not ours */
};

static uint32_t table_of(const struct rtmsg *info, struct nlattr **attributes)
{
	return attributes[RTA_TABLE] ? nla_get_u32(attributes[RTA_TABLE]) : info->rtm_table;
}

static bool is_candidate(const struct rtmsg *info, struct nlattr **attributes, int ifindex)
{
	uint32_t table = table_of(info, attributes);

	return (table == RT_TABLE_MAIN || table == NET_TUNNEL_TABLE) && info->rtm_type == RTN_UNICAST &&
	       !(info->rtm_flags & RTM_F_CLONED) && attributes[RTA_OIF] &&
	       (int)nla_get_u32(attributes[RTA_OIF]) == ifindex;
}

static int read_route(const struct nlmsghdr *header, void *data)
{
	static const struct nla_policy policy[RTA_MAX + 1] = {
		[RTA_TABLE] = {.type = NLA_U32},
		[RTA_OIF] = {.type = NLA_U32},
	};
	static const uint8_t any[16];
	struct route_dump *dump = data;
	const struct rtmsg *info = nlmsg_data(header);
	struct nlattr *attributes[RTA_MAX + 1];
	struct cidr cidr;
	int r;

	if (header->nlmsg_type != RTM_NEWROUTE)
		return 0;
	if (nlmsg_parse((struct nlmsghdr *)header, sizeof(*info), attributes, RTA_MAX,
			(struct nla_policy *)policy) < 0)
		return -EPROTO;
	if (!is_candidate(info, attributes, dump->ifindex))
		return 0;
	if (attributes[RTA_DST])
		r = net_cidr_from_kernel(info->rtm_family, nla_data(attributes[RTA_DST]),
					 nla_len(attributes[RTA_DST]), info->rtm_dst_len, &cidr);
	else
		r = net_cidr_from_kernel(info->rtm_family, any, info->rtm_family == AF_INET ? 4 : 16, 0,
					 &cidr);
	if (r < 0)
		return r;
	if (info->rtm_protocol != NET_ROUTE_PROTOCOL)
		return net_cidrs_add(&dump->others, &cidr);
	return net_cidrs_add(table_of(info, attributes) == NET_TUNNEL_TABLE ? &dump->ours : &dump->moved,
			     &cidr);
}

static void restart_dump(void *data)
{
	struct route_dump *dump = data;

	net_cidrs_clear(&dump->ours);
	net_cidrs_clear(&dump->moved);
	net_cidrs_clear(&dump->others);
}

static int dump_routes(struct net *net, struct route_dump *dump)
{
	_cleanup_netlink_message_ struct nl_msg *message =
		netlink_message(RTM_GETROUTE, NLM_F_DUMP, ROUTE_MESSAGE_SIZE);
	const struct netlink_reader reader = {read_route, restart_dump, dump};
	int r;

	if (!message || nlmsg_append(message, &(struct rtmsg){0}, sizeof(struct rtmsg), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	r = netlink_request(net->socket, message, &reader);
	if (r == 0) {
		net_cidrs_sort(&dump->ours);
		net_cidrs_sort(&dump->others);
	}
	return r;
}

static int change_route(struct net *net, uint16_t type, uint32_t table, int ifindex, const struct cidr *cidr)
{
	const struct rtmsg info = {
		.rtm_family = (uint8_t)cidr->family,
		.rtm_dst_len = (uint8_t)cidr->prefix_length,
		.rtm_table = RT_TABLE_UNSPEC, /* the attribute says it: it may not fit here */
		.rtm_protocol = NET_ROUTE_PROTOCOL,
		/* IPv6 knows no scopes and ignores it. */
		.rtm_scope = RT_SCOPE_LINK,
		.rtm_type = RTN_UNICAST,
	};
	_cleanup_netlink_message_ struct nl_msg *message = netlink_message(
		type, type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_EXCL : 0, ROUTE_MESSAGE_SIZE);

	if (!message || nlmsg_append(message, (void *)&info, sizeof(info), NLMSG_ALIGNTO) < 0 ||
	    nla_put(message, RTA_DST, (int)net_address_size(cidr), cidr->bytes) < 0 ||
	    nla_put_u32(message, RTA_OIF, (uint32_t)ifindex) < 0 ||
	    nla_put_u32(message, RTA_TABLE, table) < 0)
		return -ENOMEM;
	return netlink_request(net->socket, message, NULL);
}

static int remove_all_but(struct net *net, uint32_t table, int ifindex, const struct net_cidrs *present,
			  const struct net_cidrs *wanted)
{
	for (size_t i = 0; i < present->n; i++) {
		int r = net_cidrs_contain(wanted, &present->items[i])
				? 0
				: change_route(net, RTM_DELROUTE, table, ifindex, &present->items[i]);

		/* -ESRCH: the kernel removed it meanwhile, with the link for one. */
		if (r < 0 && r != -ESRCH)
			return r;
	}
	return 0;
}

static int apply_difference(struct net *net, const struct route_dump *dump, const struct net_cidrs *wanted)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < wanted->n; i++) {
		const struct cidr *cidr = &wanted->items[i];

		if (i > 0 && cidr_equal(cidr, &wanted->items[i - 1]))
			continue;
		if (!net_cidrs_contain(&dump->ours, cidr) && !net_cidrs_contain(&dump->others, cidr))
			r = change_route(net, RTM_NEWROUTE, NET_TUNNEL_TABLE, dump->ifindex, cidr);
	}
	if (r == 0)
		r = remove_all_but(net, NET_TUNNEL_TABLE, dump->ifindex, &dump->ours, wanted);
	if (r == 0)
		r = remove_all_but(net, RT_TABLE_MAIN, dump->ifindex, &dump->moved, &(struct net_cidrs){0});
	return r;
}

int net_ensure_routes(struct net *net, const char *interface, const struct cidr *destinations,
		      size_t n_destinations)
{
	struct route_dump dump = {.ifindex = net_link_index(net, interface)};
	_cleanup_cidrs_ struct net_cidrs wanted = {0};
	int r = dump.ifindex < 0 ? dump.ifindex : 0;

	for (size_t i = 0; r == 0 && i < n_destinations; i++)
		r = cidr_is_network(&destinations[i]) ? net_cidrs_add(&wanted, &destinations[i]) : -EINVAL;
	if (r == 0) {
		net_cidrs_sort(&wanted);
		r = dump_routes(net, &dump);
	}
	if (r == 0)
		r = apply_difference(net, &dump, &wanted);
	restart_dump(&dump);
	return r;
}
