// SPDX-License-Identifier: BSD-2-Clause
/*
 * The meter on real interfaces, against counts that are not its own: what comes out of a TUN device, and what
 * a WireGuard client's own device has counted. Runs in namespaces of its own, which vanish with it; needs
 * root, iproute2, wireguard-tools, wireguard-go.
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
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PEER      5
#define PACKET    1000 /* bytes of the UDP test packets, IP header included */
#define PACKETS   20000
#define IN_CLIENT "ip netns exec client"

static const enum meter_attach both_ways[] = {METER_ATTACH_TCX, METER_ATTACH_TC};
static const char *const way_names[] = {"tcx", "tc"};

static struct meter_options on(const char *interface, enum meter_attach how)
{
	return (struct meter_options){
		.pin_folder = "/run/bpf/meter",
		.interface = interface,
		.attach = how,
		.capacity = 64,
	};
}

static void count_peer(struct meter *meter, const char *text)
{
	struct cidr prefix;

	assert_int_equal(cidr_parse(text, &prefix), 0);
	assert_int_equal(meter_set_prefix(meter, &prefix, PEER, 1), 0);
}

static struct meter *attach(const char *interface, enum meter_attach how)
{
	const struct meter_options options = on(interface, how);
	struct meter *meter = NULL;

	assert_int_equal(meter_attach(&options, &meter), 0);
	return meter;
}

static uint64_t statistic(const char *prefix, const char *interface, const char *name)
{
	unsigned long long value = 0;
	char command[256];
	FILE *pipe;

	snprintf(command, sizeof(command), "%s cat /sys/class/net/%s/statistics/%s", prefix, interface, name);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%llu", &value), 1);
	assert_int_equal(pclose(pipe), 0);
	return value;
}

/* For children: they end instead of failing an assertion that is the parent's. */
static void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		_exit(1);
}

/* A TUN device whose other end is this program: every packet comes out as it is on the wire. */
static int make_tun(void)
{
	struct ifreq request = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	assert_int_equal(run("ip addr add 10.9.0.1/24 dev tun0 && ip link set tun0 up mtu 1420"), 0);
	return fd;
}

/* Sends UDP packets to the peer behind the device, from one CPU. */
static pid_t start_sender(int cpu, int packets)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	static const char payload[PACKET - 28];
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	use_cpu(cpu);
	to.sin_addr.s_addr = inet_addr("10.9.0.2");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	/* A refused packet is an error here, too; it has been sent all the same. */
	for (int i = 0; i < packets; i++)
		(void)!sendto(fd, payload, sizeof(payload), 0, (const struct sockaddr *)&to, sizeof(to));
	_exit(0);
}

static size_t written_size(int i)
{
	return 28 + (size_t)i % 1300;
}

/* Writes packets from the peer into the device, from one CPU. */
static pid_t start_writer(int tun, int cpu, int packets)
{
	uint8_t packet[1400] = {0x45, [9] = 17, [12] = 10, 9, 0, 2, 192, 0, 2, 1};
	pid_t pid = fork();

	if (pid)
		return pid;
	use_cpu(cpu);
	for (int i = 0; i < packets; i++) {
		size_t size = written_size(i);

		packet[2] = (uint8_t)(size >> 8);
		packet[3] = (uint8_t)size;
		while (write(tun, packet, size) != (ssize_t)size)
			if (errno != EAGAIN)
				_exit(1);
	}
	_exit(0);
}

/* Reads the device empty while the processes run; returns the bytes that came out. */
static uint64_t read_until_gone(int tun, const pid_t *pids, int count)
{
	char packet[2048];
	uint64_t bytes = 0;
	bool gone = false;
	ssize_t got = 0;
	int status;

	for (int i = 0; !gone || got > 0;) {
		gone = i == count;
		got = read(tun, packet, sizeof(packet));
		if (got > 0)
			bytes += (uint64_t)got;
		else if (!gone && waitpid(pids[i], &status, WNOHANG) == pids[i])
			i += WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : 1000;
		assert_true(i <= count);
	}
	return bytes;
}

/* What passed the meter: read from the device, or dropped by the device's queue, which is behind the meter.
 */
