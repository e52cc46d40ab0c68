// SPDX-License-Identifier: BSD-2-Clause
/*
 * A meter taken over by another while packets flow. Every packet is counted once, by one of the two: the sums
 * over all epochs are compared with the counters of the device, a TUN whose other end is this program. Runs
 * in namespaces of its own; needs root, iproute2, ethtool.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/handover.h"
#include "meter/meter.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <time.h>

#define FOLDER "/run/bpf/meter"
#define PEER   5
#define OTHER  6
#define BOUND  1000000

static int tun = -1;
static pid_t traffic[4];

/* What the traffic's processes may offer, in bytes, and what each has offered. */
static struct shared {
	uint64_t allowed;
	uint64_t offered[3];
} * shared;

static const struct meter_options adopting = {.pin_folder = FOLDER, .interface = "tun0"};

static void set_prefix(struct meter *meter, const char *text, uint32_t slot)
{
	struct cidr prefix;

	assert_int_equal(cidr_parse(text, &prefix), 0);
	assert_int_equal(meter_set_prefix(meter, &prefix, slot, 1), 0);
}

static struct meter *attach(enum meter_attach how, uint32_t capacity)
{
	const struct meter_options options = {
		.pin_folder = FOLDER, .interface = "tun0", .attach = how, .capacity = capacity};
	const struct wt_owner owner = {.peer_id = {1, 2, 3}, .incarnation = 7, .flags = WT_OWNER_IN_USE};
	struct meter *meter = NULL;

	assert_int_equal(meter_attach(&options, &meter), 0);
	assert_int_equal(meter_set_owner(meter, PEER, &owner), 0);
	set_prefix(meter, "10.9.0.2/32", PEER);
	set_prefix(meter, "fd09::/64", PEER);
	set_prefix(meter, "10.9.0.3/32", OTHER);
	return meter;
}

static struct meter *adopt(void)
{
	struct meter *meter = NULL;

	assert_int_equal(meter_adopt(&adopting, &meter), 0);
	return meter;
}

static int setup(void **state)
{
	struct ifreq request = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};

	(void)state;
	tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	assert_true(tun >= 0);
	assert_int_equal(ioctl(tun, TUNSETIFF, &request), 0);
	assert_int_equal(
		run("ip addr add 10.9.0.1/24 dev tun0 && ip link set tun0 up mtu 1420 txqueuelen 100000 && "
		    "ethtool -K tun0 gro off"),
		0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(traffic); i++) {
		stop(traffic[i]);
		traffic[i] = 0;
	}
	close(tun);
	tun = -1;
	return access(FOLDER, F_OK) ? 0 : -1;
}

/* ---- traffic --------------------------------------------------------------------------------------------
 */

static void rest_a_little(void)
{
	const struct timespec pause = {.tv_nsec = 200000};

	nanosleep(&pause, NULL);
}

static uint64_t offered(int i)
{
	return __atomic_load_n(&shared->offered[i], __ATOMIC_RELAXED);
}

static uint64_t all_offered(void)
{
	return offered(0) + offered(1) + offered(2);
}

static void allow(uint64_t bytes)
{
	__atomic_store_n(&shared->allowed, bytes, __ATOMIC_RELAXED);
}

static void offer(int i, size_t size)
{
	while (all_offered() >= __atomic_load_n(&shared->allowed, __ATOMIC_RELAXED))
		rest_a_little();
	__atomic_fetch_add(&shared->offered[i], size, __ATOMIC_RELAXED);
}

static void write_for_ever(int number, uint8_t host)
{
	uint8_t packet[1400] = {0x45, [9] = 17, [12] = 10, 9, 0, host, 192, 0, 2, 1};

	for (unsigned i = 0;; i++) {
		size_t size = 28 + i * 7 % 1300;

		packet[2] = (uint8_t)(size >> 8);
		packet[3] = (uint8_t)size;
		offer(number, size);
		while (write(tun, packet, size) != (ssize_t)size)
			;
		if (i % 8 == 0)
			rest_a_little();
	}
}

