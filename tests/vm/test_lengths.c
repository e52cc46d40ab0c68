// SPDX-License-Identifier: BSD-2-Clause
/*
 * Aggregates that carry more than TCP or UDP: tunnels within the tunnel, SCTP, what a guest makes. What the
 * meter has counted of them, byte by byte and packet by packet, is what a capture in the customer's namespace
 * has seen, where no device makes aggregates. In the virtual machine only.
 */
#include "capture.h"
#include "lab.h"
#include "probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TRIES    3 /* packets may be lost on the way */
#define PATIENCE 60
#define LOOK_MS  50
#define QUIET_MS 300
#define LOST_MS  3000 /* a difference that stays for so long will not go */
#define IPV4     1
#define IPV6     2
#define BOTH     (IPV4 | IPV6)
#define AMOUNT   100000

/*
 * A kind of tunnel, made at both of its ends: $L4 and $L6 are the end's own addresses, $R4 and $R6 the
 * other's, $T is the device to make and $N a number of it; $U4 and $V4 are both ends' addresses in a device
 * between. `within` is what it can carry.
 */
struct kind {
	const char *name, *make;
	int within;
};

static const struct kind kinds[] = {
	{"ipip", "ip link add $T type ipip local $L4 remote $R4", IPV4},
	{"sit", "ip link add $T type sit local $L4 remote $R4", IPV6},
	{"ip6tnl", "ip link add $T type ip6tnl mode any local $L6 remote $R6 encaplimit none", BOTH},
	{"ip6tnl with a limit", "ip link add $T type ip6tnl mode any local $L6 remote $R6", BOTH},
	{"gre", "ip link add $T type gre local $L4 remote $R4", BOTH},
	{"gre with a key", "ip link add $T type gre local $L4 remote $R4 key 7", BOTH},
	{"gre with a checksum", "ip link add $T type gre local $L4 remote $R4 csum", BOTH},
	{"gretap", "ip link add $T type gretap local $L4 remote $R4", BOTH},
	{"ip6gre", "ip link add $T type ip6gre local $L6 remote $R6 encaplimit none", BOTH},
	{"ip6gretap", "ip link add $T type ip6gretap local $L6 remote $R6 encaplimit none", BOTH},
};

static uint64_t scale = 1; /* more with FULL=1 */
static struct meter *meter;
static struct capture *customer;
static struct probe ingress, egress;

/* All views of one moment. */
struct moment {
	struct capture_totals seen;
	struct meter_totals counted;
	struct meter_interface_totals interface;
	struct probe_totals hooks[CAPTURE_DIRECTIONS]; /* an aggregate is one packet there */
};

static struct moment look(void)
{
	struct moment moment = {.seen = capture_read(customer)};

	meter_read(meter, 1, &moment.counted);
	meter_read_interface(meter, &moment.interface);
	moment.hooks[CAPTURE_IN] = probe_read(&egress);
	moment.hooks[CAPTURE_OUT] = probe_read(&ingress);
	return moment;
}

static int64_t excess(const struct moment *before, const struct moment *after, enum capture_direction way)
{
	uint64_t seen = after->seen.bytes[way] - before->seen.bytes[way];

	if (way == CAPTURE_OUT)
		return (int64_t)(after->counted.upload_bytes - before->counted.upload_bytes - seen);
	return (int64_t)(after->counted.download_bytes - before->counted.download_bytes - seen);
}

/* Whether both come to say the same of what was since then, and stay so while nothing more comes. */
static bool settles(const struct moment *before, struct moment *after)
{
	uint64_t packets = 0;

	for (int i = 0, quiet = 0; i < PATIENCE * (1000 / LOOK_MS) && quiet < LOST_MS; i++) {
		uint64_t seen;

		*after = look();
		seen = after->seen.packets[CAPTURE_IN] + after->seen.packets[CAPTURE_OUT];
		quiet = seen == packets ? quiet + LOOK_MS : 0;
		packets = seen;
		if (quiet >= QUIET_MS && !excess(before, after, CAPTURE_IN) &&
		    !excess(before, after, CAPTURE_OUT))
			return true;
		usleep(LOOK_MS * 1000);
	}
	return false;
}

