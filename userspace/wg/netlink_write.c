// SPDX-License-Identifier: BSD-2-Clause
#include "wg/netlink_message.h"

#include <errno.h>
#include <linux/wireguard.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

/* Linux 6.16; Debian 12's headers are older. */
#define ALLOWEDIP_A_FLAGS     4
#define ALLOWEDIP_F_REMOVE_ME 1U

/* The kernel parses strictly: every nest has to say that it is one. */
static struct nlattr *nest_start(struct nl_msg *message, int type)
{
	return nla_nest_start(message, NLA_F_NESTED | type);
}

/* Takes the attribute back, with all that it holds, when it did not become complete. */
static int nest_finish(struct nl_msg *message, struct nlattr *nest, int r)
{
	if (r < 0)
		nla_nest_cancel(message, nest);
	else
		nla_nest_end(message, nest);
	return r;
}

/* libnl's puts fail for want of room only. */
static int put(struct nl_msg *message, int type, const void *data, size_t length)
{
	return nla_put(message, type, (int)length, data) < 0 ? -EMSGSIZE : 0;
}

static int put_allowed_ip(struct nl_msg *message, const struct cidr *prefix, uint32_t flags)
{
	uint16_t family = (uint16_t)prefix->family;
	uint8_t length = (uint8_t)prefix->prefix_length;
	struct nlattr *nest = nest_start(message, 0);
	int r;

	if (!nest)
		return -EMSGSIZE;
	r = put(message, WGALLOWEDIP_A_FAMILY, &family, sizeof(family));
	if (r == 0)
		r = put(message, WGALLOWEDIP_A_IPADDR, prefix->bytes, family == AF_INET ? 4 : 16);
	if (r == 0)
		r = put(message, WGALLOWEDIP_A_CIDR_MASK, &length, sizeof(length));
	if (r == 0 && flags != 0)
		r = put(message, ALLOWEDIP_A_FLAGS, &flags, sizeof(flags));
	return nest_finish(message, nest, r);
}

