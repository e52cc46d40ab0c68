// SPDX-License-Identifier: BSD-2-Clause
/*
 * Where the meter stands: XDP on a TUN device whose other end is this program, against the device's own
 * counters; and what other programs and filters can, and cannot, do before it. Runs in namespaces of its own;
 * needs root, iproute2, ethtool.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define FOLDER      "/run/bpf/meter"
#define PEER        5
#define MATCH_ALL   "protocol ip u32 match u32 0 0 classid 1:1"
#define TCX_INGRESS ((enum bpf_attach_type)46)
#define TCX_EGRESS  ((enum bpf_attach_type)47)

static int tun = -1;

static struct meter_options by(enum meter_attach how)
{
	return (struct meter_options){
		.pin_folder = FOLDER, .interface = "tun0", .attach = how, .capacity = 64};
}

static struct meter *attach(enum meter_attach how)
{
	const struct meter_options options = by(how);
	static const char *const prefixes[] = {"10.9.0.2/32", "fd09::2/128"};
	struct meter *meter = NULL;
	struct cidr prefix;

	assert_int_equal(meter_attach(&options, &meter), 0);
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		assert_int_equal(cidr_parse(prefixes[i], &prefix), 0);
		assert_int_equal(meter_set_prefix(meter, &prefix, PEER, 1), 0);
	}
	return meter;
}

static void refuse(enum meter_attach how, int error)
{
	const struct meter_options options = by(how);
	struct meter *meter = NULL;

	assert_int_equal(meter_attach(&options, &meter), error);
	assert_null(meter);
	assert_int_not_equal(access(FOLDER, F_OK), 0);
}

static void remove_all(struct meter *meter)
{
	assert_int_equal(meter_remove(meter), 0);
	assert_int_not_equal(access(FOLDER, F_OK), 0);
}

static void make_tun(short flags)
{
	struct ifreq request = {.ifr_name = "tun0", .ifr_flags = (short)(IFF_TUN | IFF_NO_PI | flags)};

	tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	assert_true(tun >= 0);
	assert_int_equal(ioctl(tun, TUNSETIFF, &request), 0);
	assert_int_equal(run("ip addr add 10.9.0.1/24 dev tun0 && ip addr add fd09::1/64 dev tun0 nodad && "
			     "ip link set tun0 up mtu 1420"),
			 0);
}

static int setup(void **state)
{
	(void)state;
	make_tun(0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(tun);
	tun = -1;
	return access(FOLDER, F_OK) ? 0 : -1;
}

static uint64_t statistic(const char *name)
{
	unsigned long long value = 0;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/net/tun0/statistics/%s", name);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%llu", &value), 1);
	fclose(file);
	return value;
}

/* Packets of all lengths from the peer, of both versions, and one that is no IP packet. */
static void write_packets(int count)
{
	static uint8_t four[1400] = {0x45, [9] = 17, [12] = 10, 9, 0, 2, 10, 9, 0, 1};
	static uint8_t six[1400] = {0x60, [6] = 17, [8] = 0xfd, 9, [23] = 2, 0xfd, 9, [39] = 1};

	for (int i = 0; i < count; i++) {
		size_t size = 60 + (size_t)(i * 7) % 1300;

		four[2] = (uint8_t)(size >> 8);
		four[3] = (uint8_t)size;
		six[4] = (uint8_t)((size - 40) >> 8);
		six[5] = (uint8_t)(size - 40);
		assert_int_equal(write(tun, four, size), size);
		assert_int_equal(write(tun, six, size), size);
	}
}

/* Sends to the peer and takes off the device what comes; returns the bytes that did. */
static uint64_t send_packets(int count)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	static const char payload[1200];
	char packet[2048];
	uint64_t bytes = 0;
	ssize_t got;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(inet_pton(AF_INET, "10.9.0.2", &to.sin_addr), 1);
	for (int i = 0; i < count; i++) {
		assert_true(sendto(fd, payload, 1 + (size_t)(i * 11) % sizeof(payload), 0,
				   (struct sockaddr *)&to, sizeof(to)) > 0);
		while ((got = read(tun, packet, sizeof(packet))) > 0)
			bytes += (uint64_t)got;
	}
	close(fd);
	return bytes;
}

static struct meter_totals totals_of(const struct meter *meter)
{
	struct meter_totals totals;

	meter_read(meter, PEER, &totals);
	return totals;
}

