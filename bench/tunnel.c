// SPDX-License-Identifier: BSD-2-Clause
/*
 * A real tunnel between two wireguard-go, with and without the meter on the sender's interface: the CPU time
 * that all who take part spend for what arrives. And whether the meter counts what the interface itself
 * counts after segmentation, for which it is given a device that does segment (docs/performance.md).
 */
#include "bench.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GATEWAY    "bench-a"
#define PLAIN      "/run/plain/wireguard-go" /* of tests/envelope.sh: whose device counts packets */
#define CLIENT     "10.64.0.1"               /* the address that peers_make() gives to the first peer */
#define PORT       5001
#define SMALL      72 /* bytes of the UDP payload: packets of 100 */
#define BURST      32
#define WINDOW     256 /* packets that may be on their way, so that no queue overflows */
#define PAUSE_US   50
#define PATIENCE   200    /* pauses without an arrival, after which packets are taken for lost */
#define COMPARED   4      /* samples of a block: A B B A */
#define SETTLE     100000 /* microseconds until a connection is at its speed */
#define BETWEEN    5000   /* microseconds from one variant to the next */
#define DAEMONS    2
#define MOST_TURNS 100
#define QUIET_US   20000

enum protocol { TCP, UDP, PROTOCOLS };

static const char *const names[PROTOCOLS] = {"tcp", "udp"};

struct tunnel {
	struct meter *meter;
	int ingress, egress;       /* programs */
	_Atomic uint64_t *arrived; /* bytes of TCP or packets of UDP; by the receiver, in another process */
	_Atomic bool stop;
	pid_t daemons[DAEMONS], receiver;
};

static void make_network(void)
{
	shell("ip netns add client && ip link add cable type veth peer name cable netns client && "
	      "ip addr add 192.0.2.1/24 dev cable && ip link set cable up && "
	      "ip -n client addr add 192.0.2.2/24 dev cable && ip -n client link set cable up && "
	      "ip -n client link set lo up");
	shell(PLAIN " " GATEWAY " >/dev/null 2>&1 && "
		    "nsenter --net=/run/netns/client " PLAIN " bench-b >/dev/null 2>&1");
	shell("umask 077 && wg genkey >/run/a.key && wg genkey >/run/b.key && "
	      "wg set " GATEWAY " private-key /run/a.key listen-port 51820 "
	      "peer $(wg pubkey </run/b.key) allowed-ips " CLIENT "/32 endpoint 192.0.2.2:51821 && "
	      "nsenter --net=/run/netns/client wg set bench-b private-key /run/b.key listen-port 51821 "
	      "peer $(wg pubkey </run/a.key) allowed-ips 10.64.1.0/24 endpoint 192.0.2.1:51820");
	/* The interfaces say nothing by themselves, so that they can be compared to the byte. */
	shell("ip link set " GATEWAY " addrgenmode none mtu 1420 && "
	      "ip -n client link set bench-b addrgenmode none mtu 1420 && "
	      "ip addr add 10.64.1.1/24 dev " GATEWAY " && ip link set " GATEWAY " up && "
	      "ip route add " CLIENT "/32 dev " GATEWAY " && ip -n client addr add " CLIENT
	      "/32 dev bench-b && "
	      "ip -n client link set bench-b up && ip -n client route add 10.64.1.0/24 dev bench-b");
}

static void find_daemons(struct tunnel *tunnel)
{
	FILE *file = popen("pgrep -x wireguard-go", "r");

	if (!file)
		fail("cannot look for wireguard-go");
	for (int i = 0; i < DAEMONS; i++)
		if (fscanf(file, "%d", &tunnel->daemons[i]) != 1)
			fail("%d processes of wireguard-go run, not %d", i, DAEMONS);
	pclose(file);
}

static struct sockaddr_in client_address(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};

	address.sin_addr.s_addr = inet_addr(CLIENT);
	return address;
}