static int put_endpoint(struct nl_msg *message, const struct sockaddr_storage *endpoint)
{
	return put(message, WGPEER_A_ENDPOINT, endpoint,
		   endpoint->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

/* What a peer's first part has beside key and flags. */
static int put_peer_values(struct nl_msg *message, const struct wg_peer_change *change)
{
	int r = 0;

	if (change->set_preshared_key)
		r = put(message, WGPEER_A_PRESHARED_KEY, change->preshared_key.bytes, KEY_SIZE);
	if (r == 0 && change->set_endpoint)
		r = put_endpoint(message, &change->endpoint);
	if (r == 0 && change->set_keepalive)
		r = put(message, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &change->keepalive,
			sizeof(change->keepalive));
	return r;
}

static uint32_t peer_flags(const struct wg_peer_change *change, bool first_part)
{
	if (change->remove)
		return WGPEER_F_REMOVE_ME;
	/* Later parts must neither clear what the first has set, nor bring the peer back. */
	if (!first_part)
		return WGPEER_F_UPDATE_ONLY;
	return (change->update_only ? WGPEER_F_UPDATE_ONLY : 0) |
	       (change->replace_allowed_ips ? WGPEER_F_REPLACE_ALLOWEDIPS : 0);
}

static int put_peer_head(struct nl_msg *message, const struct wg_peer_change *change, bool first_part)
{
	uint32_t flags = peer_flags(change, first_part);
	int r = put(message, WGPEER_A_PUBLIC_KEY, change->public_key.bytes, KEY_SIZE);

	if (r == 0 && flags != 0)
		r = put(message, WGPEER_A_FLAGS, &flags, sizeof(flags));
	if (r == 0 && first_part && !change->remove)
		r = put_peer_values(message, change);
	return r;
}

/* As many as fit, from *position on. */
static int put_allowed_ips(struct nl_msg *message, const struct wg_peer_change *change, size_t *position)
{
	struct nlattr *nest = nest_start(message, WGPEER_A_ALLOWEDIPS);
	int r = 0;

	if (!nest)
		return -EMSGSIZE;
	while (r == 0 && *position < change->n_allowed_ips) {
		r = put_allowed_ip(message, &change->allowed_ips[*position], 0);
		if (r == 0)
			(*position)++;
	}
	nla_nest_end(message, nest);
	return r;
}

/* One peer, or the next part of it; -EMSGSIZE when it is not complete with that. */
static int put_peer(struct nl_msg *message, const struct wg_peer_change *change,
		    struct wg_netlink_cursor *cursor)
{
	bool first_part = cursor->allowed_ip == 0;
	size_t n_allowed_ips = change->remove ? 0 : change->n_allowed_ips;
	struct nlattr *nest = nest_start(message, 0);
	int r;

	if (!nest)
		return -EMSGSIZE;
	r = put_peer_head(message, change, first_part);
	if (r == 0 && n_allowed_ips > 0) {
		r = put_allowed_ips(message, change, &cursor->allowed_ip);
		/* A part with no allowed IP in it would come again as a first part. */
		if (cursor->allowed_ip > 0) {
			nla_nest_end(message, nest);
			return r;
		}
	}
	return nest_finish(message, nest, r);
}

static int put_interface(struct nl_msg *message, const struct wg_request *request)
{
	int r = 0;

	if (request->private_key)
		r = put(message, WGDEVICE_A_PRIVATE_KEY, request->private_key->bytes, KEY_SIZE);
	if (r == 0 && request->set_listen_port)
		r = put(message, WGDEVICE_A_LISTEN_PORT, &request->listen_port, sizeof(request->listen_port));
	if (r == 0 && request->set_mark)
		r = put(message, WGDEVICE_A_FWMARK, &request->mark, sizeof(request->mark));
	return r;
}

static int put_peers(struct nl_msg *message, const struct wg_request *request,
		     struct wg_netlink_cursor *cursor)
{
	struct nlattr *nest = nest_start(message, WGDEVICE_A_PEERS);
	int r = nest ? 0 : -EMSGSIZE;

	while (r == 0 && cursor->change < request->n_changes) {
		r = put_peer(message, &request->changes[cursor->change], cursor);
		if (r == 0) {
			cursor->change++;
			cursor->allowed_ip = 0;
		}
	}
	if (nest)
		nla_nest_end(message, nest);
	return r;
}

int wg_netlink_write(struct nl_msg *message, const char *interface, const struct wg_request *request,
		     struct wg_netlink_cursor *cursor)
{
	struct wg_netlink_cursor before = *cursor;
	int r = nla_put_string(message, WGDEVICE_A_IFNAME, interface) < 0 ? -EMSGSIZE : 0;

	if (r == 0 && !cursor->interface_done)
		r = put_interface(message, request);
	if (r < 0)
		return r;
	cursor->interface_done = true;
	if (cursor->change == request->n_changes)
		return 0;
	r = put_peers(message, request, cursor);
	/* A full message is fine as long as it moves on. */
	if (r == -EMSGSIZE && (cursor->change > before.change || cursor->allowed_ip > before.allowed_ip))
		r = 0;
	return r;
}

static int put_peer_removal(struct nl_msg *message, const struct key *public_key, const struct cidr *prefix)
{
	uint32_t flags = WGPEER_F_UPDATE_ONLY;
	struct nlattr *peer = nest_start(message, 0), *list = NULL;
	int r = peer ? 0 : -EMSGSIZE;

	if (r == 0)
		r = put(message, WGPEER_A_PUBLIC_KEY, public_key->bytes, KEY_SIZE);
	if (r == 0)
		r = put(message, WGPEER_A_FLAGS, &flags, sizeof(flags));
	if (r == 0)
		list = nest_start(message, WGPEER_A_ALLOWEDIPS);
	if (!list)
		return -EMSGSIZE;
	r = put_allowed_ip(message, prefix, ALLOWEDIP_F_REMOVE_ME);
	nla_nest_end(message, list);
	nla_nest_end(message, peer);
	return r;
}

int wg_netlink_write_removal(struct nl_msg *message, const char *interface, const struct key *public_key,
			     const struct cidr *prefix)
{
	struct nlattr *peers = NULL;
	int r;

	if (nla_put_string(message, WGDEVICE_A_IFNAME, interface) < 0)
		return -EMSGSIZE;
	peers = nest_start(message, WGDEVICE_A_PEERS);
	if (!peers)
		return -EMSGSIZE;
	r = put_peer_removal(message, public_key, prefix);
	nla_nest_end(message, peers);
	return r;
}