static uint64_t send_from_both_cpus(int tun, int packets)
{
	uint64_t dropped = statistic("", "tun0", "tx_dropped"), bytes;
	const pid_t pids[] = {start_sender(0, packets), start_sender(1, packets)};

	bytes = read_until_gone(tun, pids, 2);
	return bytes + (statistic("", "tun0", "tx_dropped") - dropped) * PACKET;
}

static void counts_two_cpus_exactly(void **state)
{
	uint64_t written = 0;

	(void)state;
	for (int i = 0; i < PACKETS; i++)
		written += written_size(i);
	for (size_t way = 0; way < ARRAY_SIZE(both_ways); way++) {
		int tun = make_tun();
		struct meter *meter = attach("tun0", both_ways[way]);
		struct meter_totals totals;
		pid_t pids[4];

		count_peer(meter, "10.9.0.2/32");
		for (int i = 0; i < 4; i++)
			pids[i] = i < 2 ? start_sender(i, PACKETS) : start_writer(tun, i - 2, PACKETS);
		read_until_gone(tun, pids, 4);
		meter_read(meter, PEER, &totals);
		assert_int_equal(totals.download_packets, 2 * PACKETS);
		assert_int_equal(totals.download_bytes, 2 * PACKETS * PACKET);
		assert_int_equal(totals.upload_packets, 2 * PACKETS);
		assert_int_equal(totals.upload_bytes, 2 * written);
		assert_int_equal(totals.refused_bytes, 0);
		meter_read(meter, WT_SLOT_UNATTRIBUTED, &totals);
		assert_int_equal(totals.download_bytes + totals.upload_bytes, 0);
		assert_int_equal(meter_remove(meter), 0);
		close(tun);
	}
}

static void stops_at_the_limit_and_goes_on_after_a_grant(void **state)
{
	const struct meter_grant first = {1, 1, 5000000, WT_DOWNLOADS};
	const struct meter_grant more = {1, 2, 9000000, WT_DOWNLOADS};
	int tun = make_tun();
	struct meter *meter = attach("tun0", METER_ATTACH_AUTO);
	struct pollfd event = {.fd = meter_event_fd(meter), .events = POLLIN};
	struct meter_limit_state limit;
	struct meter_totals totals;
	uint64_t admitted;

	(void)state;
	count_peer(meter, "10.9.0.0/24");
	assert_int_equal(meter_grant(meter, &first), 0);
	assert_int_equal(poll(&event, 1, 0), 0);
	admitted = send_from_both_cpus(tun, 5000);
	assert_true(admitted <= 5000000 && admitted > 4000000);
	assert_int_equal(poll(&event, 1, 60000), 1);
	assert_int_equal(meter_drain_events(meter), 1);
	assert_int_equal(poll(&event, 1, 0), 0);
	meter_read_limit(meter, &limit);
	assert_true(limit.exhausted);
	assert_int_equal(limit.cycle_counted, admitted);
	meter_read(meter, PEER, &totals);
	assert_int_equal(totals.download_bytes, admitted);
	assert_int_equal(totals.download_bytes + totals.refused_bytes, 10000 * PACKET);
	assert_int_equal(send_from_both_cpus(tun, 10), 0);
	assert_int_equal(meter_grant(meter, &more), 0);
	admitted += send_from_both_cpus(tun, 5000);
	assert_true(admitted <= 9000000 && admitted > 8000000);
	assert_int_equal(meter_remove(meter), 0);
	close(tun);
}