static int open_socket(enum protocol protocol)
{
	int fd = socket(AF_INET, (protocol == TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("no socket");
	return fd;
}

/* The receiver's process: counts until it is killed. */
static _Noreturn void receive(enum protocol protocol, _Atomic uint64_t *arrived)
{
	static char buffer[1 << 20];
	struct sockaddr_in address = client_address();
	int space = open("/run/netns/client", O_RDONLY | O_CLOEXEC), fd;
	ssize_t size;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (space < 0 || setns(space, CLONE_NEWNET))
		_exit(1);
	fd = open_socket(protocol);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		_exit(1);
	if (protocol == TCP) {
		int listener = fd;

		if (listen(listener, 1))
			_exit(1);
		fd = accept(listener, NULL, NULL);
	}
	while ((size = recv(fd, buffer, sizeof(buffer), 0)) > 0)
		atomic_fetch_add(arrived, protocol == TCP ? (uint64_t)size : 1);
	_exit(0);
}

static pid_t start_receiver(enum protocol protocol, _Atomic uint64_t *arrived)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("no process");
	if (pid == 0)
		receive(protocol, arrived);
	return pid;
}

struct sender {
	pthread_t thread;
	struct tunnel *tunnel;
	enum protocol protocol;
	int fd;
};

static void *send_stream(void *data)
{
	static char buffer[1 << 18];
	struct sender *sender = data;

	while (!atomic_load(&sender->tunnel->stop))
		if (send(sender->fd, buffer, sizeof(buffer), MSG_NOSIGNAL) < 0)
			fail("the connection has ended");
	return NULL;
}

static void *send_packets(void *data)
{
	static char payload[SMALL];
	struct sender *sender = data;
	struct iovec vector = {.iov_base = payload, .iov_len = sizeof(payload)};
	struct mmsghdr messages[BURST] = {0};
	uint64_t before = atomic_load(sender->tunnel->arrived), sent = 0, pauses = 0;

	for (int i = 0; i < BURST; i++)
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1};
	while (!atomic_load(&sender->tunnel->stop)) {
		uint64_t on_their_way = sent - (atomic_load(sender->tunnel->arrived) - before);

		if (on_their_way + BURST <= WINDOW) {
			int r = sendmmsg(sender->fd, messages, BURST, 0);

			sent += r > 0 ? (uint64_t)r : 0;
			pauses = 0;
		} else if (++pauses < PATIENCE) {
			usleep(PAUSE_US);
		} else {
			before = atomic_load(sender->tunnel->arrived);
			sent = pauses = 0;
		}
	}
	return NULL;
}

static void start_sender(struct sender *sender, struct tunnel *tunnel, enum protocol protocol)
{
	const struct sockaddr_in to = client_address();
	int tries = 0;

	*sender = (struct sender){.tunnel = tunnel, .protocol = protocol, .fd = open_socket(protocol)};
	atomic_store(&tunnel->stop, false);
	while (connect(sender->fd, (const struct sockaddr *)&to, sizeof(to))) {
		if (++tries > 100)
			fail("the tunnel does not connect");
		usleep(QUIET_US);
	}
	if (pthread_create(&sender->thread, NULL, protocol == TCP ? send_stream : send_packets, sender))
		fail("cannot start a thread");
}

static void stop_sender(struct sender *sender)
{
	atomic_store(&sender->tunnel->stop, true);
	pthread_join(sender->thread, NULL);
	close(sender->fd);
}

static double process_time(pid_t pid)
{
	struct timespec now;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &now))
		fail("cannot read the CPU time of process %d", (int)pid);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Of all processes that a packet meets; what the kernel does for it, it does in their time. */
static double spent(const struct tunnel *tunnel)
{
	double sum = process_time(getpid()) + process_time(tunnel->receiver);

	for (int i = 0; i < DAEMONS; i++)
		sum += process_time(tunnel->daemons[i]);
	return sum;
}

struct sample {
	double time, spent, arrived;
};

static void take_sample(struct tunnel *tunnel, bool metered, uint32_t milliseconds, struct sample *sum)
{
	_cleanup_close_ int ingress = -1;
	_cleanup_close_ int egress = -1;
	struct sample begun;

	if (metered) {
		ingress = rig_attach(tunnel->ingress, GATEWAY, TCX_INGRESS);
		egress = rig_attach(tunnel->egress, GATEWAY, TCX_EGRESS);
	}
	usleep(BETWEEN);
	begun = (struct sample){wall_time(), spent(tunnel), (double)atomic_load(tunnel->arrived)};
	/* On a busy machine a turn may pass before anything arrives. */
	for (int turns = 0; atomic_load(tunnel->arrived) == (uint64_t)begun.arrived || turns == 0; turns++) {
		if (turns == MOST_TURNS)
			fail("nothing arrives through the tunnel");
		usleep(milliseconds * 1000);
	}
	sum->time += wall_time() - begun.time;
	sum->spent += spent(tunnel) - begun.spent;
	sum->arrived += (double)atomic_load(tunnel->arrived) - begun.arrived;
}