static void tell(const char *name, const struct moment *before, const struct moment *after)
{
	static const char *const ways[CAPTURE_DIRECTIONS] = {[CAPTURE_IN] = "down", [CAPTURE_OUT] = "up"};

	print_message("# %s:", name);
	for (int way = 0; way < CAPTURE_DIRECTIONS; way++) {
		uint64_t bytes = after->seen.bytes[way] - before->seen.bytes[way];
		int64_t wrong = excess(before, after, way);

		print_message(" %s %" PRIu64 " bytes, %+" PRId64 " (%+.2f %%), %" PRIu64
			      " packets in %" PRIu64 " of up to %" PRIu64 ";",
			      ways[way], bytes, wrong, bytes ? 100.0 * (double)wrong / (double)bytes : 0,
			      after->seen.packets[way] - before->seen.packets[way],
			      after->hooks[way].packets - before->hooks[way].packets,
			      after->hooks[way].largest);
	}
	print_message(" unparsed %" PRIu64 "\n",
		      after->interface.unparsed_packets - before->interface.unparsed_packets);
}

static void assert_same(const struct moment *before, const struct moment *after)
{
	assert_int_equal(after->seen.lost, 0);
	assert_int_equal(after->seen.odd, 0);
	assert_true(after->seen.largest[CAPTURE_IN] <= LAB_MTU &&
		    after->seen.largest[CAPTURE_OUT] <= LAB_MTU);
	assert_int_equal(after->counted.download_packets - before->counted.download_packets,
			 after->seen.packets[CAPTURE_IN] - before->seen.packets[CAPTURE_IN]);
	assert_int_equal(after->counted.upload_packets - before->counted.upload_packets,
			 after->seen.packets[CAPTURE_OUT] - before->seen.packets[CAPTURE_OUT]);
	assert_int_equal(after->interface.unparsed_packets, before->interface.unparsed_packets);
}

/* Traffic that is compared: whether all was the same, down to packets. Told on a line. */
static bool compare(const char *name, void (*send)(const void *data, int end), const void *data, int end)
{
	struct moment before, after;
	bool same = false;

	for (int tries = 0; tries < TRIES && !same; tries++) {
		before = look();
		send(data, end);
		same = settles(&before, &after);
		tell(name, &before, &after);
	}
	if (same)
		assert_same(&before, &after);
	/* There were aggregates: else it would have shown nothing. (What comes up is put together as it may.)
	 */
	assert_true(after.hooks[CAPTURE_IN].packets - before.hooks[CAPTURE_IN].packets <
		    after.seen.packets[CAPTURE_IN] - before.seen.packets[CAPTURE_IN]);
	return same;
}

/* ---- tunnels within the tunnel --------------------------------------------------------------------------
 */

/* One end of a tunnel; 0 or another status. `number` is that of the end within: 1 is the customer's. */
static int make_end(const struct kind *kind, int place, int other, int number)
{
	static const char *const addresses[] = {
		[GATEWAY] = "10.8.0.1 fd08::1",
		[1] = "10.8.0.2 fd08::2",
		[CONTAINER] = "10.7.0.2 fd07::2",
	};
	return lab_run(place,
		       "sh -ec 'N=%1$d T=t%1$d; set -- %2$s %3$s; L4=$1 L6=$2 R4=$3 R6=$4; "
		       "U4=172.17.$N.%4$d V4=172.17.$N.%5$d; %6$s; ip link set $T up mtu 1300; "
		       "ip addr add 172.16.$N.%4$d/30 dev $T; ip addr add fd16:$N::%4$d/64 dev $T nodad'",
		       place == 1 ? other : place, addresses[place], addresses[other], number, 3 - number,
		       kind->make);
}

static void remove_end(int place, int end)
{
	lab_run(place, "sh -c 'ip link del t%1$d; ip link del u%1$d' 2>/dev/null", end);
}

/* Between the customer and an end, whose number is in the names of its devices and addresses. */
static void make_tunnel(const struct kind *kind, int end)
{
	if (make_end(kind, 1, end, 1) || make_end(kind, end, 1, 2))
		fail_msg("%s cannot be made", kind->name);
}

static void remove_tunnel(int end)
{
	remove_end(1, end);
	remove_end(end, end);
}

/* An address in that tunnel; of the last two calls. */
static const char *within(int end, int version, int number)
{
	static char text[2][48];

	snprintf(text[number - 1], sizeof(text[0]), version == IPV4 ? "::ffff:172.16.%d.%d" : "fd16:%d::%d",
		 end, number);
	return text[number - 1];
}