/* Not faster than the device takes them: what its queue refuses, after the hook, it counts as dropped. */
static void send_for_ever(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	static const char payload[1300];
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	to.sin_addr.s_addr = inet_addr("10.9.0.2");
	for (unsigned i = 0;; i++) {
		size_t size = 1 + i * 11 % sizeof(payload);

		offer(2, size);
		(void)!sendto(fd, payload, size, 0, (struct sockaddr *)&to, sizeof(to));
		if (i % 4 == 0)
			rest_a_little();
	}
}

static void read_for_ever(void)
{
	struct pollfd readable = {.fd = tun, .events = POLLIN};
	char packet[2048];

	for (;;) {
		if (read(tun, packet, sizeof(packet)) < 0)
			poll(&readable, 1, -1);
	}
}

/* Two writers, one of them for another peer, a sender, and who takes off what is sent; all have begun. */
static void begin_traffic_up_to(uint64_t bytes)
{
	memset(shared, 0, sizeof(*shared));
	allow(bytes);
	for (int i = 0; i < 4; i++) {
		traffic[i] = fork();
		if (traffic[i] > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (i == 0)
			write_for_ever(i, 2);
		if (i == 1)
			write_for_ever(i, 3);
		if (i == 2)
			send_for_ever();
		read_for_ever();
	}
	for (int i = 0; i < 3; i++)
		while (!offered(i))
			rest_a_little();
}

static void begin_traffic(void)
{
	begin_traffic_up_to(UINT64_MAX);
}

/* The device counts what is taken off it: all of it, however far behind the reader was. */
static void end_traffic(void)
{
	struct pollfd readable = {.fd = tun, .events = POLLIN};
	char packet[2048];

	for (size_t i = 0; i < ARRAY_SIZE(traffic); i++) {
		stop(traffic[i]);
		traffic[i] = 0;
	}
	while (poll(&readable, 1, 100) > 0)
		while (read(tun, packet, sizeof(packet)) > 0)
			;
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

/* ---- sums over epochs -----------------------------------------------------------------------------------
 */

struct sums {
	struct meter_totals slots[OTHER + 1]; /* 0: what belongs to nobody */
	unsigned epochs;
};

static void add(struct sums *sums, const struct meter *meter)
{
	for (uint32_t slot = 0; slot <= OTHER; slot++) {
		struct meter_totals now;

		meter_read(meter, slot, &now);
		sums->slots[slot].upload_bytes += now.upload_bytes;
		sums->slots[slot].upload_packets += now.upload_packets;
		sums->slots[slot].download_bytes += now.download_bytes;
		sums->slots[slot].download_packets += now.download_packets;
		sums->slots[slot].refused_bytes += now.refused_bytes;
	}
	sums->epochs++;
}

/* What every caller has to do after an adoption or a hand-over. */
static void take_sealed(struct sums *sums, struct meter *meter)
{
	struct meter *sealed = NULL;
	int r = meter_open_sealed(meter, &sealed);

	if (r == -ENOENT)
		return;
	assert_int_equal(r, 0);
	assert_memory_not_equal(meter_identity(sealed)->map_uuid, meter_identity(meter)->map_uuid, 16);
	add(sums, sealed);
	assert_int_equal(meter_forget_sealed(meter, sealed), 0);
}

static void hand_over(struct sums *sums, struct meter **meter, uint32_t capacity)
{
	struct wt_owner owner;

	assert_int_equal(meter_hand_over(meter, capacity), 0);
	take_sealed(sums, *meter);
	assert_int_equal(meter_is_shadowed(*meter), 0);
	assert_int_equal(meter_get_owner(*meter, PEER, &owner), 0);
	assert_int_equal(owner.incarnation, 7);
	assert_int_equal(owner.peer_id[2], 3);
}

static uint64_t passed(const struct meter_totals *totals)
{
	return totals->upload_bytes + totals->download_bytes;
}

/* All that the device has counted since it was made, each byte once, and where it belongs. */
static void check_sums(struct sums *sums, const struct meter *meter, bool refused)
{
	uint64_t received = 0;

	add(sums, meter);
	/* After the hook: it would be counted there, and not by the device. */
	assert_int_equal(statistic("tx_dropped"), 0);
	for (uint32_t slot = 0; slot <= OTHER; slot++)
		received += sums->slots[slot].upload_bytes;
	if (refused) {
		for (uint32_t slot = 0; slot <= OTHER; slot++)
			assert_true(sums->slots[slot].upload_bytes <= statistic("rx_bytes"));
	} else {
		assert_int_equal(received, statistic("rx_bytes"));
		assert_int_equal(sums->slots[PEER].refused_bytes, 0);
		assert_true(sums->slots[OTHER].upload_bytes > 0);
	}
	assert_int_equal(sums->slots[PEER].download_bytes, statistic("tx_bytes"));
	assert_int_equal(sums->slots[0].upload_bytes + sums->slots[0].download_bytes, 0);
	assert_true(sums->slots[PEER].download_bytes > 0);
}

static void remove_all(struct meter *meter)
{
	assert_int_equal(meter_remove(meter), 0);
	assert_int_not_equal(access(FOLDER, F_OK), 0);
}

static bool has_tcx(void)
{
	uint32_t count = 0;

	return bpf_prog_query((int)if_nametoindex("lo"), (enum bpf_attach_type)46, 0, NULL, NULL, &count) !=
	       -EINVAL;
}

/* ---- tests ----------------------------------------------------------------------------------------------
 */

static void counts_each_packet_once(void **state)
{
	static const enum meter_attach ways[] = {METER_ATTACH_TCX, METER_ATTACH_TC, METER_ATTACH_XDP};

	for (size_t way = has_tcx() ? 0 : 1; way < ARRAY_SIZE(ways); way++) {
		const char *attachment;
		struct sums sums = {0};
		struct meter *meter;

		/* A device for each. */
		teardown(state);
		setup(state);
		meter = attach(ways[way], 64);
		attachment = meter_attachment(meter);
		begin_traffic();
		for (int i = 0; i < (way == 0 ? 10 : 3); i++)
			hand_over(&sums, &meter, 0);
		assert_string_equal(meter_attachment(meter), attachment);
		end_traffic();
		check_sums(&sums, meter, false);
		remove_all(meter);
	}
}

static void grows_while_packets_flow(void **state)
{
	struct meter *meter = attach(METER_ATTACH_AUTO, 8);
	const struct wt_owner owner = {.peer_id = {9}, .incarnation = 1, .flags = WT_OWNER_IN_USE};
	struct sums sums = {0};
	struct cidr prefix;

	(void)state;
	begin_traffic();
	for (uint32_t capacity = 16; capacity <= 256; capacity *= 2) {
		/* Full: the peer is refused, and counted nowhere else. */
		assert_int_equal(meter_set_owner(meter, capacity / 2, &owner), -ERANGE);
		assert_int_equal(cidr_parse("10.9.1.1/32", &prefix), 0);
		assert_int_equal(meter_set_prefix(meter, &prefix, capacity / 2, 1), -ERANGE);
		hand_over(&sums, &meter, capacity);
		assert_int_equal(meter_identity(meter)->capacity, capacity);
		assert_int_equal(meter_set_owner(meter, capacity - 1, &owner), 0);
		assert_int_equal(meter_set_prefix(meter, &prefix, capacity - 1, 1), 0);
	}
	assert_int_equal(meter_hand_over(&meter, 8), -ERANGE);
	assert_int_equal(meter_hand_over(&meter, WT_MAX_CAPACITY + 1), -ERANGE);
	end_traffic();
	check_sums(&sums, meter, false);
	remove_all(meter);
}

static void wait_until_exhausted(struct meter *meter, uint32_t slot)
{
	struct meter_limit_state limit = {0};

	for (int i = 0; i < 6000 && !limit.exhausted; i++) {
		usleep(10000);
		if (slot)
			assert_int_equal(meter_read_peer_limit(meter, slot, &limit), 0);
		else
			meter_read_limit(meter, &limit);
	}
	assert_true(limit.exhausted);
}

/*
 * A limit of the peer, or of all, whose credit is used up some hand-overs later: with growth in between.
 * Until two of them are done there are not enough packets, however long they take.
 */
static void limit_holds(uint32_t slot, uint32_t mask)
{
	const uint64_t ceiling = 60000000;
	const struct meter_grant grant = {3, 4, ceiling, mask};
	struct meter *meter = attach(METER_ATTACH_AUTO, 64);
	struct meter_limit_state limit = {0};
	struct sums sums = {0};
	uint64_t counted = 0, uploads, last = 0;
	unsigned times = 0;

	assert_int_equal(slot ? meter_grant_peer(meter, slot, &grant) : meter_grant(meter, &grant), 0);
	begin_traffic_up_to(ceiling / 3);
	for (; times < 4 && !limit.exhausted; times++) {
		if (times)
			allow(times == 1 ? ceiling * 2 / 3 : UINT64_MAX);
		hand_over(&sums, &meter, 64U << times);
		if (slot)
			assert_int_equal(meter_read_peer_limit(meter, slot, &limit), 0);
		else
			meter_read_limit(meter, &limit);
		/* The cycle goes on where it was. */
		assert_int_equal(limit.grant.cycle, 3);
		assert_int_equal(limit.grant.grant_seq, 4);
		assert_int_equal(limit.grant.ceiling, ceiling);
		assert_true(limit.cycle_counted >= last && limit.cycle_counted <= ceiling);
		last = limit.cycle_counted;
	}
	assert_true(last > 0 && times > 1);
	wait_until_exhausted(meter, slot);
	/* Exhausted stays exhausted. */
	hand_over(&sums, &meter, 0);
	wait_until_exhausted(meter, slot);
	end_traffic();
	check_sums(&sums, meter, true);
	for (uint32_t i = slot ? slot : 1; i <= (slot ? slot : OTHER); i++) {
		uploads = sums.slots[i].upload_bytes;
		counted += (mask & WT_UPLOADS ? uploads : 0) +
			   (mask & WT_DOWNLOADS ? passed(&sums.slots[i]) - uploads : 0);
	}
	assert_true(counted <= ceiling);
	assert_true(counted > ceiling - BOUND);
	remove_all(meter);
}

static void a_peers_limit_holds(void **state)
{
	(void)state;
	limit_holds(PEER, WT_UPLOADS | WT_DOWNLOADS);
}

static void the_interfaces_limit_holds(void **state)
{
	(void)state;
	limit_holds(0, WT_UPLOADS);
}

static uint64_t boot_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void the_next_cycle_and_reasons_go_on(void **state)
{
	const struct meter_grant grant = {1, 1, 1000, WT_UPLOADS}, next = {2, 1, 5000000, WT_UPLOADS};
	const uint64_t late = boot_now() + 3600000000000;
	struct meter *meter = attach(METER_ATTACH_AUTO, 64);
	struct meter_limit_state limit;
	struct sums sums = {0};
	uint64_t turn;

	(void)state;
	assert_int_equal(meter_grant_peer(meter, PEER, &grant), 0);
	assert_int_equal(meter_grant_peer_next(meter, PEER, &next, late), 0);
	assert_int_equal(meter_set_peer_refuse(meter, OTHER, WT_REFUSE_ADMIN), 0);
	begin_traffic();
	wait_until_exhausted(meter, PEER);
	hand_over(&sums, &meter, 128);
	wait_until_exhausted(meter, PEER);
	assert_int_equal(meter_read_peer_limit(meter, PEER, &limit), 0);
	assert_int_equal(limit.next.cycle, 2);
	assert_int_equal(limit.next_not_before, late);
	assert_int_equal(meter_read_peer_limit(meter, OTHER, &limit), 0);
	assert_int_equal(limit.refuse, WT_REFUSE_ADMIN);
	/* The kernel takes it up, in a new epoch, and not before its time. */
	turn = boot_now() + 1000000000;
	assert_int_equal(meter_grant_peer_next(meter, PEER, &next, turn), 0);
	hand_over(&sums, &meter, 0);
	for (int i = 0; i < 6000 && limit.grant.cycle != 2; i++) {
		usleep(10000);
		assert_int_equal(meter_read_peer_limit(meter, PEER, &limit), 0);
	}
	assert_int_equal(limit.grant.cycle, 2);
	assert_true(boot_now() >= turn);
	wait_until_exhausted(meter, PEER);
	end_traffic();
	assert_int_equal(meter_read_peer_limit(meter, PEER, &limit), 0);
	assert_true(limit.cycle_counted <= 5000000 && limit.cycle_counted > 5000000 - BOUND);
	check_sums(&sums, meter, true);
	assert_int_equal(sums.slots[OTHER].upload_bytes, 0);
	assert_int_equal(sums.slots[PEER].upload_bytes <= 5001000, 1);
	remove_all(meter);
}

/* The pins as the layout before this one left them: `carried` was 0 and reserved. */
static void age(void)
{
	struct wt_meta meta;
	uint32_t zero = 0;
	int fd = bpf_obj_get(FOLDER "/live/meta");

	assert_int_equal(bpf_map_lookup_elem(fd, &zero, &meta), 0);
	meta.abi = WT_METER_ABI_READ;
	assert_int_equal(bpf_map_update_elem(fd, &zero, &meta, BPF_ANY), 0);
	close(fd);
}

static void takes_the_layout_before_over(void **state)
{
	struct meter *meter = attach(METER_ATTACH_AUTO, 64);
	struct sums sums = {0};

	(void)state;
	meter_close(meter);
	age();
	begin_traffic();
	meter = adopt();
	assert_true(meter_is_outdated(meter));
	hand_over(&sums, &meter, 0);
	assert_false(meter_is_outdated(meter));
	meter_close(meter);
	meter = adopt();
	end_traffic();
	check_sums(&sums, meter, false);
	remove_all(meter);
}

/* ---- killed ---------------------------------------------------------------------------------------------
 */

/* The steps between which it matters where a process dies: what changes anything outside of it. */
static bool is_step(const struct user_regs_struct *registers)
{
	if (registers->orig_rax == SYS_bpf)
		return registers->rdi == BPF_OBJ_PIN || registers->rdi == BPF_LINK_UPDATE ||
		       registers->rdi == BPF_MAP_UPDATE_ELEM;
	return registers->orig_rax == SYS_rename || registers->orig_rax == SYS_mkdir;
}

/* Lets the child go to its nth step and kills it just before; false when it came to its end first. */
static bool kill_before_step(pid_t child, int n)
{
	struct user_regs_struct registers;
	bool entering = false;
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD), 0);
	for (;;) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return false;
		}
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
			continue;
		entering = !entering;
		assert_int_equal(ptrace(PTRACE_GETREGS, child, NULL, &registers), 0);
		if (entering && is_step(&registers) && n-- == 0) {
			kill(child, SIGKILL);
			assert_int_equal(waitpid(child, &status, 0), child);
			return true;
		}
	}
}

