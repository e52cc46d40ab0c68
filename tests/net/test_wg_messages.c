// SPDX-License-Identifier: BSD-2-Clause
/*
 * Generic netlink messages of WireGuard, crafted byte by byte by writers of the test's own, and read back by
 * a reader of the test's own: neither shares code with what is tested, nor uses libnl.
 */
#include "net/netlink.h"
#include "wg/netlink_message.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/wireguard.h>
#include <netinet/in.h>
#include <netlink/genl/genl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MESSAGE_SIZE 32768

/* A message that is being written. */
struct writer {
	_Alignas(8) uint8_t bytes[MESSAGE_SIZE];
	size_t used;
};

static size_t append(struct writer *w, uint16_t type, const void *data, size_t length)
{
	size_t at = w->used;
	struct nlattr header = {.nla_len = (uint16_t)(sizeof(header) + length), .nla_type = type};

	assert_true(w->used + sizeof(header) + length + 4 < sizeof(w->bytes));
	memcpy(w->bytes + at, &header, sizeof(header));
	if (length > 0)
		memcpy(w->bytes + at + sizeof(header), data, length);
	w->used += (sizeof(header) + length + 3) & ~3UL;
	return at;
}

static size_t open_nest(struct writer *w, uint16_t type)
{
	return append(w, type | NLA_F_NESTED, NULL, 0);
}

static void close_nest(struct writer *w, size_t at)
{
	struct nlattr *header = (struct nlattr *)(w->bytes + at);

	header->nla_len = (uint16_t)(w->used - at);
}

static void set_length(struct writer *w, size_t at, uint16_t length)
{
	((struct nlattr *)(w->bytes + at))->nla_len = length;
}

static void begin_message(struct writer *w)
{
	struct nlmsghdr header = {.nlmsg_type = 30, .nlmsg_flags = NLM_F_MULTI};
	struct genlmsghdr generic = {.cmd = WG_CMD_GET_DEVICE, .version = 1};

	memset(w, 0, sizeof(*w));
	memcpy(w->bytes, &header, sizeof(header));
	memcpy(w->bytes + NLMSG_HDRLEN, &generic, sizeof(generic));
	w->used = NLMSG_HDRLEN + GENL_HDRLEN;
}

static int read_message(struct writer *w, struct wg_device *device)
{
	struct nlmsghdr *header = (struct nlmsghdr *)w->bytes;
	struct nlmsghdr *exact;
	int r;

	/* In a block of exactly its size, so that the sanitizer sees a byte too far. */
	header->nlmsg_len = (uint32_t)w->used;
	exact = malloc(w->used);
	memcpy(exact, w->bytes, w->used);
	r = wg_netlink_read(exact, device);
	free(exact);
	return r;
}

static struct key key_of(uint32_t number)
{
	struct key key = {{7}};

	memcpy(key.bytes + 4, &number, sizeof(number));
	return key;
}

static void put_ipv4(struct writer *w, uint32_t address, uint8_t length)
{
	size_t nest = open_nest(w, 0);
	uint16_t family = AF_INET;
	uint32_t network = htonl(address);

	append(w, WGALLOWEDIP_A_FAMILY, &family, 2);
	append(w, WGALLOWEDIP_A_IPADDR, &network, 4);
	append(w, WGALLOWEDIP_A_CIDR_MASK, &length, 1);
	close_nest(w, nest);
}

