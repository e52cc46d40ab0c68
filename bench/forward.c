// SPDX-License-Identifier: BSD-2-Clause
/*
 * What forwarding costs with and without each way to count. Live frames enter at a veth, are routed and leave
 * through a layer 3 TUN that nobody reads, so that no more than the network stack is measured. Programs are
 * taken from a meter on idle devices of the same kinds and attached in turn.
 */
#include "bench.h"

#include "driver.skel.h"
#include "naive.skel.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ETHERNET   14
#define TURN       8192 /* packets that are timed at once */
#define MOST_WARM  16384
#define MOST_RULES 1000
#define RING       1024 /* packets that the TUN may hold before it drops */
#define COMPARED   4    /* turns of a block: A B B A */
#define BLOCKS     8    /* for each round of the rest */

enum variant {
	NOTHING,
	EMPTY,
	METER,
	NAIVE,
	SET,
	RULES,
	EMPTY_BOTH,
	METER_BOTH,
	UPLOADS,
	UPLOADS_XDP,
	VARIANTS
};

enum hook { EGRESS, INGRESS, XDP, HOOKS };

static const struct {
	const char *interface;
	unsigned hook;
} hooks[HOOKS] = {{"out", TCX_EGRESS}, {"in", TCX_INGRESS}, {"in", BPF_XDP}};

#define ATTACHED (RULES + 1) /* variants that are attached anew for each turn */

static const char *const names[ATTACHED] = {"nothing", "empty", "meter", "naive", "nft-set", "nft-rules"};

struct road {
	struct driver_bpf *driver;
	int programs[HOOKS][VARIANTS]; /* 0: none */
	uint64_t walked[VARIANTS];     /* packets, each to the next of the addresses */
	uint8_t frame[ETHERNET + RIG_PACKET];
	uint32_t warm; /* packets that bring a program's memory into the caches before a turn */
};

static int make_tun(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		fail("cannot make the TUN device %s", name);
	return fd;
}

/* Frames can only be sent in by a veth that polls, which it does with GRO on. Reads its address, too. */
static void prepare_veth(const char *name, uint8_t ret_address[static 6])
{
	struct ethtool_value gro = {.cmd = ETHTOOL_SGRO, .data = 1};
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	request.ifr_data = (char *)&gro;
	if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request))
		fail("cannot switch GRO on");
	if (ioctl(fd, SIOCGIFHWADDR, &request))
		fail("cannot read the address of %s", name);
	memcpy(ret_address, request.ifr_hwaddr.sa_data, 6);
	close(fd);
}

static void make_network(struct road *road)
{
	shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 "
	      "net.ipv4.conf.default.rp_filter=0 "
	      "net.ipv6.conf.default.disable_ipv6=1");
	shell("ip link add in type veth peer name far && ip link set in up && ip link set far up && "
	      "ip addr add 192.0.2.1/24 dev in && ip link add idle-in type veth peer name idle-far && "
	      "ethtool -K idle-far gro off");
	/* The devices stay until the process ends. */
	make_tun("out");
	make_tun("idle-out");
	shell("ip link set out up && ip route add 10.64.0.0/12 dev out");
	prepare_veth("in", road->frame);
	road->frame[12] = 0x08;
	road->frame[ETHERNET] = 0x45;
	road->frame[ETHERNET + 3] = RIG_PACKET;
	road->frame[ETHERNET + 9] = 17;
	road->frame[ETHERNET + 21] = 9;
	road->frame[ETHERNET + 23] = 9;
	road->frame[ETHERNET + 25] = RIG_PACKET - 20;
}

static void make_tables(const struct bench_peers *peers)
{
	FILE *file = popen("nft -f -", "w");
	char text[CIDR_TEXT_SIZE];

	if (!file)
		fail("cannot run nft");
	fputs("table ip bench { set peers { type ipv4_addr; counter; elements = {", file);
	for (uint32_t i = 0; i < peers->count; i++)
		fprintf(file, "%s%s", i ? ", " : "", cidr_format_address(&peers->prefixes[i], text));
	fputs("}; }\nchain by_set { ip daddr @peers; }\nchain by_rule {\n", file);
	for (uint32_t i = 0; i < peers->count && peers->count <= MOST_RULES; i++)
		fprintf(file, "ip daddr %s counter\n", cidr_format_address(&peers->prefixes[i], text));
	fputs("}\n}\n", file);
	if (pclose(file))
		fail("nft does not take the tables");
}

