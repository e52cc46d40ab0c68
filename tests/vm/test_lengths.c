// SPDX-License-Identifier: BSD-2-Clause
/*
 * Aggregates that carry more than TCP or UDP: SCTP, IPv6 packets over 64 KiB, what a guest
 * makes. What the meter has counted of them, byte by byte and packet by packet, is what a capture in the
 * customer's namespace has seen, where no device makes aggregates. In the virtual machine only.
 */
#include "compare.h"
#include "lab.h"

#include "net/net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#define AMOUNT 100000
#define LARGE  150000

static uint64_t scale = 1; /* more with FULL=1 */

/* Whether the kernel is that or a later one. */
static bool kernel_is(int major, int minor)
{
	struct utsname name;
	int is_major, is_minor;

	assert_int_equal(uname(&name), 0);
	assert_int_equal(sscanf(name.release, "%d.%d", &is_major, &is_minor), 2);
	return is_major > major || (is_major == major && is_minor >= minor);
}

/* ---- SCTP, and packets over 64 KiB ----------------------------------------------------------------------
 */

static void send_sctp(const void *data, int end)
{
	(void)data;
	lab_sctp(end, 1, FIRST4, 2 * AMOUNT * scale);
	lab_sctp(1, end, end == GATEWAY ? GATEWAY6 : CONTAINER6, 2 * AMOUNT * scale);
}

static void w3_sctp(void **state)
{
	bool same;

	(void)state;
	same = compare_traffic("sctp with the gateway", send_sctp, NULL, GATEWAY);
	assert_true(compare_traffic("sctp through it", send_sctp, NULL, CONTAINER) && same);
}

static void send_large(const void *data, int end)
{
	(void)data;
	lab_tcp(end, 1, FIRST6, 20 * AMOUNT * scale);
	lab_tcp(1, end, CONTAINER6, 2 * AMOUNT * scale);
}

/* WireGuard makes none of its own: they come from the container. */
static void allow_large(unsigned largest)
{
	assert_int_equal(lab_run(GATEWAY, "ip link set inside gso_max_size %1$u gro_max_size %1$u", largest),
			 0);
	assert_int_equal(lab_run(CONTAINER, "ip link set eth0 gso_max_size %1$u gro_max_size %1$u", largest),
			 0);
}

static void w4_ipv6_packets_over_64_kib(void **state)
{
	bool same = true, large = false;

	(void)state;
	/* Linux 6.1 loses some of them behind the hook. */
	if (!kernel_is(6, 12))
		skip();
	allow_large(LARGE);
	/* With their option they count as larger than their segments: at the device's own MTU none is
	 * forwarded. */
	assert_int_equal(lab_run(CONTAINER, "ip link set eth0 mtu 1400"), 0);
	/* How large they become is the sender's window's choice. */
	for (int i = 0; i < 4 && same && !large; i++) {
		same = compare_traffic("large packets", send_large, NULL, CONTAINER);
		large = compare_look().hooks[CAPTURE_IN].largest > 65536;
	}
	assert_int_equal(lab_run(CONTAINER, "ip link set eth0 mtu 1420"), 0);
	allow_large(65536);
	assert_true(same);
	print_message("# over 64 KiB: %s\n", large ? "yes" : "none came up");
	if (scale > 1)
		assert_true(large);
}

/* ---- what a guest makes ---------------------------------------------------------------------------------
 */

