// SPDX-License-Identifier: BSD-2-Clause
/*
 * Eight senders pinned on two CPUs, TCP and UDP, IPv4 and IPv6, in aggregates and in small packets, in both
 * directions at once: nothing is lost between them (T1). The oracle are the counters of the far end's device,
 * which sees every segment by itself: both devices segment before they send, so that aggregates are the
 * meter's side's alone, made by the senders' own stack on egress and by GRO on ingress; that there are some
 * is seen by nftables beside the meter. And the same flow costs the same with offloads and without (I3). Runs
 * in namespaces of its own; needs root, iproute2, ethtool, nftables.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define IN_FAR   "ip netns exec far "
#define NEAR_MAC "02:00:00:00:00:01"
#define FAR_MAC  "02:00:00:00:00:02"
#define SENDERS  8
#define CPUS     2
#define SECONDS  5
#define SEGMENT  1200
#define SEGMENTS 40
#define SMALL    64
#define BURSTS   60

enum kind { TCP, UDP_AGGREGATES, UDP_SMALL };

/* The address of a sender's peer, on the far side, goes by its number. */
static const struct flow {
	bool uploads;
	bool ipv6;
	enum kind kind;
} flows[SENDERS] = {
	{true, false, TCP},
	{false, true, TCP},
	{true, true, UDP_AGGREGATES},
	{false, false, UDP_AGGREGATES},
	{true, false, UDP_SMALL},
	{false, true, UDP_SMALL},
	{true, true, TCP},
	{false, false, TCP},
};

/*
 * Six of them are one peer's, so that both CPUs count for the same one; the downloads of datagrams are peers
 * of their own, since their senders know to the byte what they sent.
 */
#define SHARED_SLOT 1

static uint32_t slot_of(int number)
{
	return flows[number].uploads || flows[number].kind == TCP ? SHARED_SLOT : 2 + (uint32_t)number;
}

/* Written by the senders and receivers. */
static struct shared {
	bool stop;
	bool listening[SENDERS];
	uint64_t bytes[SENDERS], packets[SENDERS];
} * shared;

static const struct meter_options options = {
	.pin_folder = "/run/bpf/meter", .interface = "left", .capacity = 64};

/* ---- the network ---- */

static int make_network(void)
{
	if (run("ip netns add far && ip link add left address " NEAR_MAC
		" numtxqueues 2 numrxqueues 2 type veth peer name right address " FAR_MAC
		" numtxqueues 2 numrxqueues 2 netns far && "
		"ip addr add 10.7.0.1/24 dev left && ip addr add fd07::1/64 dev left nodad && "
		"ethtool -K left tso off gso off tx-udp-segmentation off gro on rx-udp-gro-forwarding on "
		">/dev/null && " IN_FAR
		"ethtool -K right tso off gso off tx-udp-segmentation off >/dev/null"))
		return -1;
	return run("for i in $(seq 10 17); do ip -n far addr add 10.7.0.$i/24 dev right || exit 1; done");
}

static void raise_network(bool up)
{
	const char *state = up ? "up" : "down";

	assert_int_equal(run("ip link set left %s && ip -n far link set right %s", state, state), 0);
	if (!up)
		return;
	/* Addresses of IPv6 and neighbours go with the link; nobody is to ask for neighbours at a peer's
	 * expense. */
	assert_int_equal(run("ip addr replace fd07::1/64 dev left nodad && for i in $(seq 10 17); do "
			     "ip -n far addr replace fd07::$i/64 dev right nodad && for address in 10.7.0.$i "
			     "fd07::$i; do "
			     "ip neigh replace $address lladdr " FAR_MAC
			     " dev left nud permanent || exit 1; done; done"),
			 0);
	assert_int_equal(
		run("for address in 10.7.0.1 fd07::1; do ip -n far neigh replace $address lladdr " NEAR_MAC
		    " dev right nud permanent || exit 1; done"),
		0);
}

/* Counts what passes beside the meter as it is there: in aggregates. */
static void count_skbs(void)
{
	assert_int_equal(
		run("nft 'add table netdev beside; delete table netdev beside; table netdev beside { "
		    "chain in { type filter hook ingress device left priority 0; counter; }; "
		    "chain out { type filter hook egress device left priority 0; counter; }; }'"),
		0);
}

static uint64_t skbs(const char *chain)
{
	unsigned long long value = 0;
	char command[128];
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "nft list chain netdev beside %s | sed -n 's/.*packets \\([0-9]*\\).*/\\1/p'", chain);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%llu", &value), 1);
	assert_int_equal(pclose(pipe), 0);
	return value;
}

