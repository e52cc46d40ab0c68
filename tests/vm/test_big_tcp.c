// SPDX-License-Identifier: BSD-2-Clause
/*
 * IPv6 packets over 64 KiB (BIG TCP) that other devices forward to the tunnel, with the option that says how
 * long they are: what is counted of them is what arrives, on kernels that take the option off wrongly, or not
 * at all, too. In the virtual machine only.
 */
#include "compare.h"
#include "lab.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SEGMENT 1300
#define PAYLOAD 66300 /* 51 of them, as much as the device takes at once */
#define HEADERS 68    /* of IPv6, the option, TCP */
#define OPTION  8
#define BYTES   3000000

/* ---- a packet that a guest makes ------------------------------------------------------------------------
 */

/* A guest's device: what is written to it comes from fd06::2, with the header of a virtual network. */
static int open_guest(void)
{
	struct ifreq request = {.ifr_name = "guest", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	assert_int_equal(lab_run(GATEWAY, "ip addr add fd06::1/64 dev guest nodad"), 0);
	assert_int_equal(lab_run(GATEWAY, "ip link set guest up"), 0);
	return fd;
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htonl(value);
	memcpy(at, &value, sizeof(value));
}

/* The headers in front of the payload; with the option the IPv6 header's length is 0. */
static void write_headers(uint8_t *packet, uint32_t sequence)
{
	uint8_t *option = packet + 40, *tcp = option + OPTION;

	packet[0] = 0x60;
	packet[7] = 64;
	inet_pton(AF_INET6, "fd06::2", packet + 8);
	inet_pton(AF_INET6, "fd08::2", packet + 24);
	option[0] = IPPROTO_TCP;
	option[2] = 0xc2; /* jumbo payload, RFC 2675 */
	option[3] = 4;
	put32(option + 4, HEADERS - 40 + PAYLOAD);
	tcp[1] = tcp[3] = 9;
	put32(tcp + 4, sequence);
	tcp[12] = 0x50; /* five words */
	tcp[13] = 0x10; /* ACK */
}

static void write_packet(int fd, uint32_t sequence)
{
	static uint8_t sent[sizeof(struct virtio_net_hdr) + HEADERS + PAYLOAD];
	const struct virtio_net_hdr device = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV6,
		.hdr_len = HEADERS,
		.gso_size = SEGMENT,
		.csum_start = HEADERS - 20,
		.csum_offset = 16,
	};

	memcpy(sent, &device, sizeof(device));
	write_headers(sent + sizeof(device), sequence);
	assert_int_equal(write(fd, sent, sizeof(sent)), sizeof(sent));
}

/* Linux 6.1 reads the length of the header from the sequence number. */
static const uint32_t sequences[] = {0x00000001, 0x40000001, 0x50000001, 0x80000001, 0xf0000001};

static void w4_a_guests_packet_over_64_kib_arrives_as_it_is_counted(void **state)
{
	const uint64_t packets = ARRAY_SIZE(sequences) * PAYLOAD / SEGMENT;
	int fd = open_guest();
	struct moment before = compare_look(), after;
	bool same;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sequences); i++)
		write_packet(fd, sequences[i]);
	after = compare_rest(&before);
	same = !compare_excess(&before, &after, CAPTURE_IN);
	compare_tell("a guest's large packets", &before, &after);
	close(fd);
	assert_true(same);
	assert_true(after.hooks[CAPTURE_IN].largest > 65536);
	assert_int_equal(after.counted.download_packets - before.counted.download_packets, packets);
	assert_int_equal(after.counted.download_bytes - before.counted.download_bytes,
			 packets * (SEGMENT + HEADERS - OPTION));
}

/* ---- packets of TCP's -----------------------------------------------------------------------------------
 */

static void send_large(const void *data, int end)
{
	(void)data;
	lab_tcp(end, 1, FIRST6, BYTES);
	lab_tcp(1, end, CONTAINER6, BYTES / 2);
}

static void w4_tcp_over_64_kib(void **state)
{
	bool same = true, large = false;

	(void)state;
	lab_allow_large(true);
	/* How large they become is the sender's window's choice. */
	for (int i = 0; i < 4 && same && !large; i++) {
		same = compare_traffic("large packets", send_large, NULL, CONTAINER);
		large = compare_look().hooks[CAPTURE_IN].largest > 65536;
	}
	lab_allow_large(false);
	assert_true(same);
	print_message("# over 64 KiB: %s\n", large ? "yes" : "none came up");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w4_a_guests_packet_over_64_kib_arrives_as_it_is_counted,
						compare_setup, compare_teardown),
		cmocka_unit_test_setup_teardown(w4_tcp_over_64_kib, compare_setup, compare_teardown),
	};

	if (lab_make() || lab_make_container()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
