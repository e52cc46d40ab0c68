// SPDX-License-Identifier: BSD-2-Clause
/* Connection tracking over ctnetlink: found in one dump, deleted one by one, by the tuple that the kernel
 * gave. */
#include "net/net.h"

#include "net/net_internal.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netlink/attr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MESSAGE_SIZE 512
#define TUPLE_MAX    256

/* What names a connection to the kernel. */
struct flow {
	uint8_t family;
	uint32_t id; /* as it came: big-endian, never looked at */
	bool has_zone;
	uint16_t zone;
	uint16_t tuple_size;
	uint8_t tuple[TUPLE_MAX];
};

struct search {
	net_flow_fn is_over;
	void *data;
	struct flow *found;
	size_t n, size;
};

static int read_address(struct nlattr **attributes, int v4, int v6, struct cidr *ret_address)
{
	const struct nlattr *attribute = attributes[v4] ? attributes[v4] : attributes[v6];
	int family = attributes[v4] ? AF_INET : AF_INET6;

	if (!attribute)
		return -EPROTO;
	return net_cidr_from_kernel(family, nla_data(attribute), nla_len(attribute),
				    family == AF_INET ? 32 : 128, ret_address);
}

static int read_tuple(struct nlattr *tuple, struct cidr *ret_source, struct cidr *ret_destination)
{
	struct nlattr *parts[CTA_TUPLE_MAX + 1], *addresses[CTA_IP_MAX + 1];
	int r;

	if (nla_parse_nested(parts, CTA_TUPLE_MAX, tuple, NULL) < 0 || !parts[CTA_TUPLE_IP] ||
	    nla_parse_nested(addresses, CTA_IP_MAX, parts[CTA_TUPLE_IP], NULL) < 0)
		return -EPROTO;
	r = read_address(addresses, CTA_IP_V4_SRC, CTA_IP_V6_SRC, ret_source);
	return r < 0 ? r : read_address(addresses, CTA_IP_V4_DST, CTA_IP_V6_DST, ret_destination);
}

static int remember(struct search *search, uint8_t family, struct nlattr **attributes)
{
	struct nlattr *tuple = attributes[CTA_TUPLE_ORIG];
	struct flow *flow;

	if (nla_len(tuple) > TUPLE_MAX)
		return -EPROTO;
	if (search->n == search->size) {
		size_t size = search->size ? search->size * 2 : 64;
		struct flow *larger = realloc(search->found, size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		search->found = larger;
		search->size = size;
	}
	flow = &search->found[search->n++];
	*flow = (struct flow){.family = family,
			      .id = nla_get_u32(attributes[CTA_ID]),
			      .has_zone = attributes[CTA_ZONE] != NULL,
			      .zone = attributes[CTA_ZONE] ? nla_get_u16(attributes[CTA_ZONE]) : 0,
			      .tuple_size = (uint16_t)nla_len(tuple)};
	memcpy(flow->tuple, nla_data(tuple), flow->tuple_size);
	return 0;
}

static int read_flow(const struct nlmsghdr *header, void *data)
{
	static const struct nla_policy policy[CTA_MAX + 1] = {
		[CTA_TUPLE_ORIG] = {.type = NLA_NESTED},
		[CTA_ID] = {.type = NLA_U32},
		[CTA_ZONE] = {.type = NLA_U16},
	};
	struct search *search = data;
	const struct nfgenmsg *info = nlmsg_data(header);
	struct nlattr *attributes[CTA_MAX + 1];
	struct cidr source, destination;
	int r;

	if (nlmsg_parse((struct nlmsghdr *)header, sizeof(*info), attributes, CTA_MAX,
			(struct nla_policy *)policy) < 0 ||
	    !attributes[CTA_TUPLE_ORIG] || !attributes[CTA_ID])
		return -EPROTO;
	r = read_tuple(attributes[CTA_TUPLE_ORIG], &source, &destination);
	if (r < 0 || !search->is_over(&source, &destination, search->data))
		return r;
	return remember(search, info->nfgen_family, attributes);
}

static void restart_search(void *data)
{
	struct search *search = data;

	search->n = 0;
}

static struct nl_msg *message_of(uint16_t type, uint16_t flags, uint8_t family)
{
	const struct nfgenmsg info = {.nfgen_family = family, .version = NFNETLINK_V0};
	struct nl_msg *message =
		netlink_message((uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type), flags, MESSAGE_SIZE);

	if (message && nlmsg_append(message, (void *)&info, sizeof(info), NLMSG_ALIGNTO) < 0) {
		netlink_message_free(message);
		return NULL;
	}
	return message;
}

static int delete_flow(struct nl_sock *socket, const struct flow *flow)
{
	_cleanup_netlink_message_ struct nl_msg *message =
		message_of(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, flow->family);
	int r;

	if (!message || nla_put(message, NLA_F_NESTED | CTA_TUPLE_ORIG, flow->tuple_size, flow->tuple) < 0 ||
	    nla_put_u32(message, CTA_ID, flow->id) < 0 ||
	    (flow->has_zone && nla_put_u16(message, CTA_ZONE, flow->zone) < 0))
		return -ENOMEM;
	r = netlink_request(socket, message, NULL);
	/* It has ended by itself; or another has its tuple now, which the id tells apart. */
	return r == -ENOENT ? 0 : r;
}

int net_forget_flows(net_flow_fn is_over, void *data)
{
	struct search search = {.is_over = is_over, .data = data};
	const struct netlink_reader reader = {read_flow, restart_search, &search};
	_cleanup_netlink_message_ struct nl_msg *message =
		message_of(IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC);
	struct nl_sock *socket = NULL;
	int r = message ? netlink_open(NETLINK_NETFILTER, &socket) : -ENOMEM;

	if (r < 0)
		return r;
	r = netlink_request(socket, message, &reader);
	for (size_t i = 0; i < search.n && r == 0; i++)
		r = delete_flow(socket, &search.found[i]);
	nl_socket_free(socket);
	free(search.found);
	return r;
}