static void xdp_refuses_where_there_may_be_aggregates(void **state)
{
	(void)state;
	assert_int_equal(run("ethtool -K tun0 gro on"), 0);
	refuse(METER_ATTACH_XDP, -EOPNOTSUPP);
	close(tun);
	/* Its owner may write aggregates, whatever the kernel does. */
	make_tun(IFF_VNET_HDR);
	assert_int_equal(run("ethtool -K tun0 gro off"), 0);
	refuse(METER_ATTACH_XDP, -EOPNOTSUPP);
}

static void xdp_counts_as_the_device_does(void **state)
{
	const struct meter_options options = by(METER_ATTACH_AUTO);
	struct meter_interface_totals all;
	struct meter_totals totals;
	uint64_t received, sent;
	struct meter *meter;

	(void)state;
	assert_int_equal(run("ethtool -K tun0 gro off"), 0);
	meter = attach(METER_ATTACH_XDP);
	assert_string_equal(meter_attachment(meter), "xdp");
	assert_int_equal(meter_is_shadowed(meter), 0);
	received = statistic("rx_bytes");
	write_packets(500);
	sent = send_packets(500);
	meter_close(meter);
	/* With nobody there, and after an adoption, which asks for nothing but what is there. */
	write_packets(500);
	assert_int_equal(meter_adopt(&options, &meter), 0);
	assert_string_equal(meter_attachment(meter), "xdp");
	totals = totals_of(meter);
	assert_int_equal(totals.upload_bytes, statistic("rx_bytes") - received);
	assert_int_equal(totals.upload_packets, 2000);
	assert_int_equal(totals.download_bytes, sent);
	assert_int_equal(totals.download_packets, 500);
	assert_int_equal(sent, statistic("tx_bytes"));
	/* What is no whole header is counted, for nobody. */
	assert_int_equal(write(tun, "\x45\0\0\x15", 4), 4);
	meter_read(meter, WT_SLOT_UNATTRIBUTED, &totals);
	assert_int_equal(totals.upload_bytes, 4);
	meter_read_interface(meter, &all);
	assert_int_equal(all.unparsed_packets, 1);
	assert_int_equal(run("ethtool -K tun0 gro on"), 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	remove_all(meter);
	assert_int_not_equal(run("ip link show dev tun0 | grep -q xdp"), 0);
}

static void xdp_obeys_a_limit(void **state)
{
	const struct meter_grant grant = {1, 1, 1000000, WT_UPLOADS};
	struct meter_totals totals;
	struct meter *meter;

	(void)state;
	assert_int_equal(run("ethtool -K tun0 gro off"), 0);
	meter = attach(METER_ATTACH_XDP);
	assert_int_equal(meter_grant_peer(meter, PEER, &grant), 0);
	write_packets(2000);
	totals = totals_of(meter);
	assert_true(totals.upload_bytes > 0 && totals.upload_bytes <= 1000000);
	assert_true(totals.refused_bytes > 0);
	assert_int_equal(totals.upload_bytes + totals.refused_bytes, statistic("rx_bytes"));
	assert_int_equal(send_packets(10), 0);
	remove_all(meter);
}

static int load_stranger(enum bpf_prog_type type, int verdict)
{
	const struct bpf_insn instructions[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = verdict},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(type, "stranger", "GPL", instructions, 2, NULL);

	assert_true(fd >= 0);
	return fd;
}

static void xdp_keeps_others_in_their_place(void **state)
{
	LIBBPF_OPTS(bpf_link_create_opts, generic, .flags = XDP_FLAGS_SKB_MODE);
	int program = load_stranger(BPF_PROG_TYPE_XDP, XDP_PASS), link;

	(void)state;
	assert_int_equal(run("ethtool -K tun0 gro off"), 0);
	link = bpf_link_create(program, (int)if_nametoindex("tun0"), BPF_XDP, &generic);
	assert_true(link >= 0);
	refuse(METER_ATTACH_XDP, -EBUSY);
	close(link);
	close(program);
}

/* Puts a program that drops all before the meter, by XDP; the meter says so. */
static void drop_before(const struct meter *meter)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_SKB_MODE);
	int program = load_stranger(BPF_PROG_TYPE_XDP, XDP_DROP), link;
	struct meter_totals before = totals_of(meter), after;

	assert_int_equal(meter_is_shadowed(meter), 0);
	link = bpf_link_create(program, (int)if_nametoindex("tun0"), BPF_XDP, &options);
	assert_true(link >= 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	/* Which is no idle word: */
	write_packets(10);
	after = totals_of(meter);
	assert_int_equal(after.upload_packets, before.upload_packets);
	close(link);
	assert_int_equal(meter_is_shadowed(meter), 0);
	/* The older way to attach one, by netlink. */
	assert_int_equal(bpf_xdp_attach((int)if_nametoindex("tun0"), program, XDP_FLAGS_SKB_MODE, NULL), 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	assert_int_equal(bpf_xdp_detach((int)if_nametoindex("tun0"), XDP_FLAGS_SKB_MODE, NULL), 0);
	assert_int_equal(meter_is_shadowed(meter), 0);
	close(program);
}

static void w8_sees_others_xdp_programs(void **state)
{
	static const enum meter_attach ways[] = {METER_ATTACH_AUTO, METER_ATTACH_TC};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct meter *meter = attach(ways[i]);

		drop_before(meter);
		remove_all(meter);
	}
}