static void test_read_everything(void **state)
{
	struct sockaddr_in6 endpoint = {
		.sin6_family = AF_INET6, .sin6_port = htons(51820), .sin6_scope_id = 3};
	int64_t handshake[2] = {1700000000, 123456789};
	struct key psk = key_of(99), own = key_of(1), peer_key = key_of(2);
	uint64_t rx = UINT64_MAX, tx = 1;
	uint16_t port = 51821, keepalive = 25;
	uint8_t unknown[40] = {0};
	struct wg_device device = {0};
	size_t list, peer, ips;
	struct writer w;

	(void)state;
	begin_message(&w);
	append(&w, WGDEVICE_A_PUBLIC_KEY, own.bytes, KEY_SIZE);
	append(&w, WGDEVICE_A_LISTEN_PORT, &port, 2);
	append(&w, 77, unknown, sizeof(unknown)); /* of a later kernel */
	list = open_nest(&w, WGDEVICE_A_PEERS);
	peer = open_nest(&w, 0);
	append(&w, WGPEER_A_PUBLIC_KEY, peer_key.bytes, KEY_SIZE);
	append(&w, WGPEER_A_PRESHARED_KEY, psk.bytes, KEY_SIZE);
	append(&w, WGPEER_A_ENDPOINT, &endpoint, sizeof(endpoint));
	append(&w, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &keepalive, 2);
	append(&w, WGPEER_A_LAST_HANDSHAKE_TIME, handshake, sizeof(handshake));
	append(&w, WGPEER_A_RX_BYTES, &rx, 8);
	append(&w, WGPEER_A_TX_BYTES, &tx, 8);
	ips = open_nest(&w, WGPEER_A_ALLOWEDIPS);
	put_ipv4(&w, 0x0a000000, 8);
	close_nest(&w, ips);
	close_nest(&w, peer);
	close_nest(&w, list);

	assert_int_equal(read_message(&w, &device), 0);
	assert_true(key_equal(&device.public_key, &own));
	assert_int_equal(device.listen_port, 51821);
	assert_int_equal(device.n_peers, 1);
	assert_true(key_equal(&device.peers[0].public_key, &peer_key));
	assert_true(device.peers[0].has_preshared_key && key_equal(&device.peers[0].preshared_key, &psk));
	assert_memory_equal(&device.peers[0].endpoint, &endpoint, sizeof(endpoint));
	assert_int_equal(device.peers[0].keepalive, 25);
	assert_int_equal(device.peers[0].handshake_ns, 1700000000123456789);
	assert_true(device.peers[0].rx_bytes == UINT64_MAX && device.peers[0].tx_bytes == 1);
	assert_int_equal(device.peers[0].n_allowed_ips, 1);
	assert_int_equal(device.peers[0].allowed_ips[0].prefix_length, 8);
	wg_device_clear(&device);
}

/* As the kernel does it: 3,000 peers of 5 prefixes each, split wherever a message is full, within a peer,
 * too. */
static void test_read_thousands_split(void **state)
{
	enum { PEERS = 3000, PREFIXES = 5, PER_MESSAGE = 7 };
	struct wg_device device = {0};
	struct writer w;
	size_t written = 0, messages = 0;

	(void)state;
	while (written < PEERS * PREFIXES) {
		size_t list;

		begin_message(&w);
		list = open_nest(&w, WGDEVICE_A_PEERS);
		for (size_t in_message = 0; in_message < PER_MESSAGE && written < PEERS * PREFIXES;) {
			size_t peer = open_nest(&w, 0), number = written / PREFIXES, ips;
			struct key key = key_of((uint32_t)(PEERS - number));
			uint16_t keepalive = 25;

			append(&w, WGPEER_A_PUBLIC_KEY, key.bytes, KEY_SIZE);
			if (written % PREFIXES == 0)
				append(&w, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &keepalive, 2);
			ips = open_nest(&w, WGPEER_A_ALLOWEDIPS);
			do {
				put_ipv4(&w, 0x0a000000 + (uint32_t)written, 32);
				written++;
				in_message++;
			} while (written % PREFIXES != 0 && in_message < PER_MESSAGE);
			close_nest(&w, ips);
			close_nest(&w, peer);
		}
		close_nest(&w, list);
		messages++;
		assert_int_equal(read_message(&w, &device), 0);
	}
	assert_true(messages > 2000);
	assert_int_equal(wg_device_sort(&device), 0);
	assert_int_equal(device.n_peers, PEERS);
	for (size_t i = 0; i < PEERS; i++) {
		const struct wg_peer *peer = &device.peers[i];
		struct key key = key_of((uint32_t)(PEERS - i));

		peer = wg_device_find(&device, &key);
		assert_non_null(peer);
		assert_int_equal(peer->keepalive, 25);
		assert_int_equal(peer->n_allowed_ips, PREFIXES);
		for (size_t j = 0; j < PREFIXES; j++) {
			uint32_t expected = htonl(0x0a000000 + (uint32_t)(i * PREFIXES + j));

			assert_memory_equal(peer->allowed_ips[j].bytes, &expected, 4);
		}
		assert_true(i == 0 || memcmp(device.peers[i - 1].public_key.bytes,
					     device.peers[i].public_key.bytes, KEY_SIZE) < 0);
	}
	wg_device_clear(&device);
}

