// SPDX-License-Identifier: BSD-2-Clause
/*
 * A limit that is raised 1,000 times under real traffic, by reports a second late, never admits a byte beyond
 * the last ceiling, and ends with less than 1 MB (or 0.1 %) unspent: of the interface, of a peer within it,
 * and of both at once (I13, I14). The oracle reads the TUN device that the packets leave by. Runs in
 * namespaces of its own; needs root, iproute2.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/clock.h"
#include "meter/meter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define RAISES    1000
#define STEP_US   12000
#define LATE_NS   NSEC_PER_SEC
#define UNSPENT   1000000
#define SENDERS   4
#define INTERFACE 0 /* slot of its limit */
#define LIMITED   5 /* the peer with a limit of its own, at .2 */
#define OTHER     6 /* at .3 */

/* What came out of the device, by slot; slot 0 has all of it. */
static struct shared {
	uint64_t received[OTHER + 1];
	bool stop;
} * shared;

static const struct meter_options options = {
	.pin_folder = "/run/bpf/meter", .interface = "tun0", .capacity = 64};

/* ---- the device, and who reads it ---- */

static int make_tun(void)
{
	struct ifreq request = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
	/* A queue that takes what two processors send while the reader waits for one of them. */
	assert_int_equal(
		run("ip addr add 10.9.0.1/24 dev tun0 && ip link set tun0 up mtu 1420 txqueuelen 60000 && "
		    "ip addr add fd09::1/64 dev tun0 nodad"),
		0);
	return fd;
}

static uint64_t dropped(void)
{
	unsigned long long value = 0;
	FILE *file = fopen("/sys/class/net/tun0/statistics/tx_dropped", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%llu", &value), 1);
	fclose(file);
	return value;
}

/* By the last byte of the destination. */
static uint32_t slot_of(const uint8_t *packet)
{
	uint8_t last = packet[0] >> 4 == 4 ? packet[19] : packet[39];

	return last == 2 ? LIMITED : last == 3 ? OTHER : 0;
}

static pid_t start_reader(int tun)
{
	static uint8_t packet[2048];
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (ssize_t got; (got = read(tun, packet, sizeof(packet))) > 0;) {
		uint32_t slot = slot_of(packet);

		if (!slot)
			_exit(1);
		__atomic_fetch_add(&shared->received[slot], (uint64_t)got, __ATOMIC_RELAXED);
		__atomic_fetch_add(&shared->received[INTERFACE], (uint64_t)got, __ATOMIC_RELAXED);
	}
	_exit(2);
}

static uint64_t received(uint32_t slot)
{
	return __atomic_load_n(&shared->received[slot], __ATOMIC_ACQUIRE);
}

/* ---- senders ---- */

static void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		_exit(1);
}

static int socket_to(bool ipv6, int host)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	char text[32];

	snprintf(text, sizeof(text), ipv6 ? "fd09::%d" : "::ffff:10.9.0.%d", host);
	if (inet_pton(AF_INET6, text, &to.sin6_addr) != 1 ||
	    connect(fd, (const struct sockaddr *)&to, sizeof(to)))
		_exit(1);
	return fd;
}

/* Aggregates of up to 40 segments and single datagrams of all sizes. A refused one may be an error, too. */
static pid_t start_sender(int number)
{
	static const char buffer[48000];
	pid_t pid = fork();
	unsigned seed = (unsigned)number;
	int fd;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	use_cpu(number % 2);
	fd = socket_to(number < 2, 2 + number / 2 % 2);
	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
		int segment = rand_r(&seed) % 3 ? 0 : 1 + rand_r(&seed) % 1200;
		size_t size = segment ? (size_t)segment * (1 + (size_t)rand_r(&seed) % 40)
				      : (size_t)rand_r(&seed) % 1300;

		setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
		(void)!send(fd, buffer, size, 0);
		usleep(400);
	}
	_exit(0);
}

/* ---- the control plane ---- */

struct report {
	int64_t at;
	uint64_t counted[LIMITED + 1];
};

struct plane {
	struct meter *meter;
	uint64_t seq;
	uint64_t ceiling[LIMITED + 1]; /* 0: no limit */
	struct report reports[RAISES];
	unsigned n_reports, newest_arrived;
};

static const uint32_t limited_slots[] = {INTERFACE, LIMITED};