static void enter_far(void)
{
	int fd = open("/run/netns/far", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		_exit(1);
	close(fd);
}

static uint64_t statistic(const char *in, const char *interface, const char *name)
{
	unsigned long long value = 0;
	char command[256];
	FILE *pipe;

	snprintf(command, sizeof(command), "%scat /sys/class/net/%s/statistics/%s", in, interface, name);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%llu", &value), 1);
	assert_int_equal(pclose(pipe), 0);
	return value;
}

/* What crossed the cable by the far end's own device. */
struct truth {
	uint64_t up_bytes, up_packets, down_bytes, down_packets;
	uint64_t lost; /* behind the meter, before the far end's device */
};

static struct truth far_truth(void)
{
	return (struct truth){
		.up_bytes = statistic(IN_FAR, "right", "tx_bytes"),
		.up_packets = statistic(IN_FAR, "right", "tx_packets"),
		.down_bytes = statistic(IN_FAR, "right", "rx_bytes"),
		.down_packets = statistic(IN_FAR, "right", "rx_packets"),
		.lost = statistic("", "left", "tx_dropped"),
	};
}

/* ---- senders and receivers ---- */

static void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		_exit(1);
}

/* An address as IPv6 sockets take it. */
static struct sockaddr_in6 address_of(bool ipv6, int host, int port)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	char text[64];

	snprintf(text, sizeof(text), ipv6 ? "fd07::%d" : "::ffff:10.7.0.%d", host);
	if (inet_pton(AF_INET6, text, &address.sin6_addr) != 1)
		_exit(1);
	return address;
}

/* A socket from the sender's side to the other. */
static int connect_flow(int number, int type)
{
	const struct flow *flow = &flows[number];
	struct sockaddr_in6 from = address_of(flow->ipv6, flow->uploads ? 10 + number : 1, 0);
	struct sockaddr_in6 to = address_of(flow->ipv6, flow->uploads ? 1 : 10 + number, 7000 + number);

	for (int i = 0; i < 3000; i++) {
		int fd = socket(AF_INET6, type, 0);

		if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) == 0 &&
		    connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0)
			return fd;
		close(fd);
		usleep(20000);
	}
	_exit(2);
}

static bool stopped(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_RELAXED);
}

static void send_tcp(int number)
{
	static const char buffer[65536];
	const unsigned rate = 25000000; /* bytes a second: in aggregates all the same */
	int fd = connect_flow(number, SOCK_STREAM);

	if (setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate)))
		_exit(3);
	while (!stopped())
		if (write(fd, buffer, sizeof(buffer)) < 0)
			_exit(4);
}

/* `count` datagrams of `size`, in one aggregate or one by one; a refused one has been sent all the same. */
static void send_datagrams(int fd, int size, int count, bool together)
{
	static const char buffer[SEGMENT * SEGMENTS];
	int segment = together ? size : 0;

	if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
		_exit(5);
	for (int sent = 0; sent < count;) {
		ssize_t r = send(fd, buffer, (size_t)(together ? size * count : size), 0);

		/* The error of an earlier datagram, that nobody listens; this one was not sent. */
		if (r < 0 && errno != ECONNREFUSED)
			_exit(6);
		if (r > 0)
			sent += together ? count : 1;
	}
}

static void send_udp(int number, int size, int count, bool together)
{
	int fd = connect_flow(number, SOCK_DGRAM);

	while (!stopped()) {
		send_datagrams(fd, size, count, together);
		shared->bytes[number] +=
			(uint64_t)count * (uint64_t)(size + 8 + (flows[number].ipv6 ? 40 : 20));
		shared->packets[number] += (uint64_t)count;
		usleep(1500);
	}
}

static pid_t start_sender(int number)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	use_cpu(number / 2 % CPUS);
	if (flows[number].uploads)
		enter_far();
	if (flows[number].kind == TCP)
		send_tcp(number);
	else if (flows[number].kind == UDP_AGGREGATES)
		send_udp(number, SEGMENT, SEGMENTS, true);
	else
		send_udp(number, SMALL, 60, false);
	_exit(0);
}

/* Takes whatever comes, so that nobody answers that nobody listens. */
static pid_t start_receiver(int number)
{
	static char buffer[65536];
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(7000 + number))};
	bool tcp = flows[number].kind == TCP;
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!flows[number].uploads)
		enter_far();
	fd = socket(AF_INET6, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) || (tcp && listen(fd, 1)))
		_exit(1);
	__atomic_store_n(&shared->listening[number], true, __ATOMIC_RELEASE);
	if (tcp)
		fd = accept(fd, NULL, NULL);
	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
	_exit(0);
}

