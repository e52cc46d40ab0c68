// SPDX-License-Identifier: BSD-2-Clause
#include "net/net.h"

#include "net/net_internal.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <sys/socket.h>

#define RULE_MESSAGE_SIZE 256
#define FIRST_PRIORITY    5787 /* before the main table's, 32766 */

/* The first asks the main table, but takes no default route from it; the second the tunnel's, for all but
 * outer packets. */
static int add_rule(struct net *net, uint8_t family, bool tunnel)
{
	const struct fib_rule_hdr info = {.family = family,
					  .table = RT_TABLE_UNSPEC,
					  .action = FR_ACT_TO_TBL,
					  .flags = tunnel ? FIB_RULE_INVERT : 0};
	_cleanup_netlink_message_ struct nl_msg *message =
		netlink_message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, RULE_MESSAGE_SIZE);
	int r;

	if (!message || nlmsg_append(message, (void *)&info, sizeof(info), NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(message, FRA_PRIORITY, FIRST_PRIORITY + tunnel) < 0 ||
	    nla_put_u32(message, FRA_TABLE, tunnel ? NET_TUNNEL_TABLE : RT_TABLE_MAIN) < 0 ||
	    nla_put_u8(message, FRA_PROTOCOL, NET_ROUTE_PROTOCOL) < 0)
		return -ENOMEM;
	if (tunnel)
		r = nla_put_u32(message, FRA_FWMARK, NET_OUTER_MARK);
	else
		r = nla_put_u32(message, FRA_SUPPRESS_PREFIXLEN, 0);
	if (r < 0)
		return -ENOMEM;
	r = netlink_request(net->socket, message, NULL);
	/* Where the kernel's IPv6 is off, there is nothing to be ruled. */
	return r == -EEXIST || (family == AF_INET6 && r == -EAFNOSUPPORT) ? 0 : r;
}

int net_ensure_rules(struct net *net)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(families) && r == 0; i++) {
		r = add_rule(net, families[i], false);
		if (r == 0)
			r = add_rule(net, families[i], true);
	}
	return r;
}