static void hand_over_and_end(uint32_t capacity)
{
	struct meter *meter = NULL;

	raise(SIGSTOP);
	if (meter_adopt(&adopting, &meter) || meter_hand_over(&meter, capacity))
		_exit(1);
	_exit(0);
}

/*
 * A process dies before its first, second, … step of a hand-over, until one comes to its end; each time the
 * next one finds a whole meter and goes on, and all that passed is of the limit, which is not used up.
 */
static void survives_death_at_every_step(void **state)
{
	const uint64_t ceiling = 100000000000;
	const struct meter_grant grant = {1, 1, ceiling, WT_UPLOADS | WT_DOWNLOADS};
	struct meter *meter = attach(METER_ATTACH_AUTO, 8);
	struct meter_limit_state limit;
	struct sums sums = {0};
	bool killed = true;
	int step = 0;

	(void)state;
	assert_int_equal(meter_grant_peer(meter, PEER, &grant), 0);
	meter_close(meter);
	begin_traffic();
	for (; killed; step++) {
		pid_t child = fork();

		if (child == 0) {
			ptrace(PTRACE_TRACEME, 0, NULL, NULL);
			hand_over_and_end(0);
		}
		killed = kill_before_step(child, step);
		meter = adopt();
		take_sealed(&sums, meter);
		assert_int_equal(meter_is_shadowed(meter), 0);
		assert_int_equal(meter_read_peer_limit(meter, PEER, &limit), 0);
		assert_int_equal(limit.grant.ceiling, ceiling);
		meter_close(meter);
	}
	assert_true(step > 20);
	/* Some died before the swap, and were undone; some after it, and were finished. */
	assert_true(sums.epochs > 3 && sums.epochs < (unsigned)step);
	end_traffic();
	meter = adopt();
	assert_int_equal(meter_read_peer_limit(meter, PEER, &limit), 0);
	check_sums(&sums, meter, false);
	assert_int_equal(limit.cycle_counted, passed(&sums.slots[PEER]));
	assert_int_equal(access(FOLDER "/next", F_OK) && access(FOLDER "/sealed", F_OK), 1);
	remove_all(meter);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void survives_death_at_any_moment(void **state)
{
	const uint64_t ceiling = 30000000;
	const struct meter_grant grant = {1, 1, ceiling, WT_UPLOADS};
	struct meter *meter = attach(METER_ATTACH_AUTO, 8);
	struct sums sums = {0};
	uint64_t counted = 0, begun;
	int duration;

	(void)state;
	srand(4711);
	assert_int_equal(meter_grant(meter, &grant), 0);
	/* Whose processes are not to have the lock. */
	meter_close(meter);
	begin_traffic();
	meter = adopt();
	begun = now_us();
	hand_over(&sums, &meter, 0);
	duration = (int)(now_us() - begun);
	meter_close(meter);
	/* More of them, and later, where the machine was too busy to let some be done. */
	for (int i = 0; i < 8 || (sums.epochs <= 2 && i < 80); i++) {
		pid_t child = fork();

		if (child == 0) {
			meter = NULL;
			if (meter_adopt(&adopting, &meter))
				_exit(1);
			for (struct meter *sealed = NULL;;) {
				if (meter_open_sealed(meter, &sealed) == 0)
					_exit(0);
				if (meter_hand_over(&meter, 0))
					_exit(1);
			}
		}
		usleep((useconds_t)(rand() % (2 * duration + i / 8 * duration)));
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, NULL, 0), child);
		meter = adopt();
		take_sealed(&sums, meter);
		meter_close(meter);
	}
	meter = adopt();
	wait_until_exhausted(meter, 0);
	end_traffic();
	check_sums(&sums, meter, true);
	for (uint32_t slot = 1; slot <= OTHER; slot++)
		counted += sums.slots[slot].upload_bytes;
	assert_true(counted <= ceiling);
	assert_true(counted > ceiling - BOUND);
	assert_true(sums.epochs > 2);
	remove_all(meter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(counts_each_packet_once, setup, teardown),
		cmocka_unit_test_setup_teardown(grows_while_packets_flow, setup, teardown),
		cmocka_unit_test_setup_teardown(a_peers_limit_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(the_interfaces_limit_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_cycle_and_reasons_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_the_layout_before_over, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_death_at_every_step, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_death_at_any_moment, setup, teardown),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || namespace_enter() || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mkdir("/run/bpf", 0700) || mount("bpf", "/run/bpf", "bpf", 0, "mode=0700")) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