/* A message with one peer with one value; `length` is written over that attribute's own. */
static int read_with_length(uint16_t type, const void *data, size_t size, int length)
{
	struct wg_device device = {0};
	struct key key = key_of(5);
	struct writer w;
	size_t list, peer, at;
	int r;

	begin_message(&w);
	list = open_nest(&w, WGDEVICE_A_PEERS);
	peer = open_nest(&w, 0);
	append(&w, WGPEER_A_PUBLIC_KEY, key.bytes, KEY_SIZE);
	at = append(&w, type, data, size);
	close_nest(&w, peer);
	close_nest(&w, list);
	if (length >= 0)
		set_length(&w, at, (uint16_t)length);
	r = read_message(&w, &device);
	wg_device_clear(&device);
	return r;
}

static void test_read_hostile_lengths(void **state)
{
	static const uint16_t types[] = {
		WGPEER_A_PRESHARED_KEY, WGPEER_A_ENDPOINT, WGPEER_A_LAST_HANDSHAKE_TIME,
		WGPEER_A_RX_BYTES,      WGPEER_A_TX_BYTES, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL};
	static const uint8_t zeros[256];
	const int64_t late[2] = {INT64_MAX, 0}, negative[2] = {-1, 0}, fraction[2] = {0, NSEC_PER_SEC};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		assert_int_equal(read_with_length(types[i], zeros, 0, -1), -EPROTO);
		assert_int_equal(read_with_length(types[i], zeros, 1, -1), -EPROTO);
	}
	/* Too long: a key of 33 bytes, an endpoint larger than any address. */
	assert_int_equal(read_with_length(WGPEER_A_PRESHARED_KEY, zeros, 33, -1), -EPROTO);
	assert_int_equal(read_with_length(WGPEER_A_ENDPOINT, zeros, 200, -1), -EPROTO);
	/* An endpoint of no known family. */
	assert_int_equal(read_with_length(WGPEER_A_ENDPOINT, zeros, sizeof(struct sockaddr_in), -1), -EPROTO);
	assert_int_equal(read_with_length(WGPEER_A_LAST_HANDSHAKE_TIME, late, 16, -1), -EPROTO);
	assert_int_equal(read_with_length(WGPEER_A_LAST_HANDSHAKE_TIME, negative, 16, -1), -EPROTO);
	assert_int_equal(read_with_length(WGPEER_A_LAST_HANDSHAKE_TIME, fraction, 16, -1), -EPROTO);
}

static int read_allowed_ip(uint16_t family, size_t address_size, uint8_t length)
{
	static const uint8_t zeros[32];
	struct wg_device device = {0};
	struct key key = key_of(5);
	struct writer w;
	size_t list, peer, ips, ip;
	int r;

	begin_message(&w);
	list = open_nest(&w, WGDEVICE_A_PEERS);
	peer = open_nest(&w, 0);
	append(&w, WGPEER_A_PUBLIC_KEY, key.bytes, KEY_SIZE);
	ips = open_nest(&w, WGPEER_A_ALLOWEDIPS);
	ip = open_nest(&w, 0);
	append(&w, WGALLOWEDIP_A_FAMILY, &family, 2);
	append(&w, WGALLOWEDIP_A_IPADDR, zeros, address_size);
	append(&w, WGALLOWEDIP_A_CIDR_MASK, &length, 1);
	close_nest(&w, ip);
	close_nest(&w, ips);
	close_nest(&w, peer);
	close_nest(&w, list);
	r = read_message(&w, &device);
	wg_device_clear(&device);
	return r;
}

static void test_read_hostile_allowed_ips(void **state)
{
	(void)state;
	assert_int_equal(read_allowed_ip(AF_INET, 4, 32), 0);
	assert_int_equal(read_allowed_ip(AF_INET6, 16, 128), 0);
	assert_int_equal(read_allowed_ip(AF_INET, 4, 33), -EPROTO);
	assert_int_equal(read_allowed_ip(AF_INET, 16, 32), -EPROTO);
	assert_int_equal(read_allowed_ip(AF_INET6, 4, 32), -EPROTO);
	assert_int_equal(read_allowed_ip(AF_INET6, 17, 32), -EPROTO);
	assert_int_equal(read_allowed_ip(AF_INET6, 16, 129), -EPROTO);
	assert_int_equal(read_allowed_ip(AF_UNIX, 4, 8), -EPROTO);
}