static struct meter_limit_state state_of(const struct plane *plane, uint32_t slot)
{
	struct meter_limit_state state;

	if (slot == INTERFACE)
		meter_read_limit(plane->meter, &state);
	else
		assert_int_equal(meter_read_peer_limit(plane->meter, slot, &state), 0);
	return state;
}

static int grant(struct plane *plane, uint32_t slot, uint64_t seq, uint64_t ceiling)
{
	const struct meter_grant wanted = {1, seq, ceiling, WT_DOWNLOADS};

	return slot == INTERFACE ? meter_grant(plane->meter, &wanted)
				 : meter_grant_peer(plane->meter, slot, &wanted);
}

/* Sent now, and there in a second. */
static void send_report(struct plane *plane)
{
	struct report *report = &plane->reports[plane->n_reports++];

	report->at = clock_boot_ns();
	for (size_t i = 0; i < ARRAY_SIZE(limited_slots); i++)
		report->counted[limited_slots[i]] = state_of(plane, limited_slots[i]).cycle_counted;
	while (plane->newest_arrived + 1 < plane->n_reports &&
	       plane->reports[plane->newest_arrived + 1].at + LATE_NS <= report->at)
		plane->newest_arrived++;
}

/* What has come out by now was admitted under the ceiling in force, or a lower one. */
static void assert_within(const struct plane *plane)
{
	for (size_t i = 0; i < ARRAY_SIZE(limited_slots); i++) {
		uint32_t slot = limited_slots[i];
		uint64_t out = received(slot), counted = state_of(plane, slot).cycle_counted;

		if (!plane->ceiling[slot])
			continue;
		assert_true(out <= plane->ceiling[slot]);
		assert_true(counted <= plane->ceiling[slot]);
		assert_true(out <= counted);
	}
}

/* So much is to be left by what the plane knows, which is a second old; and always a little more. */
static void raise_limit(struct plane *plane, uint32_t slot, uint64_t to_be_left)
{
	uint64_t ceiling = plane->ceiling[slot] + 1 + (plane->seq * 7919) % 3000;
	uint64_t wanted = plane->reports[plane->newest_arrived].counted[slot] + to_be_left;

	ceiling = wanted > ceiling ? wanted : ceiling;
	assert_int_equal(grant(plane, slot, plane->seq, ceiling), 0);
	plane->ceiling[slot] = ceiling;
	/* One that comes late, whatever it has, is not put in force any more. */
	assert_int_equal(grant(plane, slot, plane->seq - 1, 2 * ceiling), -EALREADY);
}

/* ---- the tests ---- */

struct scene {
	struct plane plane;
	int tun;
	pid_t reader, senders[SENDERS];
	uint64_t dropped;
};

static void add_prefix(struct meter *meter, const char *text, uint32_t slot)
{
	struct cidr cidr;

	assert_int_equal(cidr_parse(text, &cidr), 0);
	assert_int_equal(meter_set_prefix(meter, &cidr, slot, 1), 0);
}

static void begin(struct scene *scene)
{
	struct meter *meter = NULL;

	memset(scene, 0, sizeof(*scene));
	memset(shared, 0, sizeof(*shared));
	scene->tun = make_tun();
	assert_int_equal(meter_attach(&options, &meter), 0);
	scene->plane.meter = meter;
	add_prefix(meter, "10.9.0.2/32", LIMITED);
	add_prefix(meter, "fd09::2/128", LIMITED);
	add_prefix(meter, "10.9.0.3/32", OTHER);
	add_prefix(meter, "fd09::3/128", OTHER);
	scene->dropped = dropped();
	scene->reader = start_reader(scene->tun);
}

static void start_senders(struct scene *scene)
{
	for (int i = 0; i < SENDERS; i++)
		scene->senders[i] = start_sender(i);
}

static void stop_senders(struct scene *scene)
{
	int status;

	__atomic_store_n(&shared->stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < SENDERS; i++) {
		assert_int_equal(waitpid(scene->senders[i], &status, 0), scene->senders[i]);
		assert_int_equal(status, 0);
	}
}

static bool reader_has_all(const struct scene *scene)
{
	struct meter_totals totals;
	bool all = true;

	for (uint32_t slot = LIMITED; slot <= OTHER; slot++) {
		meter_read(scene->plane.meter, slot, &totals);
		all &= totals.download_bytes == received(slot);
	}
	return all;
}