/* A packet to the peer, with bytes behind it, by a packet socket; the bytes that the device sends. */
static uint64_t send_raw(bool bypass, size_t behind)
{
	uint8_t packet[1000] = {0x45, 0, 0, 100, [9] = 17, [12] = 10, 9, 0, 1, 10, 9, 0, 2};
	const struct sockaddr_ll to = {.sll_family = AF_PACKET,
				       .sll_protocol = htons(ETH_P_IP),
				       .sll_ifindex = (int)if_nametoindex("tun0")};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = bypass;
	uint64_t before = statistic("tx_bytes");

	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)), 0);
	assert_int_equal(sendto(fd, packet, 100 + behind, 0, (const struct sockaddr *)&to, sizeof(to)),
			 100 + behind);
	close(fd);
	assert_int_equal(read(tun, packet, sizeof(packet)), 100 + behind);
	return statistic("tx_bytes") - before;
}

/* As docs/meter.md says of root's packet sockets. */
static void w8_packet_sockets_are_counted_unless_they_go_round_the_hook(void **state)
{
	struct meter *meter = attach(METER_ATTACH_AUTO);

	(void)state;
	assert_int_equal(send_raw(false, 0), 100);
	assert_int_equal(totals_of(meter).download_bytes, 100);
	assert_int_equal(send_raw(false, 50), 150);
	assert_int_equal(totals_of(meter).download_bytes, 250);
	assert_int_equal(send_raw(true, 0), 100);
	assert_int_equal(totals_of(meter).download_bytes, 250);
	remove_all(meter);
}

static bool has_tcx(void)
{
	uint32_t count = 0;

	return bpf_prog_query((int)if_nametoindex("lo"), TCX_INGRESS, 0, NULL, NULL, &count) != -EINVAL;
}

/* Puts a program that ends the chain first; the meter says so, and that it is gone again. */
static void stand_before(const struct meter *meter, enum bpf_attach_type hook)
{
	LIBBPF_OPTS(bpf_link_create_opts, first, .flags = 1 << 3 /* BPF_F_BEFORE */);
	int program = load_stranger(BPF_PROG_TYPE_SCHED_CLS, 0 /* TC_ACT_OK */), link;
	struct meter_totals before = totals_of(meter), after;

	assert_int_equal(meter_is_shadowed(meter), 0);
	link = bpf_link_create(program, (int)if_nametoindex("tun0"), hook, &first);
	assert_true(link >= 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	/* Which is no idle word: */
	write_packets(10);
	assert_true(send_packets(10) > 0);
	after = totals_of(meter);
	assert_int_equal(after.upload_packets - before.upload_packets, hook == TCX_INGRESS ? 0 : 20);
	assert_int_equal(after.download_packets - before.download_packets, hook == TCX_EGRESS ? 0 : 10);
	close(link);
	close(program);
	assert_int_equal(meter_is_shadowed(meter), 0);
}

static void sees_tcx_programs_before_it(void **state)
{
	static const enum meter_attach ways[] = {METER_ATTACH_TCX, METER_ATTACH_TC};

	(void)state;
	if (!has_tcx())
		return; /* nobody can stand there: clsact's order is the next tests' */
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct meter *meter = attach(ways[i]);

		stand_before(meter, TCX_INGRESS);
		stand_before(meter, TCX_EGRESS);
		remove_all(meter);
	}
}