static void measure(struct tunnel *tunnel, enum protocol protocol, const struct bench_options *options)
{
	struct series spent[2] = {0}, rates[2] = {0};
	struct sender sender;

	tunnel->receiver = start_receiver(protocol, tunnel->arrived);
	start_sender(&sender, tunnel, protocol);
	usleep(SETTLE);
	for (uint32_t block = 0; block < options->rounds; block++) {
		struct sample sums[2] = {0};

		for (uint32_t i = 0; i < COMPARED; i++) {
			bool metered = (i == 1 || i == 2) != (block & 1);

			take_sample(tunnel, metered, options->milliseconds, &sums[metered]);
		}
		for (int i = 0; i < 2; i++) {
			series_add(&spent[i], sums[i].spent / sums[i].arrived);
			series_add(&rates[i], sums[i].arrived * 1e9 / sums[i].time);
		}
	}
	stop_sender(&sender);
	kill(tunnel->receiver, SIGKILL);
	waitpid(tunnel->receiver, NULL, 0);
	for (int i = 0; i < 2; i++) {
		series_print(&spent[i], "ns", "tunnel/%s/%s/spent", names[protocol], i ? "metered" : "plain");
		series_print(&rates[i], "1/s", "tunnel/%s/%s/rate", names[protocol], i ? "metered" : "plain");
	}
}

static uint64_t statistic(const char *name)
{
	unsigned long long value;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/net/" GATEWAY "/statistics/%s", name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%llu", &value) != 1)
		fail("cannot read %s", path);
	fclose(file);
	return value;
}

/* Until the interface's counters have stood still for a while. */
static void wait_quiet(void)
{
	for (uint64_t last = 0, still = 0, now; still < 20; last = now) {
		now = statistic("tx_bytes") + statistic("rx_bytes");
		still = now == last ? still + 1 : 0;
		usleep(QUIET_US);
	}
}

static void print_one(const char *name, const char *unit, double value)
{
	struct series series = {0};

	series_add(&series, value);
	series_print(&series, unit, "%s", name);
}

/* All that the meter has counted, of the peer and of nobody, against the interface's own counters. */
static void compare(const struct meter *meter)
{
	struct meter_totals peer, nobody;
	uint64_t up, down, packets;

	meter_read(meter, 1, &peer);
	meter_read(meter, 0, &nobody);
	up = peer.upload_bytes + nobody.upload_bytes;
	down = peer.download_bytes + nobody.download_bytes;
	packets =
		peer.download_packets + nobody.download_packets + peer.upload_packets + nobody.upload_packets;
	if (statistic("tx_dropped"))
		fail("the interface has dropped packets that the meter has counted: nothing to compare");
	print_one("accuracy/bytes", "bytes",
		  (double)(int64_t)(up + down - statistic("rx_bytes") - statistic("tx_bytes")));
	print_one("accuracy/packets", "packets",
		  (double)(int64_t)(packets - statistic("rx_packets") - statistic("tx_packets")));
	print_one("accuracy/total", "bytes", (double)(up + down));
	if (up != statistic("rx_bytes") || down != statistic("tx_bytes") ||
	    packets != statistic("rx_packets") + statistic("tx_packets"))
		fail("the meter counts %llu up, %llu down; the interface %llu, %llu", (unsigned long long)up,
		     (unsigned long long)down, (unsigned long long)statistic("rx_bytes"),
		     (unsigned long long)statistic("tx_bytes"));
}

static void check_accuracy(struct tunnel *tunnel, uint32_t milliseconds)
{
	int ingress = rig_attach(tunnel->ingress, GATEWAY, TCX_INGRESS);
	int egress = rig_attach(tunnel->egress, GATEWAY, TCX_EGRESS);
	pid_t receiver = start_receiver(TCP, tunnel->arrived);
	struct sender sender;

	start_sender(&sender, tunnel, TCP);
	usleep(milliseconds * 1000);
	stop_sender(&sender);
	waitpid(receiver, NULL, 0);
	wait_quiet();
	compare(tunnel->meter);
	cleanup_close(&ingress);
	cleanup_close(&egress);
}

void bench_tunnel(const struct bench_options *options)
{
	struct cidr prefix = {.family = AF_INET, .prefix_length = 32, .bytes = {10, 64, 0, 1}};
	const struct bench_peers peers = {.family = AF_INET, .count = 1, .prefixes = &prefix};
	struct tunnel tunnel = {0};
	struct ifreq request = {.ifr_name = "idle", .ifr_flags = IFF_TUN | IFF_NO_PI};
	int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (tun < 0 || ioctl(tun, TUNSETIFF, &request))
		fail("cannot make a TUN device");
	tunnel.arrived =
		mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tunnel.arrived == MAP_FAILED)
		fail("out of memory");
	make_network();
	find_daemons(&tunnel);
	tunnel.meter = rig_meter("idle", &peers);
	tunnel.ingress = rig_attached("idle", TCX_INGRESS);
	tunnel.egress = rig_attached("idle", TCX_EGRESS);
	check_accuracy(&tunnel, options->milliseconds);
	for (enum protocol p = 0; p < PROTOCOLS; p++)
		measure(&tunnel, p, options);
	close(tunnel.ingress);
	close(tunnel.egress);
	rig_remove(tunnel.meter);
	close(tun);
}