/* Any bytes at all: no crash, no read beyond the message (run under the sanitizers). */
static void test_read_mutations(void **state)
{
	int accepted = 0, refused = 0;

	(void)state;
	srand(2);
	for (int round = 0; round < 20000; round++) {
		struct wg_device device = {0};
		struct key key = key_of(5);
		size_t list, peer, ips, size;
		struct writer w;

		begin_message(&w);
		list = open_nest(&w, WGDEVICE_A_PEERS);
		peer = open_nest(&w, 0);
		append(&w, WGPEER_A_PUBLIC_KEY, key.bytes, KEY_SIZE);
		ips = open_nest(&w, WGPEER_A_ALLOWEDIPS);
		put_ipv4(&w, 1, 32);
		put_ipv4(&w, 2, 32);
		close_nest(&w, ips);
		close_nest(&w, peer);
		close_nest(&w, list);
		size = w.used - NLMSG_HDRLEN;
		for (int i = rand() % 4; i >= 0; i--)
			w.bytes[NLMSG_HDRLEN + (size_t)rand() % size] = (uint8_t)rand();
		if (rand() % 4 == 0)
			w.used = NLMSG_HDRLEN + (size_t)rand() % size;
		if (read_message(&w, &device) == 0)
			accepted++;
		else
			refused++;
		wg_device_clear(&device);
	}
	assert_true(accepted > 1000 && refused > 1000);
}

/* A reader of attributes for the tests of writing. */
static const uint8_t *find(const uint8_t *at, const uint8_t *end, uint16_t type, size_t *ret_size)
{
	while (at + sizeof(struct nlattr) <= end) {
		struct nlattr header;

		memcpy(&header, at, sizeof(header));
		assert_true(header.nla_len >= sizeof(header) && at + header.nla_len <= end);
		if ((header.nla_type & NLA_TYPE_MASK) == type) {
			*ret_size = header.nla_len - sizeof(header);
			return at + sizeof(header);
		}
		at += (header.nla_len + 3) & ~3;
	}
	*ret_size = 0;
	return NULL;
}

/* Children all have type 0: the one with this index. */
static const uint8_t *child(const uint8_t *at, size_t size, size_t index, size_t *ret_size)
{
	const uint8_t *end = at + size;

	while (at + sizeof(struct nlattr) <= end) {
		struct nlattr header;

		memcpy(&header, at, sizeof(header));
		/* The kernel refuses a nest that does not say so. */
		assert_int_equal(header.nla_type, NLA_F_NESTED);
		if (index-- == 0) {
			*ret_size = header.nla_len - sizeof(header);
			return at + sizeof(header);
		}
		at += (header.nla_len + 3) & ~3;
	}
	*ret_size = 0;
	return NULL;
}

static uint32_t flags_of(const uint8_t *peer, size_t size)
{
	size_t flags_size;
	const uint8_t *at = find(peer, peer + size, WGPEER_A_FLAGS, &flags_size);
	uint32_t flags = 0;

	if (at)
		memcpy(&flags, at, sizeof(flags));
	return flags;
}

struct applied {
	size_t n;
	uint8_t addresses[4096][4];
	size_t first_parts, later_parts, messages;
};

static struct nl_msg *new_set_message(size_t size)
{
	struct genlmsghdr generic = {.cmd = WG_CMD_SET_DEVICE, .version = 1};
	struct nl_msg *message = netlink_message(30, 0, size);

	assert_non_null(message);
	assert_int_equal(nlmsg_append(message, &generic, sizeof(generic), NLMSG_ALIGNTO), 0);
	return message;
}

static const uint8_t *attributes_of(struct nl_msg *message, size_t *ret_size)
{
	struct nlmsghdr *header = nlmsg_hdr(message);

	*ret_size = header->nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN;
	return (const uint8_t *)header + NLMSG_HDRLEN + GENL_HDRLEN;
}

/* Takes one message's peers as the kernel would. */
static void apply(struct nl_msg *message, struct applied *applied)
{
	size_t size, list_size, peer_size, ips_size, ip_size, address_size;
	const uint8_t *attributes = attributes_of(message, &size), *peer, *ips, *ip;
	const uint8_t *list = find(attributes, attributes + size, WGDEVICE_A_PEERS, &list_size);

	applied->messages++;
	assert_non_null(list);
	for (size_t i = 0; (peer = child(list, list_size, i, &peer_size)); i++) {
		if (flags_of(peer, peer_size) & WGPEER_F_UPDATE_ONLY)
			applied->later_parts++;
		else
			applied->first_parts++;
		ips = find(peer, peer + peer_size, WGPEER_A_ALLOWEDIPS, &ips_size);
		for (size_t j = 0; ips && (ip = child(ips, ips_size, j, &ip_size)); j++)
			memcpy(applied->addresses[applied->n++],
			       find(ip, ip + ip_size, WGALLOWEDIP_A_IPADDR, &address_size), 4);
	}
}