/* A guest's device: what is written to it comes from 10.6.0.2, with the header of a virtual network. */
static int open_guest(void)
{
	struct ifreq request = {.ifr_name = "guest", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	assert_int_equal(lab_run(GATEWAY, "ip addr add 10.6.0.1/24 dev guest"), 0);
	assert_int_equal(lab_run(GATEWAY, "ip link set guest up"), 0);
	return fd;
}

/* One aggregate of a guest's, with the word of its IP header that holds the fragment bits. */
struct aggregate {
	int fd;
	size_t payload;
	uint16_t segment, fragment;
	bool udp; /* else TCP */
};

static void write_ip_header(uint8_t *packet, const struct aggregate *aggregate, size_t size)
{
	uint16_t words[10] = {htons(0x4500), htons((uint16_t)size), 0, htons(aggregate->fragment),
			      htons(aggregate->udp ? 0x4011 : 0x4006)};
	uint32_t sum = 0;

	inet_pton(AF_INET, "10.6.0.2", &words[6]);
	inet_pton(AF_INET, "10.8.0.2", &words[8]);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		sum += words[i];
	words[5] = (uint16_t) ~(sum % 0xffff);
	memcpy(packet, words, sizeof(words));
}

static void write_transport_header(uint8_t *header, const struct aggregate *aggregate)
{
	header[1] = header[3] = 9; /* both ports */
	if (aggregate->udp) {
		header[4] = (uint8_t)((aggregate->payload + 8) >> 8);
		header[5] = (uint8_t)(aggregate->payload + 8);
	} else {
		header[12] = 0x50; /* a header of five words */
		header[13] = 0x10; /* ACK */
	}
}

static void write_aggregate(const struct aggregate *aggregate)
{
	const size_t header = aggregate->udp ? 28 : 40, size = header + aggregate->payload;
	struct virtio_net_hdr device = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = aggregate->udp ? VIRTIO_NET_HDR_GSO_UDP : VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = (uint16_t)header,
		.gso_size = aggregate->segment,
		.csum_start = 20,
		.csum_offset = aggregate->udp ? 6 : 16,
	};
	uint8_t sent[sizeof(device) + 40 + 10000] = {0}, *packet = sent + sizeof(device);

	memcpy(sent, &device, sizeof(device));
	write_ip_header(packet, aggregate, size);
	write_transport_header(packet + 20, aggregate);
	assert_int_equal(write(aggregate->fd, sent, sizeof(device) + size), sizeof(device) + size);
}

static void send_fragment_bits(const void *data, int end)
{
	static const uint16_t bits[] = {0, 0x4000, 0x2000, 0x0001, 0x2100, 0x1fff};
	const int *fd = data;

	(void)end;
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		for (uint16_t segment = 200; segment < 1400; segment += 371)
			write_aggregate(&(struct aggregate){*fd, 7001, segment, bits[i], false});
}

static void w7_a_guests_segments_with_fragment_bits(void **state)
{
	int fd = open_guest();
	bool same = compare_traffic("fragment bits", send_fragment_bits, &fd, GATEWAY);

	(void)state;
	close(fd);
	assert_true(same);
}

/* Datagrams that an old guest leaves to be fragmented. */
static const struct aggregate datagrams[] = {
	{.payload = 7001, .segment = 200, .udp = true},  {.payload = 7001, .segment = 1000, .udp = true},
	{.payload = 9000, .segment = 1400, .udp = true}, {.payload = 9800, .segment = 1400, .udp = true},
	{.payload = 1393, .segment = 1400, .udp = true},
};

static void send_datagrams(const void *data, int end)
{
	(void)end;
	for (size_t i = 0; i < ARRAY_SIZE(datagrams); i++) {
		struct aggregate datagram = datagrams[i];

		datagram.fd = *(const int *)data;
		write_aggregate(&datagram);
	}
}

static size_t parts(size_t bytes, size_t size)
{
	return (bytes + size - 1) / size;
}

/* A kernel that does not say that these are to be fragmented: they count as if each were cut into datagrams,
 * where a fragment has no header of UDP but the first, for which there is less room. */
static void assert_counted_as_datagrams(const int *fd)
{
	struct moment before = compare_look(), after;
	int64_t expected = 0;

	for (size_t i = 0; i < ARRAY_SIZE(datagrams); i++) {
		size_t payload = datagrams[i].payload, segment = datagrams[i].segment;

		expected += (int64_t)(payload + 28 * parts(payload, segment));
		expected -= (int64_t)(payload + 8 + 20 * parts(payload + 8, segment));
	}
	send_datagrams(fd, GATEWAY);
	compare_settles(&before, &after);
	compare_tell("datagrams for fragmentation", &before, &after);
	assert_int_equal(compare_excess(&before, &after, CAPTURE_IN), expected);
}

