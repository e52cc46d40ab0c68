// SPDX-License-Identifier: BSD-2-Clause
/*
 * Segment routing that ends on the gateway (W1): the kernel hands what it has taken out to the same device
 * again, where the hook must know that it has been there before; and nothing that comes from outside may look
 * as if it had. On a TUN device whose other end is this program. Runs in namespaces of its own; needs root,
 * iproute2.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"

#include "../chance.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PEER    5
#define PORT    7000
#define LONGEST 200000
#define PAYLOAD 100

static const enum meter_attach ways[] = {METER_ATTACH_AUTO, METER_ATTACH_TC};

static int tun = -1, inside = -1; /* inside: where what was taken out arrives */
static struct meter *meter;

/* A packet from the peer, made from its end on. */
static uint8_t room[LONGEST];
static size_t begin;

static uint8_t *put(size_t size)
{
	begin -= size;
	memset(room + begin, 0, size);
	return room + begin;
}

static size_t size_of_packet(void)
{
	return LONGEST - begin;
}

static void put_udp(void)
{
	uint8_t *udp;

	begin = LONGEST;
	udp = put(8 + PAYLOAD);
	udp[2] = PORT >> 8;
	udp[3] = PORT & 255;
	udp[5] = 8 + PAYLOAD;
}

static void put_ipv4(void)
{
	static const uint8_t head[20] = {0x45, [8] = 64, 17, [12] = 10, 9, 0, 2, 10, 9, 0, 1};
	size_t size = size_of_packet() + sizeof(head);
	uint8_t *ip = memcpy(put(sizeof(head)), head, sizeof(head));
	uint32_t sum = 0;

	ip[2] = (uint8_t)(size >> 8);
	ip[3] = (uint8_t)size;
	for (size_t i = 0; i < sizeof(head); i += 2)
		sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
	sum = ~(sum + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}

static void put_ipv6(uint8_t next)
{
	static const uint8_t head[40] = {0x60, [7] = 64, 0xfd, 9, [23] = 2, 0xfd, 9, [39] = 1};
	size_t size = size_of_packet();
	uint8_t *ip = memcpy(put(sizeof(head)), head, sizeof(head));

	ip[4] = (uint8_t)(size >> 8);
	ip[5] = (uint8_t)size;
	ip[6] = next;
}

/* A routing header with no segment left: of SRv6 with the one that it was, of RPL with none. */
static void put_routing(uint8_t type, uint8_t next)
{
	uint8_t *head = put(type == 4 ? 24 : 8);

	head[0] = next;
	head[1] = type == 4 ? 2 : 0;
	head[2] = type;
	if (type == 4)
		memcpy(head + 8, (const uint8_t[16]){0xfd, 9, [15] = 1}, 16);
}

/* Options that say nothing, or the header of the only fragment. */
static void put_extension(uint8_t protocol, uint8_t next)
{
	uint8_t *head = put(8);

	head[0] = next;
	if (protocol != IPPROTO_FRAGMENT)
		memcpy(head + 2, (const uint8_t[]){1, 4}, 2);
}

/* ---- packets ---- */

static void srv6(void)
{
	put_udp();
	put_ipv6(IPPROTO_UDP);
	put_routing(4, IPPROTO_IPV6);
	put_ipv6(IPPROTO_ROUTING);
}

static void srv6_with_ipv4(void)
{
	put_udp();
	put_ipv4();
	put_routing(4, IPPROTO_IPIP);
	put_ipv6(IPPROTO_ROUTING);
}

static void rpl(void)
{
	put_udp();
	put_ipv6(IPPROTO_UDP);
	put_routing(3, IPPROTO_IPV6);
	put_ipv6(IPPROTO_ROUTING);
}

static void srv6_in_srv6_in_srv6(void)
{
	srv6();
	put_routing(4, IPPROTO_IPV6);
	put_ipv6(IPPROTO_ROUTING);
	put_routing(4, IPPROTO_IPV6);
	put_ipv6(IPPROTO_ROUTING);
}

static void behind(uint8_t protocol)
{
	srv6();
	begin += 40;
	put_extension(protocol, IPPROTO_ROUTING);
	put_ipv6(protocol);
}

static void srv6_behind_hop_by_hop(void)
{
	behind(IPPROTO_HOPOPTS);
}

static void srv6_behind_destination(void)
{
	behind(IPPROTO_DSTOPTS);
}

static void srv6_behind_fragment(void)
{
	behind(IPPROTO_FRAGMENT);
}

static const struct {
	const char *name;
	void (*make)(void);
} kinds[] = {
	{"srv6", srv6},
	{"srv6 with IPv4", srv6_with_ipv4},
	{"rpl", rpl},
	{"srv6 in srv6 in srv6", srv6_in_srv6_in_srv6},
	{"srv6 behind hop-by-hop options", srv6_behind_hop_by_hop},
	{"srv6 behind destination options", srv6_behind_destination},
	{"srv6 behind a fragment header", srv6_behind_fragment},
};

/* ---- the meter ---- */

static void attach(enum meter_attach how)
{
	const struct meter_options options = {
		.pin_folder = "/run/bpf/meter", .interface = "tun0", .attach = how, .capacity = 64};
	static const char *const prefixes[] = {"10.9.0.2/32", "fd09::2/128"};
	struct cidr prefix;

	assert_int_equal(meter_attach(&options, &meter), 0);
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		assert_int_equal(cidr_parse(prefixes[i], &prefix), 0);
		assert_int_equal(meter_set_prefix(meter, &prefix, PEER, 1), 0);
	}
}