static void test_write_splits(void **state)
{
	enum { PEERS = 5, PREFIXES = 700 };
	static struct cidr prefixes[PEERS][PREFIXES];
	static struct applied applied;
	struct wg_peer_change changes[PEERS] = {0};
	struct wg_request request = {.changes = changes, .n_changes = PEERS};
	struct wg_netlink_cursor cursor = {0};

	(void)state;
	for (uint32_t i = 0; i < PEERS * PREFIXES; i++) {
		uint32_t address = htonl(0x0a000000 + i);
		struct cidr *prefix = &prefixes[i / PREFIXES][i % PREFIXES];

		*prefix = (struct cidr){.family = AF_INET, .prefix_length = 32};
		memcpy(prefix->bytes, &address, 4);
	}
	for (uint32_t i = 0; i < PEERS; i++) {
		changes[i].public_key = key_of(i);
		changes[i].set_preshared_key = true;
		changes[i].allowed_ips = prefixes[i];
		changes[i].n_allowed_ips = i == 2 ? 0 : PREFIXES;
	}
	while (cursor.change < PEERS) {
		struct nl_msg *message = new_set_message(4096);

		assert_int_equal(wg_netlink_write(message, "wg0", &request, &cursor), 0);
		apply(message, &applied);
		netlink_message_free(message);
	}
	assert_true(applied.messages > PEERS);
	assert_int_equal(applied.first_parts, PEERS);
	assert_true(applied.later_parts >= applied.messages - PEERS);
	assert_int_equal(applied.n, (PEERS - 1) * PREFIXES);
	for (uint32_t i = 0, n = 0; i < PEERS * PREFIXES; i++) {
		if (i / PREFIXES == 2)
			continue;
		assert_memory_equal(applied.addresses[n++], prefixes[i / PREFIXES][i % PREFIXES].bytes, 4);
	}
}

static void test_write_values(void **state)
{
	struct sockaddr_in *endpoint;
	struct wg_peer_change changes[2] = {{.public_key = key_of(1),
					     .set_preshared_key = true,
					     .set_endpoint = true,
					     .set_keepalive = true,
					     .keepalive = 25,
					     .update_only = true,
					     .replace_allowed_ips = true},
					    {.public_key = key_of(2), .remove = true, .set_keepalive = true}};
	struct key private_key = key_of(3);
	struct wg_request request = {.private_key = &private_key,
				     .set_listen_port = true,
				     .listen_port = 51820,
				     .changes = changes,
				     .n_changes = 2};
	struct wg_netlink_cursor cursor = {0};
	struct nl_msg *message = new_set_message(4096);
	size_t size, list_size, peer_size, value_size;
	const uint8_t *attributes, *list, *peer, *value;

	(void)state;
	endpoint = (struct sockaddr_in *)&changes[0].endpoint;
	*endpoint = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(7)};
	assert_int_equal(wg_netlink_write(message, "wg0", &request, &cursor), 0);
	assert_int_equal(cursor.change, 2);
	attributes = attributes_of(message, &size);
	value = find(attributes, attributes + size, WGDEVICE_A_IFNAME, &value_size);
	assert_memory_equal(value, "wg0", 4);
	value = find(attributes, attributes + size, WGDEVICE_A_PRIVATE_KEY, &value_size);
	assert_memory_equal(value, private_key.bytes, KEY_SIZE);
	/* Never the flag that replaces all peers. */
	assert_null(find(attributes, attributes + size, WGDEVICE_A_FLAGS, &value_size));
	list = find(attributes, attributes + size, WGDEVICE_A_PEERS, &list_size);
	peer = child(list, list_size, 0, &peer_size);
	assert_int_equal(flags_of(peer, peer_size), WGPEER_F_UPDATE_ONLY | WGPEER_F_REPLACE_ALLOWEDIPS);
	value = find(peer, peer + peer_size, WGPEER_A_ENDPOINT, &value_size);
	assert_int_equal(value_size, sizeof(*endpoint));
	assert_memory_equal(value, endpoint, sizeof(*endpoint));
	value = find(peer, peer + peer_size, WGPEER_A_PRESHARED_KEY, &value_size);
	assert_int_equal(value_size, KEY_SIZE);
	peer = child(list, list_size, 1, &peer_size);
	assert_int_equal(flags_of(peer, peer_size), WGPEER_F_REMOVE_ME);
	assert_null(find(peer, peer + peer_size, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &value_size));
	netlink_message_free(message);
}

