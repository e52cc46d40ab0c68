// SPDX-License-Identifier: BSD-2-Clause
/* A TUN device whose packets come with the header of a virtual network. See guest.h. */
#include "guest.h"

#include "lab.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define UDP_HEADER 8
#define TCP_HEADER 20

int guest_open(int place)
{
	struct ifreq request = {.ifr_name = "guest", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int fd;

	lab_enter(place);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	lab_enter(GATEWAY);
	assert_int_equal(
		lab_run(place, "sh -ec 'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; "
			       "ip link set guest up addrgenmode none; "
			       "ip addr add 10.6.0.1/24 dev guest; ip addr add fd06::1/64 dev guest nodad'"),
		0);
	return fd;
}

/* The sum of 16-bit words that checksums are made of. */
static uint32_t sum_of(const uint8_t *bytes, size_t size)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	return sum;
}

static uint16_t folded(uint32_t sum)
{
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void put16(uint8_t *to, uint16_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

/* Returns the sum of what a checksum takes from the header: both addresses. */
static uint32_t write_ip4_header(uint8_t *header, const struct guest_aggregate *aggregate, size_t size)
{
	header[0] = 0x45;
	put16(header + 2, (uint16_t)(20 + size));
	put16(header + 6, aggregate->fragment);
	header[8] = 64;
	header[9] = aggregate->udp ? IPPROTO_UDP : IPPROTO_TCP;
	assert_int_equal(inet_pton(AF_INET, GUEST4, header + 12), 1);
	assert_int_equal(inet_pton(AF_INET, aggregate->to, header + 16), 1);
	put16(header + 10, (uint16_t)~folded(sum_of(header, 20)));
	return sum_of(header + 12, 8);
}

static uint32_t write_ip6_header(uint8_t *header, const struct guest_aggregate *aggregate, size_t size)
{
	header[0] = 0x60;
	put16(header + 4, (uint16_t)size);
	header[6] = aggregate->udp ? IPPROTO_UDP : IPPROTO_TCP;
	header[7] = 64;
	assert_int_equal(inet_pton(AF_INET6, GUEST6, header + 8), 1);
	assert_int_equal(inet_pton(AF_INET6, aggregate->to, header + 24), 1);
	return sum_of(header + 8, 32);
}

/* Each goes on where the one before ended, so that what it is cut into can be put together again. */
static void write_transport_header(uint8_t *header, const struct guest_aggregate *aggregate, size_t size,
				   uint32_t addresses)
{
	static uint32_t sequence;
	const uint16_t sum =
		folded(addresses + (aggregate->udp ? IPPROTO_UDP : IPPROTO_TCP) + (uint32_t)size);

	put16(header, 9);
	put16(header + 2, 9);
	if (aggregate->udp) {
		put16(header + 4, (uint16_t)size);
		put16(header + 6, sum);
	} else {
		put16(header + 4, (uint16_t)(sequence >> 16));
		put16(header + 6, (uint16_t)sequence);
		header[12] = TCP_HEADER / 4 << 4;
		header[13] = 0x10; /* ACK */
		put16(header + 14, 0xffff);
		put16(header + 16, sum);
		sequence += (uint32_t)aggregate->payload;
	}
}

void guest_write(int fd, const struct guest_aggregate *aggregate)
{
	static uint8_t sent[sizeof(struct virtio_net_hdr) + 60 + GUEST_LARGE];
	const bool ipv6 = strchr(aggregate->to, ':') != NULL;
	const size_t ip = ipv6 ? 40 : 20, transport = aggregate->udp ? UDP_HEADER : TCP_HEADER,
		     size = transport + aggregate->payload;
	const struct virtio_net_hdr device = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = aggregate->udp ? VIRTIO_NET_HDR_GSO_UDP
			    : ipv6         ? VIRTIO_NET_HDR_GSO_TCPV6
					   : VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = (uint16_t)(ip + transport),
		.gso_size = aggregate->segment,
		.csum_start = (uint16_t)ip,
		.csum_offset = aggregate->udp ? 6 : 16,
	};
	uint8_t *packet = sent + sizeof(device);
	uint32_t addresses;

	assert_true(aggregate->payload <= GUEST_LARGE);
	memset(packet, 0, ip + transport);
	memcpy(sent, &device, sizeof(device));
	addresses =
		ipv6 ? write_ip6_header(packet, aggregate, size) : write_ip4_header(packet, aggregate, size);
	write_transport_header(packet + ip, aggregate, size, addresses);
	assert_int_equal(write(fd, sent, sizeof(device) + ip + size), sizeof(device) + ip + size);
}
