// SPDX-License-Identifier: BSD-2-Clause
/* The kernel's device, over generic netlink. */
#include "wg/netlink_message.h"

#include "net/link.h"
#include "net/net.h"
#include "net/netlink.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/wireguard.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/socket.h>
#include <stdlib.h>
#include <string.h>

/* Half of what a socket may queue by default, and far below an attribute's 64 KiB. */
#define SET_SIZE   16384
#define QUERY_SIZE 512

struct netlink_device {
	struct nl_sock *socket;
	uint16_t family;
	bool removal_unsupported; /* found by trying */
	char interface[IFNAMSIZ];
};

static int read_family(const struct nlmsghdr *header, void *data)
{
	static const struct nla_policy policy[CTRL_ATTR_MAX + 1] = {
		[CTRL_ATTR_FAMILY_ID] = {.type = NLA_U16}};
	struct nlattr *attributes[CTRL_ATTR_MAX + 1];
	uint16_t *family = data;

	if (genlmsg_parse((struct nlmsghdr *)header, 0, attributes, CTRL_ATTR_MAX,
			  (struct nla_policy *)policy) < 0 ||
	    !attributes[CTRL_ATTR_FAMILY_ID])
		return -EPROTO;
	*family = nla_get_u16(attributes[CTRL_ATTR_FAMILY_ID]);
	return 0;
}

static struct nl_msg *generic_message(uint16_t family, uint8_t command, uint16_t flags, size_t size)
{
	const struct genlmsghdr generic = {.cmd = command, .version = 1};
	struct nl_msg *message = netlink_message(family, flags, size);

	if (message && nlmsg_append(message, (void *)&generic, sizeof(generic), NLMSG_ALIGNTO) < 0) {
		netlink_message_free(message);
		return NULL;
	}
	return message;
}

static int find_family(struct nl_sock *socket, uint16_t *ret_family)
{
	_cleanup_netlink_message_ struct nl_msg *message =
		generic_message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, QUERY_SIZE);
	uint16_t family = 0;
	const struct netlink_reader reader = {.message = read_family, .data = &family};
	int r;

	if (!message || nla_put_string(message, CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME) < 0)
		return -ENOMEM;
	r = netlink_request(socket, message, &reader);
	if (r < 0)
		return r;
	*ret_family = family;
	return family == 0 ? -EPROTO : 0;
}

/* A TUN of a userspace implementation has the same name but another kind. */
static int check_kind(const char *interface)
{
	struct net_link link;
	struct net *net;
	int r = net_open(&net);

	if (r < 0)
		return r;
	r = net_link_get(net, interface, &link);
	net_close(net);
	if (r < 0)
		return r;
	return strcmp(link.kind, "wireguard") == 0 ? 0 : -ENODEV;
}

static void netlink_device_close(void *state)
{
	struct netlink_device *device = state;

	nl_socket_free(device->socket);
	free(device);
}

static int netlink_device_open(const char *interface, void **ret_state)
{
	struct netlink_device *device;
	int r = check_kind(interface);

	if (r < 0)
		return r;
	device = calloc(1, sizeof(*device));
	if (!device)
		return -ENOMEM;
	memcpy(device->interface, interface, strlen(interface));
	r = netlink_open(NETLINK_GENERIC, &device->socket);
	if (r == 0)
		r = find_family(device->socket, &device->family);
	if (r < 0) {
		netlink_device_close(device);
		return r;
	}
	*ret_state = device;
	return 0;
}

static int read_message(const struct nlmsghdr *header, void *data)
{
	return wg_netlink_read(header, data);
}

static void restart_dump(void *data)
{
	wg_device_clear(data);
}

static int netlink_device_dump(void *state, struct wg_device *ret_device)
{
	struct netlink_device *device = state;
	const struct netlink_reader reader = {read_message, restart_dump, ret_device};
	_cleanup_netlink_message_ struct nl_msg *message =
		generic_message(device->family, WG_CMD_GET_DEVICE, NLM_F_DUMP, QUERY_SIZE);

	if (!message || nla_put_string(message, WGDEVICE_A_IFNAME, device->interface) < 0)
		return -ENOMEM;
	return netlink_request(device->socket, message, &reader);
}

static int netlink_device_set(void *state, const struct wg_request *request)
{
	struct netlink_device *device = state;
	struct wg_netlink_cursor cursor = {0};
	int r = 0;

	while (r == 0 && (!cursor.interface_done || cursor.change < request->n_changes)) {
		_cleanup_netlink_message_ struct nl_msg *message =
			generic_message(device->family, WG_CMD_SET_DEVICE, 0, SET_SIZE);

		if (!message)
			return -ENOMEM;
		r = wg_netlink_write(message, device->interface, request, &cursor);
		if (r == 0)
			r = netlink_request(device->socket, message, NULL);
	}
	return r;
}

static int netlink_device_remove_allowed_ip(void *state, const struct key *public_key,
					    const struct cidr *prefix)
{
	struct netlink_device *device = state;
	_cleanup_netlink_message_ struct nl_msg *message = NULL;
	int r;

	if (device->removal_unsupported)
		return -EOPNOTSUPP;
	message = generic_message(device->family, WG_CMD_SET_DEVICE, 0, QUERY_SIZE);
	if (!message)
		return -ENOMEM;
	r = wg_netlink_write_removal(message, device->interface, public_key, prefix);
	if (r == 0)
		r = netlink_request(device->socket, message, NULL);
	/* Kernels before 6.16 refuse the attribute that they do not know, before they change anything. */
	if (r == -EINVAL) {
		device->removal_unsupported = true;
		return -EOPNOTSUPP;
	}
	return r;
}

const struct wg_backend wg_netlink_backend = {
	.kind = "kernel",
	.open = netlink_device_open,
	.close = netlink_device_close,
	.dump = netlink_device_dump,
	.set = netlink_device_set,
	.remove_allowed_ip = netlink_device_remove_allowed_ip,
};