static void test_write_too_small(void **state)
{
	struct wg_peer_change change = {.public_key = key_of(1)};
	struct wg_request request = {.changes = &change, .n_changes = 1};
	struct wg_netlink_cursor cursor = {0};
	struct nl_msg *message = new_set_message(64);

	(void)state;
	assert_int_equal(wg_netlink_write(message, "wg0", &request, &cursor), -EMSGSIZE);
	netlink_message_free(message);
}

static void test_write_removal(void **state)
{
	struct cidr prefix = {.family = AF_INET6, .prefix_length = 64, .bytes = {0xfd}};
	struct key key = key_of(1);
	struct nl_msg *message = new_set_message(512);
	size_t size, list_size, peer_size, ips_size, ip_size, value_size;
	const uint8_t *attributes, *list, *peer, *ips, *ip, *value;
	uint32_t flags;

	(void)state;
	assert_int_equal(wg_netlink_write_removal(message, "wg0", &key, &prefix), 0);
	attributes = attributes_of(message, &size);
	list = find(attributes, attributes + size, WGDEVICE_A_PEERS, &list_size);
	peer = child(list, list_size, 0, &peer_size);
	assert_int_equal(flags_of(peer, peer_size), WGPEER_F_UPDATE_ONLY);
	ips = find(peer, peer + peer_size, WGPEER_A_ALLOWEDIPS, &ips_size);
	ip = child(ips, ips_size, 0, &ip_size);
	value = find(ip, ip + ip_size, 4, &value_size);
	assert_int_equal(value_size, sizeof(flags));
	memcpy(&flags, value, sizeof(flags));
	assert_int_equal(flags, 1);
	netlink_message_free(message);
}

/* What a whole answer looks like to netlink_consume(): leftovers, interruption, the end's own error. */
static int count_message(const struct nlmsghdr *header, void *data)
{
	(void)header;
	++*(int *)data;
	return 0;
}

static void put_header(struct writer *w, uint16_t type, uint16_t flags, uint32_t sequence, const int *error)
{
	struct nlmsghdr header = {.nlmsg_len = NLMSG_HDRLEN + (error ? 4 : 0),
				  .nlmsg_type = type,
				  .nlmsg_flags = flags,
				  .nlmsg_seq = sequence};

	memcpy(w->bytes + w->used, &header, sizeof(header));
	if (error)
		memcpy(w->bytes + w->used + NLMSG_HDRLEN, error, sizeof(*error));
	w->used += NLMSG_ALIGN(header.nlmsg_len);
}

static void test_consume(void **state)
{
	const int failed = -ENODEV, fine = 0;
	int seen = 0;
	const struct netlink_reader reader = {.message = count_message, .data = &seen};
	struct netlink_answer answer = {.sequence = 5};
	struct writer w = {.used = 0};

	(void)state;
	put_header(&w, 30, 0, 4, NULL);          /* of the request before */
	put_header(&w, NLMSG_DONE, 0, 4, &fine); /* its end */
	put_header(&w, 30, NLM_F_DUMP_INTR, 5, NULL);
	put_header(&w, 30, 0, 5, NULL);
	netlink_consume(&answer, w.bytes, w.used, &reader);
	assert_int_equal(seen, 2);
	assert_true(answer.interrupted && !answer.done);
	w.used = 0;
	put_header(&w, NLMSG_DONE, 0, 5, &failed);
	netlink_consume(&answer, w.bytes, w.used, &reader);
	assert_true(answer.done);
	assert_int_equal(answer.result, -ENODEV);
	/* A header that claims more than there is ends the reading. */
	answer = (struct netlink_answer){.sequence = 5};
	((struct nlmsghdr *)w.bytes)->nlmsg_len = 4096;
	netlink_consume(&answer, w.bytes, w.used, &reader);
	assert_false(answer.done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_everything),      cmocka_unit_test(test_read_thousands_split),
		cmocka_unit_test(test_read_hostile_lengths), cmocka_unit_test(test_read_hostile_allowed_ips),
		cmocka_unit_test(test_read_mutations),       cmocka_unit_test(test_write_splits),
		cmocka_unit_test(test_write_values),         cmocka_unit_test(test_write_too_small),
		cmocka_unit_test(test_write_removal),        cmocka_unit_test(test_consume),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
