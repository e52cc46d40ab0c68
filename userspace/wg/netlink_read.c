// SPDX-License-Identifier: BSD-2-Clause
#include "wg/netlink_message.h"

#include <errno.h>
#include <linux/wireguard.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <string.h>

/* struct __kernel_timespec */
struct handshake_time {
	int64_t seconds;
	int64_t nanoseconds;
};

static const struct nla_policy device_policy[WGDEVICE_A_MAX + 1] = {
	[WGDEVICE_A_PUBLIC_KEY] = {.minlen = KEY_SIZE, .maxlen = KEY_SIZE},
	[WGDEVICE_A_LISTEN_PORT] = {.type = NLA_U16},
	[WGDEVICE_A_FWMARK] = {.type = NLA_U32},
	[WGDEVICE_A_PEERS] = {.type = NLA_NESTED},
};

static const struct nla_policy peer_policy[WGPEER_A_MAX + 1] = {
	[WGPEER_A_PUBLIC_KEY] = {.minlen = KEY_SIZE, .maxlen = KEY_SIZE},
	[WGPEER_A_PRESHARED_KEY] = {.minlen = KEY_SIZE, .maxlen = KEY_SIZE},
	[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL] = {.type = NLA_U16},
	[WGPEER_A_LAST_HANDSHAKE_TIME] = {.minlen = sizeof(struct handshake_time),
					  .maxlen = sizeof(struct handshake_time)},
	[WGPEER_A_RX_BYTES] = {.type = NLA_U64},
	[WGPEER_A_TX_BYTES] = {.type = NLA_U64},
	[WGPEER_A_ALLOWEDIPS] = {.type = NLA_NESTED},
};

static const struct nla_policy allowed_ip_policy[WGALLOWEDIP_A_MAX + 1] = {
	[WGALLOWEDIP_A_FAMILY] = {.type = NLA_U16},
	[WGALLOWEDIP_A_CIDR_MASK] = {.type = NLA_U8},
};

/* The children of an attribute; libnl's own loop would step over a last, cut-off one without a word. */
static bool is_next(const struct nlattr *child, int remaining, int *result)
{
	if (nla_ok(child, remaining))
		return true;
	if (remaining > 0)
		*result = -EPROTO;
	return false;
}

static int read_allowed_ip(struct nlattr *attribute, struct wg_peer *peer)
{
	struct nlattr *attributes[WGALLOWEDIP_A_MAX + 1];
	struct cidr prefix = {0};
	int length;

	if (nla_parse_nested(attributes, WGALLOWEDIP_A_MAX, attribute,
			     (struct nla_policy *)allowed_ip_policy) < 0 ||
	    !attributes[WGALLOWEDIP_A_FAMILY] || !attributes[WGALLOWEDIP_A_IPADDR] ||
	    !attributes[WGALLOWEDIP_A_CIDR_MASK])
		return -EPROTO;
	prefix.family = nla_get_u16(attributes[WGALLOWEDIP_A_FAMILY]);
	prefix.prefix_length = nla_get_u8(attributes[WGALLOWEDIP_A_CIDR_MASK]);
	length = nla_len(attributes[WGALLOWEDIP_A_IPADDR]);
	if ((prefix.family != AF_INET || length != 4) && (prefix.family != AF_INET6 || length != 16))
		return -EPROTO;
	if (prefix.prefix_length > cidr_max_length(&prefix))
		return -EPROTO;
	memcpy(prefix.bytes, nla_data(attributes[WGALLOWEDIP_A_IPADDR]), (size_t)length);
	return wg_peer_add_allowed_ip(peer, &prefix);
}

static int read_allowed_ips(struct nlattr *list, struct wg_peer *peer)
{
	int remaining = nla_len(list), result = 0;

	for (struct nlattr *child = nla_data(list); is_next(child, remaining, &result);
	     child = nla_next(child, &remaining)) {
		int r = read_allowed_ip(child, peer);

		if (r < 0)
			return r;
	}
	return result;
}

static int read_endpoint(struct nlattr *attribute, struct sockaddr_storage *ret_endpoint)
{
	struct sockaddr_storage endpoint = {0};
	size_t length = (size_t)nla_len(attribute);

	if (length < sizeof(endpoint.ss_family) || length > sizeof(endpoint))
		return -EPROTO;
	memcpy(&endpoint, nla_data(attribute), length);
	if ((endpoint.ss_family != AF_INET || length != sizeof(struct sockaddr_in)) &&
	    (endpoint.ss_family != AF_INET6 || length != sizeof(struct sockaddr_in6)))
		return -EPROTO;
	*ret_endpoint = endpoint;
	return 0;
}

