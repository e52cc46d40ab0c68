// SPDX-License-Identifier: BSD-2-Clause
/*
 * Whether an interface may receive aggregates: packets that the kernel, or the owner of a TUN device, has put
 * together. An XDP program gets them without the size of their segments, and so would count too little.
 */
#include "meter/internal.h"

#include "net/netlink.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>

#define REQUEST_SIZE 256

static int read_gro(const char *interface, bool *ret_on)
{
	struct ethtool_value value = {.cmd = ETHTOOL_GGRO};
	struct ifreq request = {.ifr_data = (void *)&value};
	int r = device_ask(interface, SIOCETHTOOL, &request);

	if (r == 0)
		*ret_on = value.data;
	return r;
}

/* Of a TUN device: its owner may write aggregates, each with a header that describes it. */
static int read_virtual_headers(const struct nlmsghdr *header, void *data)
{
	struct nlattr *info =
		nlmsg_find_attr((struct nlmsghdr *)header, sizeof(struct ifinfomsg), IFLA_LINKINFO);
	struct nlattr *kind, *details, *flag;

	if (header->nlmsg_type != RTM_NEWLINK || !info)
		return 0;
	kind = nla_find(nla_data(info), nla_len(info), IFLA_INFO_KIND);
	details = nla_find(nla_data(info), nla_len(info), IFLA_INFO_DATA);
	if (!kind || nla_strcmp(kind, "tun") != 0 || !details)
		return 0;
	flag = nla_find(nla_data(details), nla_len(details), IFLA_TUN_VNET_HDR);
	*(bool *)data = flag && nla_get_u8(flag);
	return 0;
}

static int read_tun(const char *interface, bool *ret_aggregates)
{
	bool aggregates = false;
	const struct netlink_reader reader = {.message = read_virtual_headers, .data = &aggregates};
	const struct ifinfomsg request = {.ifi_index = (int)if_nametoindex(interface)};
	_cleanup_netlink_message_ struct nl_msg *message =
		netlink_message(RTM_GETLINK, NLM_F_ACK, REQUEST_SIZE);
	int r;

	if (!message || nlmsg_append(message, (void *)&request, sizeof(request), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	r = netlink_ask(NETLINK_ROUTE, message, &reader);
	if (r == 0)
		*ret_aggregates = aggregates;
	return r;
}

int aggregates_expected(const char *interface)
{
	bool gro = false, tun = false;
	int r = read_gro(interface, &gro);

	if (r == 0 && !gro)
		r = read_tun(interface, &tun);
	return r < 0 ? r : gro || tun;
}