/*
 * Waits until what was admitted has come out, and nothing more is. False when the device's queue has lost
 * packets, so that its reader does not know what was admitted.
 */
static bool await_reader(const struct scene *scene)
{
	for (int i = 0; i < 600 && dropped() == scene->dropped && !reader_has_all(scene); i++)
		usleep(100000);
	return dropped() == scene->dropped;
}

static void end(struct scene *scene, bool whole)
{
	struct meter_totals totals;

	for (uint32_t slot = LIMITED; whole && slot <= OTHER; slot++) {
		meter_read(scene->plane.meter, slot, &totals);
		assert_int_equal(totals.download_bytes, received(slot));
		assert_int_equal(totals.upload_bytes, 0);
	}
	assert_int_equal(waitpid(scene->reader, NULL, WNOHANG), 0);
	stop(scene->reader);
	assert_int_equal(meter_remove(scene->plane.meter), 0);
	close(scene->tun);
}

static void await_exhaustion(const struct plane *plane, uint32_t slot)
{
	for (int i = 0; i < 12000 && !state_of(plane, slot).exhausted; i++)
		usleep(5000);
	assert_true(state_of(plane, slot).exhausted);
}

static void assert_spent(const struct plane *plane, uint32_t slot)
{
	uint64_t ceiling = plane->ceiling[slot], bound = ceiling / 1000 > UNSPENT ? ceiling / 1000 : UNSPENT;

	assert_true(received(slot) <= ceiling);
	assert_true(ceiling - received(slot) < bound);
}

/* `left` is what the plane wants to be left of each limit; 0: there is none. */
static bool raise_under_traffic(const uint64_t left[LIMITED + 1])
{
	static struct scene scene;
	struct plane *plane = &scene.plane;
	unsigned refusals = 0;
	bool whole;

	begin(&scene);
	plane->seq = 1;
	for (size_t i = 0; i < ARRAY_SIZE(limited_slots); i++) {
		plane->ceiling[limited_slots[i]] = left[limited_slots[i]] ? 1 : 0;
		if (left[limited_slots[i]])
			assert_int_equal(grant(plane, limited_slots[i], 1, 1), 0);
	}
	start_senders(&scene);
	while (plane->n_reports < RAISES) {
		plane->seq++;
		send_report(plane);
		for (size_t i = 0; i < ARRAY_SIZE(limited_slots); i++) {
			uint32_t slot = limited_slots[i];

			if (!left[slot])
				continue;
			assert_within(plane);
			refusals += state_of(plane, slot).exhausted;
			raise_limit(plane, slot, left[slot]);
		}
		usleep(STEP_US);
	}
	assert_within(plane);
	if (left[INTERFACE]) {
		await_exhaustion(plane, INTERFACE);
		if (await_reader(&scene))
			assert_spent(plane, INTERFACE);
		assert_int_equal(grant(plane, INTERFACE, plane->seq + 1, WT_NO_CEILING), 0);
		plane->ceiling[INTERFACE] = 0;
	}
	if (left[LIMITED])
		await_exhaustion(plane, LIMITED);
	stop_senders(&scene);
	whole = await_reader(&scene);
	assert_within(plane);
	if (whole && left[LIMITED])
		assert_spent(plane, LIMITED);
	printf("# raised %d times, %u of them when exhausted; %ju bytes came out\n", RAISES, refusals,
	       (uintmax_t)received(INTERFACE));
	assert_true(refusals > RAISES / 20);
	end(&scene, whole);
	return whole;
}

static void raise_until_nothing_is_dropped(const uint64_t left[LIMITED + 1])
{
	int tries = 0;

	while (!raise_under_traffic(left))
		assert_true(++tries < 8);
}

static void raises_of_both_limits_admit_no_byte_too_many(void **state)
{
	const uint64_t left[LIMITED + 1] = {[INTERFACE] = 2500000, [LIMITED] = 900000};

	(void)state;
	raise_until_nothing_is_dropped(left);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(raises_of_both_limits_admit_no_byte_too_many),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || namespace_enter() || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mkdir("/run/bpf", 0700) || mount("bpf", "/run/bpf", "bpf", 0, "mode=0700")) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