static int read_handshake(struct nlattr *attribute, int64_t *ret_ns)
{
	struct handshake_time time;
	int64_t ns;

	memcpy(&time, nla_data(attribute), sizeof(time));
	if (time.seconds < 0 || time.nanoseconds < 0 || time.nanoseconds >= NSEC_PER_SEC ||
	    __builtin_mul_overflow(time.seconds, NSEC_PER_SEC, &ns) ||
	    __builtin_add_overflow(ns, time.nanoseconds, &ns))
		return -EPROTO;
	*ret_ns = ns;
	return 0;
}

static int read_peer_values(struct nlattr **attributes, struct wg_peer *peer)
{
	int r = 0;

	if (attributes[WGPEER_A_PRESHARED_KEY]) {
		memcpy(peer->preshared_key.bytes, nla_data(attributes[WGPEER_A_PRESHARED_KEY]), KEY_SIZE);
		peer->has_preshared_key = !key_is_zero(&peer->preshared_key);
	}
	if (attributes[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL])
		peer->keepalive = nla_get_u16(attributes[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL]);
	if (attributes[WGPEER_A_RX_BYTES])
		peer->rx_bytes = nla_get_u64(attributes[WGPEER_A_RX_BYTES]);
	if (attributes[WGPEER_A_TX_BYTES])
		peer->tx_bytes = nla_get_u64(attributes[WGPEER_A_TX_BYTES]);
	if (attributes[WGPEER_A_ENDPOINT])
		r = read_endpoint(attributes[WGPEER_A_ENDPOINT], &peer->endpoint);
	if (r == 0 && attributes[WGPEER_A_LAST_HANDSHAKE_TIME])
		r = read_handshake(attributes[WGPEER_A_LAST_HANDSHAKE_TIME], &peer->handshake_ns);
	return r;
}

static int read_peer(struct nlattr *attribute, struct wg_device *device)
{
	struct nlattr *attributes[WGPEER_A_MAX + 1];
	struct wg_peer *peer = NULL;
	struct key public_key;
	int r;

	if (nla_parse_nested(attributes, WGPEER_A_MAX, attribute, (struct nla_policy *)peer_policy) < 0 ||
	    !attributes[WGPEER_A_PUBLIC_KEY])
		return -EPROTO;
	memcpy(public_key.bytes, nla_data(attributes[WGPEER_A_PUBLIC_KEY]), KEY_SIZE);
	/* Where a peer's allowed IPs do not fit, the next message repeats its key and goes on with them. */
	if (device->n_peers > 0)
		peer = &device->peers[device->n_peers - 1];
	if (!peer || !key_equal(&peer->public_key, &public_key)) {
		peer = wg_device_add_peer(device);
		if (!peer)
			return -ENOMEM;
		peer->public_key = public_key;
	}
	r = read_peer_values(attributes, peer);
	if (r < 0)
		return r;
	return attributes[WGPEER_A_ALLOWEDIPS] ? read_allowed_ips(attributes[WGPEER_A_ALLOWEDIPS], peer) : 0;
}

int wg_netlink_read(const struct nlmsghdr *header, struct wg_device *device)
{
	struct nlattr *attributes[WGDEVICE_A_MAX + 1], *list;
	int remaining, result = 0;

	if (!genlmsg_valid_hdr((struct nlmsghdr *)header, 0) ||
	    ((struct genlmsghdr *)nlmsg_data(header))->cmd != WG_CMD_GET_DEVICE ||
	    genlmsg_parse((struct nlmsghdr *)header, 0, attributes, WGDEVICE_A_MAX,
			  (struct nla_policy *)device_policy) < 0)
		return -EPROTO;
	if (attributes[WGDEVICE_A_PUBLIC_KEY])
		memcpy(device->public_key.bytes, nla_data(attributes[WGDEVICE_A_PUBLIC_KEY]), KEY_SIZE);
	if (attributes[WGDEVICE_A_LISTEN_PORT])
		device->listen_port = nla_get_u16(attributes[WGDEVICE_A_LISTEN_PORT]);
	if (attributes[WGDEVICE_A_FWMARK])
		device->mark = nla_get_u32(attributes[WGDEVICE_A_FWMARK]);
	list = attributes[WGDEVICE_A_PEERS];
	if (!list)
		return 0;
	remaining = nla_len(list);
	for (struct nlattr *child = nla_data(list); is_next(child, remaining, &result);
	     child = nla_next(child, &remaining)) {
		int r = read_peer(child, device);

		if (r < 0)
			return r;
	}
	return result;
}