/* A client in a namespace of its own, behind a WireGuard tunnel over a cable. */
static int make_tunnel(void)
{
	if (start((char *[]){"wireguard-go", "-f", "wgs", NULL}) < 0)
		return -1;
	if (run("ip netns add client && ip link add outer type veth peer name uplink netns client && "
		"ip addr add 192.168.77.1/24 dev outer && ip link set outer up && "
		"ip -n client addr add 192.168.77.2/24 dev uplink && ip -n client link set uplink up "
		"&& " IN_CLIENT " sysctl -qw net.ipv6.conf.default.addr_gen_mode=1"))
		return -1;
	if (start((char *[]){"ip", "netns", "exec", "client", "tests/plain_wireguard.py", "-f", "wgc",
			     NULL}) < 0)
		return -1;
	if (wait_until_it_listens("wgs") || wait_until_it_listens("wgc"))
		return -1;
	return run("cd /run && umask 077 && wg genkey >s && wg genkey >c && "
		   "wg set wgs private-key s listen-port 51820 "
		   "peer $(wg pubkey <c) allowed-ips 10.8.0.2/32,fd08::2/128 && "
		   "wg set wgc private-key c "
		   "peer $(wg pubkey <s) endpoint 192.168.77.1:51820 allowed-ips 0.0.0.0/0,::/0");
}

/* As long queues as it takes: what is compared must not be lost between the two counts. */
static int raise_tunnel(void)
{
	return run("ip link set wgs up txqueuelen 20000 && ip -n client link set wgc up txqueuelen 20000 && "
		   "ip addr replace 10.8.0.1/24 dev wgs && ip addr replace fd08::1/64 dev wgs nodad && "
		   "ip -n client addr replace 10.8.0.2/24 dev wgc && "
		   "ip -n client addr replace fd08::2/64 dev wgc nodad");
}

static void enter_client(void)
{
	int fd = open("/run/netns/client", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		_exit(1);
	close(fd);
}

static void receive(const struct sockaddr_in6 *at, size_t bytes)
{
	static char buffer[65536];
	int listener = socket(AF_INET6, SOCK_STREAM, 0), connection, yes = 1;

	/* The connection before may wait for its last acknowledgement. */
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
	    bind(listener, (const struct sockaddr *)at, sizeof(*at)) || listen(listener, 1))
		_exit(1);
	connection = accept(listener, NULL, NULL);
	for (ssize_t got; (got = read(connection, buffer, sizeof(buffer))) > 0;)
		bytes -= (size_t)got;
	_exit(bytes != 0);
}

static int connect_when_there(const struct sockaddr_in6 *to)
{
	for (int i = 0; i < 3000; i++) {
		int fd = socket(AF_INET6, SOCK_STREAM, 0);

		if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0)
			return fd;
		close(fd);
		usleep(20000);
	}
	_exit(1);
}

/* Bytes a second: still in aggregates, but within the tunnel's means. Less when a busy machine's are less. */
static unsigned rate;

static void send_to(const struct sockaddr_in6 *to, size_t bytes)
{
	static const char buffer[65536];
	int fd = connect_when_there(to);

	if (setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate)))
		_exit(1);
	while (bytes) {
		ssize_t put = write(fd, buffer, bytes < sizeof(buffer) ? bytes : sizeof(buffer));

		if (put < 0)
			_exit(1);
		bytes -= (size_t)put;
	}
	_exit(0);
}

/* TCP from one side of the tunnel to the other. */
static void transfer(const char *address, bool to_client, size_t bytes)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(7777)};
	pid_t pids[2];
	int status;

	assert_int_equal(inet_pton(AF_INET6, address, &to.sin6_addr), 1);
	for (int i = 0; i < 2; i++) {
		bool receives = i == 0;

		pids[i] = fork();
		if (pids[i])
			continue;
		if (receives == to_client)
			enter_client();
		if (receives)
			receive(&to, bytes);
		send_to(&to, bytes);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
}

struct truth {
	uint64_t upload, download, lost;
};

/* Signs of packets lost on the way, between the one count and the other; a retransmission may be in vain. */
static uint64_t losses(const char *prefix, const char *interface)
{
	uint64_t sum = statistic(prefix, interface, "tx_dropped");
	unsigned long long value;
	char command[256];
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "%s nstat -asz TcpRetransSegs UdpRcvbufErrors | awk 'NR > 1 { print $2 }'", prefix);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fscanf(pipe, "%llu", &value), 1);
		sum += value;
	}
	assert_int_equal(pclose(pipe), 0);
	return sum;
}

/* By the client's own device. */
static struct truth client_truth(void)
{
	return (struct truth){
		.upload = statistic(IN_CLIENT, "wgc", "tx_bytes"),
		.download = statistic(IN_CLIENT, "wgc", "rx_bytes"),
		.lost = losses(IN_CLIENT, "wgc") + losses("", "wgs"),
	};
}

