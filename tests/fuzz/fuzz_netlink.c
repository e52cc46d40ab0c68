// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the kernel's WireGuard answers: a dump of several messages. An input is cut into messages at its own
 * lengths; the fixed headers are made whole, as libnl has checked them when ours is called, so that it is the
 * attributes that are odd. What is read whole can be written as a request, and reads the same.
 */
#include "fuzz.h"
#include "peer.h"

#include "../../userspace/wg/netlink_read.c"

#include <netlink/msg.h>

#define MESSAGE_MAX 16384

static struct nlmsghdr *make_message(const void *attributes, size_t size)
{
	struct nlmsghdr *header = calloc(1, NLMSG_HDRLEN + GENL_HDRLEN + NLMSG_ALIGN(size));
	struct genlmsghdr *generic = (struct genlmsghdr *)((char *)header + NLMSG_HDRLEN);

	CLAIM(header);
	header->nlmsg_len = (uint32_t)(NLMSG_HDRLEN + GENL_HDRLEN + size);
	generic->cmd = WG_CMD_GET_DEVICE;
	if (size)
		memcpy(generic + 1, attributes, size);
	return header;
}

/* As the request that would make this peer, read as if it were an answer. */
static void read_as_written(const struct wg_peer *peer, struct wg_device *again)
{
	const struct wg_peer_change change = change_to(peer);
	const struct wg_request request = {.changes = &change, .n_changes = 1};
	struct wg_netlink_cursor cursor = {0};

	while (cursor.change < 1) {
		struct nl_msg *message = nlmsg_alloc_size(MESSAGE_MAX);
		struct genlmsghdr *generic;

		CLAIM(genlmsg_put(message, 0, 0, 0, 0, 0, WG_CMD_SET_DEVICE, 1));
		CLAIM(wg_netlink_write(message, "wg0", &request, &cursor) == 0);
		generic = nlmsg_data(nlmsg_hdr(message));
		generic->cmd = WG_CMD_GET_DEVICE;
		CLAIM(wg_netlink_read(nlmsg_hdr(message), again) == 0);
		nlmsg_free(message);
	}
}

static void claim_round_trip(const struct wg_peer *peer)
{
	struct wg_device again = {0};

	read_as_written(peer, &again);
	claim_has(&again, peer);
	wg_device_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	struct wg_device device = {0};
	int r = 0;

	while (r == 0 && input.left > 2) {
		size_t length = take_number(&input, 2) % MESSAGE_MAX;
		struct nlmsghdr *header;

		length = length < input.left ? length : input.left;
		header = make_message(input.data, length);
		input.data += length;
		input.left -= length;
		r = wg_netlink_read(header, &device);
		free(header);
	}
	CLAIM(r == 0 || r == -EPROTO);
	CLAIM(wg_device_sort(&device) == 0 || r < 0);
	for (size_t i = 0; i < device.n_peers; i++) {
		claim_well_formed(&device.peers[i]);
		if (i < 2)
			claim_round_trip(&device.peers[i]);
	}
	wg_device_clear(&device);
	return 0;
}