static void w5_an_old_guests_datagrams_for_fragmentation(void **state)
{
	int fd = open_guest();

	(void)state;
	if (kernel_is(6, 2))
		assert_true(compare_traffic("datagrams for fragmentation", send_datagrams, &fd, GATEWAY));
	else
		assert_counted_as_datagrams(&fd);
	close(fd);
}

/* ---- IPsec that ends on the gateway ---------------------------------------------------------------------
 */

#define PING    "ping -q -n -c 2 -i 0.1 -W 20 10.8.0.1 >/dev/null"
#define NO_PING "ping -q -n -c 2 -i 0.1 -W 2 10.8.0.1 >/dev/null"

/* ESP between the first customer and the gateway, in plain: this is about headers. */
static void start_ipsec(void)
{
	static const char end[] =
		"sh -ec 'for to in 2 1; do ip xfrm state add src 10.8.0.$((3 - to)) dst 10.8.0.$to proto esp "
		"spi 0x100$to mode transport enc \"ecb(cipher_null)\" \"\" auth digest_null \"\"; "
		"[ $to = %d ] && way=in || way=out; ip xfrm policy add src 10.8.0.$((3 - to)) dst 10.8.0.$to "
		"dir $way tmpl proto esp mode transport; done'";

	assert_int_equal(lab_run(GATEWAY, end, 1), 0);
	assert_int_equal(lab_run(1, end, 2), 0);
}

static void stop_ipsec(void)
{
	for (int place = GATEWAY; place <= 1; place++) {
		lab_run(place, "ip xfrm policy flush");
		lab_run(place, "ip xfrm state flush");
	}
}

/* It is in no header what the kernel has taken off before, or puts on behind the hook. */
static void w6_ipsec_is_counted_short_and_a_gateway_takes_none(void **state)
{
	const struct net_firewall firewall = {.tunnel_interface = LAB_DEVICE, .listen_port = 51820};
	struct moment before, after;
	char error[256];

	(void)state;
	start_ipsec();
	before = compare_look();
	lab_tcp(GATEWAY, 1, FIRST4, AMOUNT);
	lab_tcp(1, GATEWAY, GATEWAY4, AMOUNT);
	assert_false(compare_settles(&before, &after));
	compare_tell("ipsec", &before, &after);
	assert_true(compare_excess(&before, &after, CAPTURE_OUT) < 0);
	assert_int_equal(lab_run(1, PING), 0);

	assert_int_equal(net_firewall_apply(&firewall, error, sizeof(error)), 0);
	assert_int_not_equal(lab_run(1, NO_PING), 0);
	stop_ipsec();
	assert_int_equal(lab_run(1, PING), 0);
	assert_int_equal(lab_run(GATEWAY, "nft delete table inet wiretoll"), 0);
}

/* Large aggregates, however slow the machine is. */
static int prepare(void)
{
	static const char command[] = "sysctl -qw net.ipv4.tcp_tso_rtt_log=25";

	return lab_run(GATEWAY, command) || lab_run(1, command) || lab_run(CONTAINER, command) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w3_sctp, compare_setup, compare_teardown),
		cmocka_unit_test_setup_teardown(w4_ipv6_packets_over_64_kib, compare_setup, compare_teardown),
		cmocka_unit_test_setup_teardown(w5_an_old_guests_datagrams_for_fragmentation, compare_setup,
						compare_teardown),
		cmocka_unit_test_setup_teardown(w6_ipsec_is_counted_short_and_a_gateway_takes_none,
						compare_setup, compare_teardown),
		cmocka_unit_test_setup_teardown(w7_a_guests_segments_with_fragment_bits, compare_setup,
						compare_teardown),
	};
	const char *full = getenv("FULL");

	if (full && strcmp(full, "1") == 0)
		scale = 5;
	if (lab_make() || lab_make_container() || prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