static void send_through(const void *data, int end)
{
	const struct kind *kind = data;

	for (int version = IPV4; version <= IPV6; version++) {
		if (!(kind->within & version))
			continue;
		lab_tcp(end, 1, within(end, version, 1), AMOUNT * scale);
		lab_tcp(1, end, within(end, version, 2), AMOUNT * scale);
	}
}

static void tunnels_to(int end)
{
	int wrong = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		make_tunnel(&kinds[i], end);
		wrong += !compare(kinds[i].name, send_through, &kinds[i], end);
		remove_tunnel(end);
	}
	assert_int_equal(wrong, 0);
}

static void w1_tunnels_that_end_on_the_gateway(void **state)
{
	(void)state;
	tunnels_to(GATEWAY);
}

/* ---- SCTP -----------------------------------------------------------------------------------------------
 */

static void send_sctp(const void *data, int end)
{
	(void)data;
	lab_sctp(end, 1, FIRST4, 2 * AMOUNT * scale);
	lab_sctp(1, end, end == GATEWAY ? GATEWAY6 : CONTAINER6, 2 * AMOUNT * scale);
}

static void w3_sctp(void **state)
{
	(void)state;
	assert_true(compare("sctp", send_sctp, NULL, GATEWAY));
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
};

static void write_ip_header(uint8_t *packet, const struct aggregate *aggregate, size_t size)
{
	uint16_t words[10] = {htons(0x4500), htons((uint16_t)size), 0, htons(aggregate->fragment),
			      htons(0x4006)};
	uint32_t sum = 0;

	inet_pton(AF_INET, "10.6.0.2", &words[6]);
	inet_pton(AF_INET, "10.8.0.2", &words[8]);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		sum += words[i];
	words[5] = (uint16_t) ~(sum % 0xffff);
	memcpy(packet, words, sizeof(words));
}

static void write_aggregate(const struct aggregate *aggregate)
{
	const size_t header = 40, size = header + aggregate->payload;
	struct virtio_net_hdr device = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = (uint16_t)header,
		.gso_size = aggregate->segment,
		.csum_start = 20,
		.csum_offset = 16,
	};
	uint8_t sent[sizeof(device) + 40 + 10000] = {0}, *packet = sent + sizeof(device);

	memcpy(sent, &device, sizeof(device));
	write_ip_header(packet, aggregate, size);
	packet[21] = packet[23] = 9; /* both ports */
	packet[32] = 0x50;           /* a header of five words */
	packet[33] = 0x10;           /* ACK */
	assert_int_equal(write(aggregate->fd, sent, sizeof(device) + size), sizeof(device) + size);
}

static void send_fragment_bits(const void *data, int end)
{
	static const uint16_t bits[] = {0, 0x4000, 0x2000, 0x0001, 0x2100, 0x1fff};
	const int *fd = data;

	(void)end;
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		for (uint16_t segment = 200; segment < 1400; segment += 371)
			write_aggregate(&(struct aggregate){*fd, 7001, segment, bits[i]});
}

static void w7_a_guests_segments_with_fragment_bits(void **state)
{
	int fd = open_guest();
	bool same = compare("fragment bits", send_fragment_bits, &fd, GATEWAY);

	(void)state;
	close(fd);
	assert_true(same);
}

static int setup(void **state)
{
	(void)state;
	meter = lab_attach();
	ingress = probe_attach(lab_ifindex(GATEWAY, LAB_DEVICE), false);
	egress = probe_attach(lab_ifindex(GATEWAY, LAB_DEVICE), true);
	customer = capture_start(1, "wgc");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	capture_stop(customer);
	probe_close(&ingress);
	probe_close(&egress);
	/* The probes' filters go with it. */
	return meter_remove(meter) || lab_run(GATEWAY, "tc qdisc del dev " LAB_DEVICE " clsact");
}

/* Large aggregates, however slow the machine is. */
static int prepare(void)
{
	static const char command[] = "sysctl -qw net.ipv4.tcp_tso_rtt_log=25";

	return lab_run(GATEWAY, command) || lab_run(1, command) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w7_a_guests_segments_with_fragment_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(w1_tunnels_that_end_on_the_gateway, setup, teardown),
		cmocka_unit_test_setup_teardown(w3_sctp, setup, teardown),
	};
	const char *full = getenv("FULL");

	if (full && strcmp(full, "1") == 0)
		scale = 5;
	if (lab_make() || prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
