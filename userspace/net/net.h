/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The gateway's interface, addresses, routes and firewall in the calling network namespace. Each "ensure"
 * compares with what is there and changes only the difference, so that it can be repeated after any crash.
 */
#ifndef WIRETOLL_NET_NET_H
#define WIRETOLL_NET_NET_H

#include "base/base.h"
#include "base/cidr.h"

#define NET_ROUTE_PROTOCOL 87     /* marks our routes and rules; its name in iproute2's rt_protos: wiretoll */
#define NET_TUNNEL_TABLE   578700 /* the routes into the tunnel */
#define NET_OUTER_MARK     0x578700 /* of WireGuard's own packets, which never go into the tunnel */

struct net;

/* A netlink route socket for the calls below. */
WT_MUST_CHECK int net_open(struct net **ret_net);
void net_close(struct net *net);

/* A second socket subscribed to link changes: its descriptor for an event loop, and the call to make when it
 * is readable. */
WT_MUST_CHECK int net_watch_open(struct net **ret_watch);
int net_watch_fd(const struct net *watch);
typedef void (*net_link_fn)(const char *interface, int ifindex, bool deleted, void *data);
/* Tells also when a queueing discipline or a filter is taken from an interface: with an empty name. */
WT_MUST_CHECK int net_watch_filters(struct net *watch);
/* -ENOBUFS: changes were lost, so look at the links anew; the socket goes on. */
WT_MUST_CHECK int net_watch_dispatch(struct net *watch, net_link_fn fn, void *data);

/* Index of an interface; -ENODEV. */
WT_MUST_CHECK int net_link_index(struct net *net, const char *interface);

/*
 * Whether the interface's own counters may have several segments, less their headers, as one packet: a TUN
 * device whose program puts them together, as newer versions of wireguard-go do.
 */
WT_MUST_CHECK int net_link_merges(struct net *net, const char *interface, bool *ret_merges);

/*
 * Makes a kernel WireGuard device, down. -EEXIST when the name is taken, -EOPNOTSUPP when this kernel has
 * no WireGuard.
 */
WT_MUST_CHECK int net_link_create_wireguard(struct net *net, const char *interface);

/* No automatic IPv6 addresses, hence no router solicitations: before the link is up. */
WT_MUST_CHECK int net_link_disable_addrgen(struct net *net, const char *interface);
WT_MUST_CHECK int net_link_set_mtu(struct net *net, const char *interface, uint32_t mtu);
WT_MUST_CHECK int net_link_set_up(struct net *net, const char *interface, bool up);
WT_MUST_CHECK int net_link_is_up(struct net *net, const char *interface, bool *ret_up);

/* The interface has exactly these addresses afterwards (IPv6's link-local ones are left alone). */
WT_MUST_CHECK int net_ensure_addresses(struct net *net, const char *interface, const struct cidr *addresses,
				       size_t n_addresses);

/*
 * The rules by which NET_TUNNEL_TABLE is asked: behind all routes of the main table but the default ones, and
 * never for packets with NET_OUTER_MARK. So what leaves to a peer's endpoint does not come back into the
 * tunnel, whatever the allowed IPs say.
 */
WT_MUST_CHECK int net_ensure_rules(struct net *net);

/*
 * Of the routes through the interface that carry our protocol mark, exactly these remain, in
 * NET_TUNNEL_TABLE; in the main table, where they were before there was another one, none. A route that the
 * kernel has there by itself, for an address's prefix, counts as well. -EINVAL for one with host bits.
 */
WT_MUST_CHECK int net_ensure_routes(struct net *net, const char *interface, const struct cidr *destinations,
				    size_t n_destinations);

enum net_masquerade { NET_MASQUERADE_NONE, NET_MASQUERADE_ROAD_WARRIORS, NET_MASQUERADE_ALL };

/* Everything that decides what may pass; see docs/decisions on the firewall. */
struct net_firewall {
	const char *tunnel_interface; /* wg0 */
	uint16_t listen_port;         /* WireGuard's, open to the Internet: the only one; 0: not yet */
	const struct cidr *tunnel_subnets;
	size_t n_tunnel_subnets; /* where road warriors live */
	const struct cidr *vpc_subnets;
	size_t n_vpc_subnets; /* what peers may reach */
	const struct cidr *remote_subnets;
	size_t n_remote_subnets; /* allowed IPs of sites and peerings: the VPC may call them */
	const struct cidr *api_addresses;
	size_t n_api_addresses; /* where the agent reports to */
	uint16_t api_port;
	bool allow_dns; /* resolving the endpoints of sites */
	enum net_masquerade masquerade;
};

/*
 * Renders the rule set as text for `nft -f`; the caller frees it. -EINVAL for an interface name that is
 * none. An api_port of 0 leaves the API closed.
 */
WT_MUST_CHECK int net_firewall_render(const struct net_firewall *firewall, char **ret_text);
/*
 * Puts it in force, in one transaction of nft, without a gap. -EIO with nft's own words in `error` when it is
 * refused (what stood stays); -ETIMEDOUT after 5 s; -ENOENT when nft is not installed.
 */
WT_MUST_CHECK int net_firewall_apply(const struct net_firewall *firewall, char *error, size_t error_size);

/* Whether a tracked connection is over, by the addresses of its first packet (/32 or /128). */
typedef bool (*net_flow_fn)(const struct cidr *source, const struct cidr *destination, void *data);

/*
 * Deletes tracked connections that are over from the namespace's table: their next packet is a new
 * connection's, and judged by the rules of today. Needs CAP_NET_ADMIN.
 */
WT_MUST_CHECK int net_forget_flows(net_flow_fn is_over, void *data);

#endif