static void await_receiver(int number)
{
	for (int i = 0; i < 6000 && !__atomic_load_n(&shared->listening[number], __ATOMIC_ACQUIRE); i++)
		usleep(10000);
	assert_true(__atomic_load_n(&shared->listening[number], __ATOMIC_ACQUIRE));
}

/* ---- what the meter says ---- */

static struct meter *attach(void)
{
	struct meter *meter = NULL;

	assert_int_equal(meter_attach(&options, &meter), 0);
	for (int i = 0; i < SENDERS; i++) {
		struct cidr cidr;
		char text[64];

		snprintf(text, sizeof(text), "10.7.0.%d/32", 10 + i);
		assert_int_equal(cidr_parse(text, &cidr), 0);
		assert_int_equal(meter_set_prefix(meter, &cidr, slot_of(i), 1), 0);
		snprintf(text, sizeof(text), "fd07::%d/128", 10 + i);
		assert_int_equal(cidr_parse(text, &cidr), 0);
		assert_int_equal(meter_set_prefix(meter, &cidr, slot_of(i), 1), 0);
	}
	return meter;
}

static struct meter_totals sum_of(const struct meter *meter)
{
	struct meter_totals sum = {0};

	for (uint32_t slot = 0; slot <= 1 + SENDERS; slot++) {
		struct meter_totals totals;

		meter_read(meter, slot, &totals);
		sum.upload_bytes += totals.upload_bytes;
		sum.upload_packets += totals.upload_packets;
		sum.download_bytes += totals.download_bytes;
		sum.download_packets += totals.download_packets;
		sum.refused_packets += totals.refused_packets;
	}
	return sum;
}

/* The device counts the Ethernet header, too, but not of what it hands over to GRO. */
static bool equals_far(const struct meter_totals *sum, const struct truth *before, const struct truth *now)
{
	uint64_t up = now->up_packets - before->up_packets, down = now->down_packets - before->down_packets;

	return sum->upload_packets == up && sum->upload_bytes == now->up_bytes - before->up_bytes &&
	       sum->download_packets == down &&
	       sum->download_bytes == now->down_bytes - before->down_bytes - 14 * down;
}

#define AGREE 5 /* times one after the other */

/* The last packets are still on their way for a moment: until both agree, stand still, and go on to agree. */
static struct meter_totals settle(const struct meter *meter, const struct truth *before,
				  struct truth *ret_now)
{
	struct meter_totals sum = {0}, last;
	int agreed = 0;

	for (int i = 0; i < 3000 && agreed < AGREE; i++) {
		last = sum;
		*ret_now = far_truth();
		sum = sum_of(meter);
		if (ret_now->lost != before->lost)
			break;
		agreed = equals_far(&sum, before, ret_now) && !memcmp(&sum, &last, sizeof(sum)) ? agreed + 1
												: 0;
		usleep(20000);
	}
	return sum;
}

static void assert_equals_far(const struct meter_totals *sum, const struct truth *before,
			      const struct truth *now)
{
	uint64_t down = now->down_packets - before->down_packets;

	assert_int_equal(sum->upload_packets, now->up_packets - before->up_packets);
	assert_int_equal(sum->upload_bytes, now->up_bytes - before->up_bytes);
	assert_int_equal(sum->download_packets, down);
	assert_int_equal(sum->download_bytes, now->down_bytes - before->down_bytes - 14 * down);
	assert_int_equal(sum->refused_packets, 0);
}

static void assert_all_sent(const struct meter *meter)
{
	struct meter_totals totals;

	meter_read(meter, SHARED_SLOT, &totals);
	assert_true(totals.upload_bytes > 1000000 && totals.download_bytes > 1000000);
	for (int i = 0; i < SENDERS; i++) {
		if (slot_of(i) == SHARED_SLOT)
			continue;
		meter_read(meter, slot_of(i), &totals);
		assert_true(totals.download_bytes > 100000);
		assert_int_equal(totals.download_bytes, shared->bytes[i]);
		assert_int_equal(totals.download_packets, shared->packets[i]);
	}
}

/* Whether it was what is to be tried: nothing lost behind the meter, and aggregates, which a busy machine may
 * not make. */