/* Whether segment routing may end here. */
static void allow(bool allowed)
{
	assert_int_equal(run("for c in /proc/sys/net/ipv6/conf/*; do echo %1$d >$c/seg6_enabled; "
			     "echo %1$d >$c/rpl_seg_enabled; done",
			     allowed),
			 0);
}

/* Of the peer's and nobody's together. */
static struct meter_totals counted(void)
{
	struct meter_totals peer, nobody;

	meter_read(meter, PEER, &peer);
	meter_read(meter, WT_SLOT_UNATTRIBUTED, &nobody);
	peer.upload_bytes += nobody.upload_bytes;
	peer.upload_packets += nobody.upload_packets;
	return peer;
}

static void send_packet(void)
{
	assert_int_equal(write(tun, room + begin, size_of_packet()), size_of_packet());
}

/* Whether the datagram has come out of the packet. */
static bool arrives(int timeout_ms)
{
	struct pollfd event = {.fd = inside, .events = POLLIN};
	uint8_t payload[2 * PAYLOAD];

	return poll(&event, 1, timeout_ms) == 1 && recv(inside, payload, sizeof(payload), 0) == PAYLOAD;
}

static bool is_counted_once(const char *name, bool ends_here)
{
	struct meter_totals before = counted(), after;
	bool arrived;

	send_packet();
	arrived = arrives(ends_here ? 5000 : 0);
	after = counted();
	print_message("# %s: %zu bytes, counted %llu in %llu packets, %s\n", name, size_of_packet(),
		      (unsigned long long)(after.upload_bytes - before.upload_bytes),
		      (unsigned long long)(after.upload_packets - before.upload_packets),
		      arrived ? "arrived" : "did not arrive");
	return arrived == ends_here && after.upload_bytes - before.upload_bytes == size_of_packet() &&
	       after.upload_packets - before.upload_packets == 1;
}

static void are_counted_once(bool ends_here)
{
	int wrong = 0;

	allow(ends_here);
	for (size_t way = 0; way < ARRAY_SIZE(ways); way++) {
		attach(ways[way]);
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
			kinds[i].make();
			wrong += !is_counted_once(kinds[i].name, ends_here);
		}
		assert_int_equal(meter_remove(meter), 0);
	}
	assert_int_equal(wrong, 0);
}

static void w1_what_ends_here_is_counted_once(void **state)
{
	(void)state;
	are_counted_once(true);
}

static void w1_the_same_packets_are_counted_where_it_does_not_end(void **state)
{
	(void)state;
	are_counted_once(false);
}

/* The first time decides. */
static void w1_what_is_refused_does_not_come_again(void **state)
{
	struct meter_grant grant = {1, 1, 0, WT_UPLOADS};
	struct meter_totals totals;

	(void)state;
	allow(true);
	attach(METER_ATTACH_AUTO);
	srv6();
	grant.ceiling = 3 * size_of_packet();
	assert_int_equal(meter_grant_peer(meter, PEER, &grant), 0);
	for (int i = 0; i < 3; i++) {
		send_packet();
		assert_true(arrives(5000));
	}
	send_packet();
	assert_false(arrives(200));
	meter_read(meter, PEER, &totals);
	assert_int_equal(totals.upload_bytes, 3 * size_of_packet());
	assert_int_equal(totals.refused_bytes, size_of_packet());
	assert_int_equal(meter_remove(meter), 0);
}

/* IPv6 packets of lengths around what the hook asks for, with every number as the next header. */
static void w1_nothing_from_outside_passes_uncounted(void **state)
{
	static const size_t lengths[] = {40,    41,    47,    48,    49,    88,    96,     1420,  4000,
					 20000, 65535, 65583, 65584, 65585, 70000, 131072, 150000};
	int wrong = 0;

	(void)state;
	allow(false);
	attach(METER_ATTACH_AUTO);
	for (size_t i = 0; i < LONGEST; i++)
		room[i] = (uint8_t)random_below(256);
	for (unsigned i = 0; i < 256 * ARRAY_SIZE(lengths); i++) {
		struct meter_totals before = counted(), after;

		begin = LONGEST - (lengths[i / 256] - 40);
		put_ipv6((uint8_t)i);
		send_packet();
		after = counted();
		wrong += after.upload_bytes - before.upload_bytes != size_of_packet();
	}
	assert_int_equal(wrong, 0);
	assert_int_equal(meter_remove(meter), 0);
}

static int make_network(void)
{
	struct ifreq request = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
	const int on = 1;

	if (namespace_enter() || mkdir("/run/bpf", 0700) || mount("bpf", "/run/bpf", "bpf", 0, "mode=0700"))
		return -1;
	tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	inside = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (tun < 0 || inside < 0 || ioctl(tun, TUNSETIFF, &request) ||
	    setsockopt(inside, IPPROTO_UDP, UDP_NO_CHECK6_RX, &on, sizeof(on)) ||
	    bind(inside, (const struct sockaddr *)&address, sizeof(address)))
		return -1;
	return run("ip addr add 10.9.0.1/24 dev tun0 && ip addr add fd09::1/64 dev tun0 nodad && "
		   "ip link set tun0 up mtu 1420");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(w1_what_ends_here_is_counted_once),
		cmocka_unit_test(w1_the_same_packets_are_counted_where_it_does_not_end),
		cmocka_unit_test(w1_what_is_refused_does_not_come_again),
		cmocka_unit_test(w1_nothing_from_outside_passes_uncounted),
	};

	if (make_network()) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