/* Sends packets to the variant's next addresses; returns nanoseconds a packet. */
static double walk(struct road *road, enum variant variant, uint32_t packets)
{
	struct xdp_md context = {.data_end = sizeof(road->frame), .ingress_ifindex = if_nametoindex("in")};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = road->frame, .data_size_in = sizeof(road->frame),
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = (int)packets,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = 64);
	double begun;
	int r;

	road->driver->bss->cursors[0].next = road->walked[variant];
	begun = thread_time();
	r = bpf_prog_test_run_opts(bpf_program__fd(road->driver->progs.live4), &run);
	if (r < 0)
		fail("live frames are not sent: %s", strerror(-r));
	road->walked[variant] += packets;
	return (thread_time() - begun) / packets;
}

static double turn(struct road *road, enum variant variant)
{
	walk(road, variant, road->warm);
	return walk(road, variant, TURN);
}

/* Walks the variant's addresses to their end, so that what each peer must have been counted is known. */
static void finish(struct road *road, enum variant variant)
{
	uint32_t rest = (uint32_t)(-road->walked[variant] % BENCH_KEYS);

	if (rest > 0)
		walk(road, variant, rest);
}

static double turn_attached(struct road *road, enum variant variant, bool last)
{
	_cleanup_close_ int egress = -1;
	double value;

	if (variant == SET || variant == RULES)
		shell("nft 'add chain ip bench counting { type filter hook forward priority 0; }; "
		      "add rule ip bench counting jump %s'",
		      variant == SET ? "by_set" : "by_rule");
	if (road->programs[EGRESS][variant])
		egress = rig_attach(road->programs[EGRESS][variant], "out", TCX_EGRESS);
	value = turn(road, variant);
	if (last)
		finish(road, variant);
	if (variant == SET || variant == RULES)
		shell("nft 'flush chain ip bench counting; delete chain ip bench counting'");
	return value;
}

/* Against nothing attached, and beside nftables: attached and removed for each turn. */
static void measure_attached(struct road *road, const struct bench_peers *peers, uint32_t rounds)
{
	struct series series[ATTACHED] = {0};

	for (uint32_t round = 0; round <= rounds; round++)
		for (uint32_t i = 0; i < ATTACHED; i++) {
			uint32_t v = in_turn(round, i, ATTACHED);
			double value;

			if (v == RULES && peers->count > MOST_RULES)
				continue;
			value = turn_attached(road, v, round == rounds);
			if (round > 0)
				series_add(&series[v], value);
		}
	for (enum variant v = 0; v < ATTACHED; v++)
		if (series[v].count)
			series_print(&series[v], "ns", "forward/%u/%s", peers->count, names[v]);
}

/* A program that takes another's place does so without a pause for the hook. */
static void put(int *link, int program, enum hook hook)
{
	int r = 0;

	if (program == 0)
		cleanup_close(link), *link = -1;
	else if (*link < 0)
		*link = rig_attach(program, hooks[hook].interface, hooks[hook].hook);
	else
		r = bpf_link_update(*link, program, NULL);
	if (r < 0)
		fail("the program on a hook is not exchanged: %s", strerror(-r));
}

/* Two variants in blocks A B B A of short turns, so that a block is over before the machine's speed has
 * changed. */
static void measure_pair(struct road *road, const char *name, enum variant a, enum variant b,
			 const struct bench_peers *peers, uint32_t blocks)
{
	int links[HOOKS] = {-1, -1, -1};
	struct series series[2] = {0};

	for (uint32_t block = 0; block <= blocks; block++) {
		double sums[2] = {0};

		for (uint32_t i = 0; i < COMPARED; i++) {
			bool second = (i == 1 || i == 2) != (block & 1);
			enum variant v = second ? b : a;

			for (enum hook h = 0; h < HOOKS; h++)
				put(&links[h], road->programs[h][v], h);
			sums[second] += turn(road, v);
			if (block == blocks)
				finish(road, v);
		}
		for (int i = 0; i < 2 && block > 0; i++)
			series_add(&series[i], sums[i] / (COMPARED / 2));
	}
	for (enum hook h = 0; h < HOOKS; h++)
		cleanup_close(&links[h]);
	for (int i = 0; i < 2; i++)
		series_print(&series[i], "ns", "forward/%u/%s/%s", peers->count, name,
			     i ? "meter" : "without");
}

