// SPDX-License-Identifier: BSD-2-Clause
#include "net/net.h"

#include "net/link.h"
#include "net/net_internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

/* A link message has about 2 KB; multicast comes one message a packet. */
#define WATCH_BUFFER_SIZE 32768

int net_watch_open(struct net **ret_watch)
{
	struct net *watch;
	int r = net_open(&watch);

	if (r < 0)
		return r;
	if (nl_socket_add_membership(watch->socket, RTNLGRP_LINK) < 0 ||
	    nl_socket_set_nonblocking(watch->socket) < 0) {
		net_close(watch);
		return -EPROTONOSUPPORT;
	}
	*ret_watch = watch;
	return 0;
}

int net_watch_filters(struct net *watch)
{
	return nl_socket_add_membership(watch->socket, RTNLGRP_TC) < 0 ? -EPROTONOSUPPORT : 0;
}

int net_watch_fd(const struct net *watch)
{
	return nl_socket_get_fd(watch->socket);
}

static int tell(const void *buffer, int length, net_link_fn fn, void *data)
{
	for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; nlmsg_ok(header, length);
	     header = nlmsg_next(header, &length)) {
		const struct ifinfomsg *info = nlmsg_data(header);
		const struct tcmsg *taken = nlmsg_data(header);
		struct net_link link;

		if (header->nlmsg_type == RTM_DELQDISC || header->nlmsg_type == RTM_DELTFILTER) {
			if (!nlmsg_valid_hdr(header, sizeof(*taken)))
				return -EPROTO;
			fn("", taken->tcm_ifindex, false, data);
			continue;
		}
		if (header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK)
			continue;
		if (net_link_parse(header, &link) < 0)
			return -EPROTO;
		/* Leaving a bridge is an RTM_DELLINK of family AF_BRIDGE: the link itself stays. */
		if (info->ifi_family == AF_UNSPEC)
			fn(link.name, link.index, header->nlmsg_type == RTM_DELLINK, data);
	}
	return 0;
}

int net_watch_dispatch(struct net *watch, net_link_fn fn, void *data)
{
	_Alignas(struct nlmsghdr) char buffer[WATCH_BUFFER_SIZE];

	for (;;) {
		struct sockaddr_nl sender = {0};
		socklen_t sender_size = sizeof(sender);
		ssize_t got = recvfrom(net_watch_fd(watch), buffer, sizeof(buffer), MSG_TRUNC,
				       (struct sockaddr *)&sender, &sender_size);
		int r;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (got > (ssize_t)sizeof(buffer))
			return -ENOBUFS;
		r = sender.nl_pid == 0 ? tell(buffer, (int)got, fn, data) : 0;
		if (r < 0)
			return r;
	}
}
