// SPDX-License-Identifier: BSD-2-Clause
#include "net/net.h"

#include "net/link.h"
#include "net/net_internal.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/socket.h>
#include <stdlib.h>
#include <string.h>

#define LINK_MESSAGE_SIZE 512

int net_open(struct net **ret_net)
{
	struct net *net = calloc(1, sizeof(*net));
	int r;

	if (!net)
		return -ENOMEM;
	r = netlink_open(NETLINK_ROUTE, &net->socket);
	if (r < 0) {
		free(net);
		return r;
	}
	*ret_net = net;
	return 0;
}

void net_close(struct net *net)
{
	if (!net)
		return;
	nl_socket_free(net->socket);
	free(net);
}

/* A request about one link, named or, when `interface` is NULL, by index. */
static int link_message(uint16_t type, uint16_t flags, const char *interface, const struct ifinfomsg *info,
			struct nl_msg **ret_message)
{
	_cleanup_netlink_message_ struct nl_msg *message = NULL;

	if (interface && (interface[0] == '\0' || strlen(interface) >= IFNAMSIZ))
		return -EINVAL;
	message = netlink_message(type, flags, LINK_MESSAGE_SIZE);
	if (!message || nlmsg_append(message, (void *)info, sizeof(*info), NLMSG_ALIGNTO) < 0 ||
	    (interface && nla_put_string(message, IFLA_IFNAME, interface) < 0))
		return -ENOMEM;
	*ret_message = TAKE_PTR(message);
	return 0;
}

/* A header before each packet: the one that says of how many segments it is. */
static bool tun_has_header(struct nlattr *data)
{
	const struct nlattr *header = nla_find(nla_data(data), nla_len(data), IFLA_TUN_VNET_HDR);

	return header && nla_len(header) >= 1 && *(const uint8_t *)nla_data(header) != 0;
}

int net_link_parse(const struct nlmsghdr *header, struct net_link *ret_link)
{
	static const struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = {.type = NLA_NUL_STRING, .maxlen = IFNAMSIZ},
		[IFLA_LINKINFO] = {.type = NLA_NESTED},
	};
	static const struct nla_policy info_policy[IFLA_INFO_MAX + 1] = {
		[IFLA_INFO_KIND] = {.type = NLA_STRING},
	};
	struct nlattr *attributes[IFLA_MAX + 1], *info_attributes[IFLA_INFO_MAX + 1];
	const struct ifinfomsg *info = nlmsg_data(header);
	struct net_link link = {0};

	if (nlmsg_parse((struct nlmsghdr *)header, sizeof(*info), attributes, IFLA_MAX,
			(struct nla_policy *)policy) < 0 ||
	    !attributes[IFLA_IFNAME])
		return -EPROTO;
	link.index = info->ifi_index;
	link.flags = info->ifi_flags;
	memcpy(link.name, nla_data(attributes[IFLA_IFNAME]), (size_t)nla_len(attributes[IFLA_IFNAME]));
	if (attributes[IFLA_LINKINFO]) {
		if (nla_parse_nested(info_attributes, IFLA_INFO_MAX, attributes[IFLA_LINKINFO],
				     (struct nla_policy *)info_policy) < 0)
			return -EPROTO;
		if (info_attributes[IFLA_INFO_KIND])
			nla_strlcpy(link.kind, info_attributes[IFLA_INFO_KIND], sizeof(link.kind));
		if (strcmp(link.kind, "tun") == 0 && info_attributes[IFLA_INFO_DATA])
			link.merges = tun_has_header(info_attributes[IFLA_INFO_DATA]);
	}
	*ret_link = link;
	return 0;
}

static int read_link(const struct nlmsghdr *header, void *data)
{
	return header->nlmsg_type == RTM_NEWLINK ? net_link_parse(header, data) : 0;
}

int net_link_get(struct net *net, const char *interface, struct net_link *ret_link)
{
	_cleanup_netlink_message_ struct nl_msg *message = NULL;
	struct net_link link = {0};
	const struct netlink_reader reader = {.message = read_link, .data = &link};
	int r;

	r = link_message(RTM_GETLINK, 0, interface, &(struct ifinfomsg){.ifi_family = AF_UNSPEC}, &message);
	if (r < 0)
		return r;
	r = netlink_request(net->socket, message, &reader);
	if (r < 0)
		return r;
	if (link.index == 0)
		return -ENODEV;
	*ret_link = link;
	return 0;
}

int net_link_index(struct net *net, const char *interface)
{
	struct net_link link;
	int r = net_link_get(net, interface, &link);

	return r < 0 ? r : link.index;
}

int net_link_is_up(struct net *net, const char *interface, bool *ret_up)
{
	struct net_link link;
	int r = net_link_get(net, interface, &link);

	if (r < 0)
		return r;
	*ret_up = link.flags & IFF_UP;
	return 0;
}

int net_link_create_wireguard(struct net *net, const char *interface)
{
	_cleanup_netlink_message_ struct nl_msg *message = NULL;
	struct nlattr *info;
	int r;

	r = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, interface,
			 &(struct ifinfomsg){.ifi_family = AF_UNSPEC}, &message);
	if (r < 0)
		return r;
	info = nla_nest_start(message, IFLA_LINKINFO);
	if (!info || nla_put_string(message, IFLA_INFO_KIND, "wireguard") < 0)
		return -ENOMEM;
	nla_nest_end(message, info);
	return netlink_request(net->socket, message, NULL);
}

/* A change of an existing link. By its index, as the kernel creates a link for an unknown name. */
static int change_message(struct net *net, const char *interface, unsigned flags, unsigned changed_flags,
			  struct nl_msg **ret_message)
{
	struct ifinfomsg info = {.ifi_family = AF_UNSPEC, .ifi_flags = flags, .ifi_change = changed_flags};

	info.ifi_index = net_link_index(net, interface);
	if (info.ifi_index < 0)
		return info.ifi_index;
	return link_message(RTM_NEWLINK, 0, NULL, &info, ret_message);
}

int net_link_disable_addrgen(struct net *net, const char *interface)
{
	_cleanup_netlink_message_ struct nl_msg *message = NULL;
	struct nlattr *families, *inet6;
	int r;

	r = change_message(net, interface, 0, 0, &message);
	if (r < 0)
		return r;
	families = nla_nest_start(message, IFLA_AF_SPEC);
	inet6 = families ? nla_nest_start(message, AF_INET6) : NULL;
	if (!inet6 || nla_put_u8(message, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) < 0)
		return -ENOMEM;
	nla_nest_end(message, inet6);
	nla_nest_end(message, families);
	return netlink_request(net->socket, message, NULL);
}

int net_link_set_mtu(struct net *net, const char *interface, uint32_t mtu)
{
	_cleanup_netlink_message_ struct nl_msg *message = NULL;
	int r;

	r = change_message(net, interface, 0, 0, &message);
	if (r < 0)
		return r;
	if (nla_put_u32(message, IFLA_MTU, mtu) < 0)
		return -ENOMEM;
	return netlink_request(net->socket, message, NULL);
}

int net_link_set_up(struct net *net, const char *interface, bool up)
{
	_cleanup_netlink_message_ struct nl_msg *message = NULL;
	int r;

	r = change_message(net, interface, up ? IFF_UP : 0, IFF_UP, &message);
	return r < 0 ? r : netlink_request(net->socket, message, NULL);
}

int net_link_merges(struct net *net, const char *interface, bool *ret_merges)
{
	struct net_link link;
	int r = net_link_get(net, interface, &link);

	if (r == 0)
		*ret_merges = link.merges;
	return r;
}