#define AGREE 3  /* times one after the other */
#define LOST  25 /* times that they did not, where packets may be lost */

/*
 * The last packets are still on their way for a moment: both sides are read until they agree and still do
 * when they are read again. False when packets were lost on the way.
 */
static bool wait_for_client(const struct meter *meter, const struct truth *before, struct truth *ret_now,
			    struct meter_totals *ret_totals)
{
	int agreed = 0, lost = 0;

	for (int i = 0; i < 3000 && agreed < AGREE && lost < LOST; i++) {
		*ret_now = client_truth();
		meter_read(meter, PEER, ret_totals);
		if (ret_totals->upload_bytes == ret_now->upload - before->upload &&
		    ret_totals->download_bytes == ret_now->download - before->download)
			agreed++;
		else
			agreed = 0;
		lost += !agreed && ret_now->lost != before->lost;
		usleep(20000);
	}
	return lost < LOST;
}

static void assert_equals_client(const struct meter *meter, const struct truth *before,
				 const struct truth *now, const struct meter_totals *peer)
{
	struct meter_totals unattributed;

	assert_int_equal(peer->upload_bytes, now->upload - before->upload);
	assert_int_equal(peer->download_bytes, now->download - before->download);
	assert_true(peer->upload_bytes > 4000000 && peer->download_bytes > 10000000);
	meter_read(meter, WT_SLOT_UNATTRIBUTED, &unattributed);
	assert_int_equal(unattributed.upload_bytes + unattributed.download_bytes, 0);
}

static void attach_and_be_killed(enum meter_attach how)
{
	pid_t pid = fork();
	struct meter *meter;
	int status;

	if (pid == 0) {
		meter = attach("wgs", how);
		count_peer(meter, "10.8.0.2/32");
		count_peer(meter, "fd08::2/128");
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/*
 * Attached by a process that is killed before the first packet, adopted after the last: the meter has what
 * the client's device has counted, although the gateway's own TCP leaves it in aggregates. False when packets
 * were lost on the way.
 */
static bool compare_with_client(enum meter_attach how, const char *attachment)
{
	const struct meter_options options = on("wgs", METER_ATTACH_AUTO);
	struct truth before = client_truth(), now;
	struct meter_totals totals;
	struct meter *meter = NULL;
	bool whole;

	attach_and_be_killed(how);
	assert_int_equal(raise_tunnel(), 0);
	/* The client first: the gateway learns from it where it is. */
	transfer("::ffff:10.8.0.1", false, 4000000);
	transfer("::ffff:10.8.0.2", true, 8000000);
	transfer("fd08::2", true, 2000000);
	assert_int_equal(run(IN_CLIENT " ping -q -n -c 20 -i 0.01 -s 1000 10.8.0.1 >/dev/null"), 0);
	assert_int_equal(meter_adopt(&options, &meter), 0);
	assert_string_equal(meter_attachment(meter), attachment);
	whole = wait_for_client(meter, &before, &now, &totals);
	if (whole)
		assert_equals_client(meter, &before, &now, &totals);
	assert_int_equal(meter_remove(meter), 0);
	assert_int_equal(run("ip link set wgs down && ip -n client link set wgc down"), 0);
	return whole;
}

static void counts_with_no_process_alive(void **state)
{
	(void)state;
	for (size_t way = 0; way < ARRAY_SIZE(both_ways); way++) {
		rate = 12500000;
		while (!compare_with_client(both_ways[way], way_names[way])) {
			rate = rate * 2 / 3;
			assert_true(rate > 500000);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_two_cpus_exactly),
		cmocka_unit_test(stops_at_the_limit_and_goes_on_after_a_grant),
		cmocka_unit_test(counts_with_no_process_alive),
	};

	if (namespace_enter() || mount("sysfs", "/sys", "sysfs", 0, NULL) || mkdir("/run/bpf", 0700) ||
	    mount("bpf", "/run/bpf", "bpf", 0, "mode=0700") || make_tunnel()) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