static bool send_and_compare(void)
{
	pid_t senders[SENDERS], receivers[SENDERS];
	struct meter *meter = attach();
	struct truth before, now;
	struct meter_totals sum;
	bool together;
	int status;

	memset(shared, 0, sizeof(*shared));
	before = far_truth();
	count_skbs();
	raise_network(true);
	for (int i = 0; i < SENDERS; i++)
		receivers[i] = start_receiver(i);
	for (int i = 0; i < SENDERS; i++)
		await_receiver(i);
	for (int i = 0; i < SENDERS; i++)
		senders[i] = start_sender(i);
	sleep(SECONDS);
	__atomic_store_n(&shared->stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < SENDERS; i++) {
		assert_int_equal(waitpid(senders[i], &status, 0), senders[i]);
		assert_int_equal(status, 0);
		stop(receivers[i]);
	}
	settle(meter, &before, &now);
	/* Connections that nobody ends are not to try again. */
	raise_network(false);
	sum = settle(meter, &before, &now);
	printf("# %ju + %ju bytes in %ju + %ju packets, %ju lost behind the meter\n",
	       (uintmax_t)sum.upload_bytes, (uintmax_t)sum.download_bytes, (uintmax_t)sum.upload_packets,
	       (uintmax_t)sum.download_packets, (uintmax_t)(now.lost - before.lost));
	if (now.lost == before.lost) {
		assert_equals_far(&sum, &before, &now);
		assert_all_sent(meter);
	}
	together = sum.upload_packets > 2 * skbs("in") && sum.download_packets > 2 * skbs("out");
	assert_int_equal(meter_remove(meter), 0);
	return now.lost == before.lost && together;
}

static void eight_senders_on_two_cpus_lose_nothing(void **state)
{
	int tries = 0;

	(void)state;
	while (!send_and_compare())
		assert_true(++tries < 12);
}

/* ---- offloads (I3) ---- */

/* Whether the sender makes aggregates, the devices hand them on whole, and the receiving one makes some. */
struct offloads {
	bool together, whole, gro;
};

static void set_offloads(const struct offloads *offloads)
{
	const char *whole = offloads->whole ? "on" : "off", *gro = offloads->gro ? "on" : "off";

	assert_int_equal(run("ethtool -K left tx-udp-segmentation %s gro %s rx-udp-gro-forwarding %s "
			     ">/dev/null && " IN_FAR "ethtool -K right tx-udp-segmentation %s >/dev/null",
			     whole, gro, gro, whole),
			 0);
}

static void send_bursts(int number, bool together)
{
	pid_t pid = fork();
	int status, fd;

	if (pid) {
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		return;
	}
	if (flows[number].uploads)
		enter_far();
	fd = connect_flow(number, SOCK_DGRAM);
	for (int i = 0; i < BURSTS; i++) {
		send_datagrams(fd, SEGMENT, SEGMENTS, together);
		usleep(1000);
	}
	_exit(0);
}

static uint64_t lost(void)
{
	return statistic(IN_FAR, "right", "tx_dropped") + statistic("", "left", "tx_dropped");
}

/* False when packets were lost on the cable. */
static bool bursts_cost_the_same(const struct meter *meter, int number, const struct offloads *offloads)
{
	uint64_t datagrams = BURSTS * SEGMENTS,
		 bytes = datagrams * (SEGMENT + 8 + (flows[number].ipv6 ? 40 : 20));
	uint64_t lost_before = lost();
	struct meter_totals before, now;
	pid_t receiver;

	set_offloads(offloads);
	meter_read(meter, slot_of(number), &before);
	shared->listening[number] = false;
	receiver = start_receiver(number);
	await_receiver(number);
	send_bursts(number, offloads->together);
	for (int i = 0; i < 3000; i++) {
		meter_read(meter, slot_of(number), &now);
		if (now.upload_packets + now.download_packets - before.upload_packets -
				    before.download_packets ==
			    datagrams ||
		    lost() != lost_before)
			break;
		usleep(20000);
	}
	stop(receiver);
	if (lost() != lost_before)
		return false;
	if (flows[number].uploads) {
		assert_int_equal(now.upload_bytes - before.upload_bytes, bytes);
		assert_int_equal(now.upload_packets - before.upload_packets, datagrams);
	} else {
		assert_int_equal(now.download_bytes - before.download_bytes, bytes);
		assert_int_equal(now.download_packets - before.download_packets, datagrams);
	}
	return true;
}

static void offloads_change_no_bill(void **state)
{
	struct meter *meter = attach();

	(void)state;
	raise_network(true);
	for (int number = 2; number < 6; number++) {
		for (unsigned bits = 0; bits < 8; bits++) {
			const struct offloads offloads = {bits & 1, bits & 2, bits & 4};
			int tries = 0;

			while (!bursts_cost_the_same(meter, number, &offloads))
				assert_true(++tries < 12);
		}
	}
	raise_network(false);
	assert_int_equal(meter_remove(meter), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(eight_senders_on_two_cpus_lose_nothing),
		cmocka_unit_test(offloads_change_no_bill),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || namespace_enter() || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mkdir("/run/bpf", 0700) || mount("bpf", "/run/bpf", "bpf", 0, "mode=0700") || make_network()) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