/* What left through the TUN, by its own count: it drops what nobody reads. */
static uint64_t left(void)
{
	unsigned long long dropped = 0;
	FILE *file = fopen("/sys/class/net/out/statistics/tx_dropped", "r");

	if (!file || fscanf(file, "%llu", &dropped) != 1)
		fail("cannot read what has left");
	fclose(file);
	return dropped;
}

static uint64_t uploads_of(const struct meter *meter, const struct bench_peers *peers)
{
	uint64_t uploads = 0;

	for (uint32_t slot = 1; slot <= peers->count; slot++) {
		struct meter_totals totals;

		meter_read(meter, slot, &totals);
		uploads += totals.upload_packets;
	}
	return uploads;
}

static void check(const struct road *road, const struct bench_peers *peers, const struct meter *out,
		  const struct meter *in, const struct meter *in_xdp)
{
	uint64_t sent = 0;

	for (enum variant v = 0; v < VARIANTS; v++)
		sent += road->walked[v];
	if (left() > sent || left() + RING < sent)
		fail("%llu packets sent, %llu forwarded", (unsigned long long)sent,
		     (unsigned long long)left());
	peers_check(peers, out, (road->walked[METER] + road->walked[METER_BOTH]) / BENCH_KEYS, RIG_PACKET);
	if (uploads_of(in, peers) != road->walked[METER_BOTH] + road->walked[UPLOADS] ||
	    uploads_of(in_xdp, peers) != road->walked[UPLOADS_XDP])
		fail("%llu uploads counted, %llu by XDP", (unsigned long long)uploads_of(in, peers),
		     (unsigned long long)uploads_of(in_xdp, peers));
}

void bench_forward(const struct bench_options *options)
{
	struct road road = {.driver = rig_driver()};
	struct bench_peers peers;
	struct naive_bpf *naive;
	struct meter *out, *in, *in_xdp;

	use_cpu(0);
	peers_make(&peers, options, road.driver);
	make_network(&road);
	make_tables(&peers);
	naive = rig_naive(&peers, 0);
	out = rig_meter("idle-out", &peers);
	in = rig_meter("idle-in", &peers);
	in_xdp = rig_meter_by(METER_ATTACH_XDP, "idle-far", &peers);
	rig_limit(out, true);
	road.programs[EGRESS][EMPTY] = bpf_program__fd(road.driver->progs.empty);
	road.programs[EGRESS][EMPTY_BOTH] = road.programs[EGRESS][EMPTY];
	road.programs[INGRESS][EMPTY_BOTH] = road.programs[EGRESS][EMPTY];
	road.programs[EGRESS][METER] = rig_attached("idle-out", TCX_EGRESS);
	road.programs[EGRESS][METER_BOTH] = road.programs[EGRESS][METER];
	road.programs[INGRESS][METER_BOTH] = rig_attached("idle-in", TCX_INGRESS);
	road.programs[INGRESS][UPLOADS] = road.programs[INGRESS][METER_BOTH];
	road.programs[XDP][UPLOADS_XDP] = rig_attached("idle-far", BPF_XDP);
	road.programs[EGRESS][NAIVE] = bpf_program__fd(naive->progs.naive);
	road.warm = 2 * peers.count > MOST_WARM ? MOST_WARM : 2048 + 2 * peers.count;
	measure_pair(&road, "hook", EMPTY, METER, &peers, options->rounds * BLOCKS);
	measure_pair(&road, "hooks", EMPTY_BOTH, METER_BOTH, &peers, options->rounds * BLOCKS);
	measure_pair(&road, "alone", NOTHING, METER, &peers, options->rounds * BLOCKS / 2);
	measure_pair(&road, "xdp", UPLOADS, UPLOADS_XDP, &peers, options->rounds * BLOCKS / 2);
	measure_attached(&road, &peers, options->rounds);
	check(&road, &peers, out, in, in_xdp);
	rig_remove(out);
	rig_remove(in);
	rig_remove(in_xdp);
	naive_bpf__destroy(naive);
	driver_bpf__destroy(road.driver);
	peers_free(&peers);
}