static void begin_clsact(void)
{
	assert_int_equal(run("tc qdisc add dev tun0 clsact"), 0);
}

/* A filter of the stranger's, pinned for tc's command line. */
static void pin_stranger(void)
{
	int program = load_stranger(BPF_PROG_TYPE_SCHED_CLS, 0 /* TC_ACT_OK */);

	assert_int_equal(bpf_obj_pin(program, "/run/bpf/stranger"), 0);
	close(program);
}

#define STRANGER "bpf direct-action object-pinned /run/bpf/stranger"

static void clsact_refuses_a_preference_that_is_taken(void **state)
{
	static const char *const places[] = {
		"ingress pref 1 handle 7 " STRANGER,
		"egress pref 65535 handle 7 " STRANGER,
		"ingress pref 1 " MATCH_ALL,
		"egress pref 65535 " MATCH_ALL,
	};

	(void)state;
	pin_stranger();
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		begin_clsact();
		assert_int_equal(run("tc filter add dev tun0 %s", places[i]), 0);
		refuse(METER_ATTACH_TC, -EBUSY);
		assert_int_equal(run("tc filter show dev tun0 ingress | grep -q meter"), 1);
		assert_int_equal(run("tc qdisc del dev tun0 clsact"), 0);
	}
	assert_int_equal(unlink("/run/bpf/stranger"), 0);
}

static void clsact_sees_filters_before_it(void **state)
{
	struct meter *meter = attach(METER_ATTACH_TC);
	struct meter_totals totals;

	(void)state;
	pin_stranger();
	assert_int_equal(meter_is_shadowed(meter), 0);
	/* After it on ingress: of any kind and preference. */
	assert_int_equal(run("tc filter add dev tun0 ingress pref 2 " MATCH_ALL), 0);
	assert_int_equal(run("tc filter add dev tun0 ingress chain 3 pref 1 " MATCH_ALL), 0);
	assert_int_equal(meter_is_shadowed(meter), 0);
	write_packets(10);
	assert_int_equal(totals_of(meter).upload_packets, 20);
	/* The same preference with another handle runs first, whatever the handles are. */
	assert_int_equal(run("tc filter add dev tun0 ingress pref 1 handle 9 " STRANGER), 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	write_packets(10);
	totals = totals_of(meter);
	assert_int_equal(totals.upload_packets, 20);
	assert_int_equal(run("tc filter del dev tun0 ingress pref 1 handle 9 bpf"), 0);
	assert_int_equal(meter_is_shadowed(meter), 0);
	/* On egress the meter is last: all are before it. */
	assert_int_equal(run("tc filter add dev tun0 egress pref 65534 " STRANGER), 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	assert_true(send_packets(10) > 0);
	assert_int_equal(totals_of(meter).download_packets, 0);
	assert_int_equal(run("tc filter del dev tun0 egress pref 65534"), 0);
	assert_int_equal(meter_is_shadowed(meter), 0);
	assert_true(send_packets(10) > 0);
	assert_int_equal(totals_of(meter).download_packets, 10);
	remove_all(meter);
	/* The others' filters are as they were. */
	assert_int_equal(run("tc filter show dev tun0 ingress | grep -q 'pref 2 u32'"), 0);
	assert_int_equal(unlink("/run/bpf/stranger"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(xdp_refuses_where_there_may_be_aggregates, setup, teardown),
		cmocka_unit_test_setup_teardown(xdp_counts_as_the_device_does, setup, teardown),
		cmocka_unit_test_setup_teardown(xdp_obeys_a_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(xdp_keeps_others_in_their_place, setup, teardown),
		cmocka_unit_test_setup_teardown(w8_sees_others_xdp_programs, setup, teardown),
		cmocka_unit_test_setup_teardown(w8_packet_sockets_are_counted_unless_they_go_round_the_hook,
						setup, teardown),
		cmocka_unit_test_setup_teardown(sees_tcx_programs_before_it, setup, teardown),
		cmocka_unit_test_setup_teardown(clsact_refuses_a_preference_that_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(clsact_sees_filters_before_it, setup, teardown),
	};

	if (namespace_enter() || mount("sysfs", "/sys", "sysfs", 0, NULL) || mkdir("/run/bpf", 0700) ||
	    mount("bpf", "/run/bpf", "bpf", 0, "mode=0700")) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
