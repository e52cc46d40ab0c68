// SPDX-License-Identifier: BSD-2-Clause
/*
 * The loaded programs, fed with crafted packets by BPF_PROG_TEST_RUN through the library's own pins: lengths,
 * attribution, limits. Runs in a network and a mount namespace of its own, which vanish with it; needs root.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER   "/run/bpf/meter"
#define ETHERNET 14
#define PASSED   ((uint32_t)-1) /* go on with the next program */
#define DROPPED  2
#define PEER     7

struct fixture {
	struct meter *meter;
	int ingress, egress;
	struct wt_pool *pool;
	const struct wt_interface_cell *cells;
};

static const struct meter_options options = {.pin_folder = FOLDER, .interface = "left", .capacity = 100};

static struct cidr prefix(const char *text)
{
	struct cidr cidr;

	assert_int_equal(cidr_parse(text, &cidr), 0);
	return cidr;
}

static void set_prefix(struct fixture *fixture, const char *text, uint32_t slot)
{
	struct cidr cidr = prefix(text);

	assert_int_equal(meter_set_prefix(fixture->meter, &cidr, slot, 1), 0);
}

static void *map_pin(const char *name, size_t size)
{
	char path[128];
	void *mapping;
	int fd;

	snprintf(path, sizeof(path), FOLDER "/live/%s", name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(mapping != MAP_FAILED);
	close(fd);
	return mapping;
}

static void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	use_cpu(0);
	assert_int_equal(meter_attach(&options, &fixture->meter), 0);
	fixture->ingress = bpf_obj_get(FOLDER "/live/ingress");
	fixture->egress = bpf_obj_get(FOLDER "/live/egress");
	assert_true(fixture->ingress >= 0 && fixture->egress >= 0);
	fixture->pool = map_pin("pool", 4096);
	fixture->cells = map_pin("interface_cells", 4096);
	set_prefix(fixture, "10.0.0.7/32", PEER);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	int r = meter_remove(fixture->meter);

	close(fixture->ingress);
	close(fixture->egress);
	munmap(fixture->pool, 4096);
	munmap((void *)fixture->cells, 4096);
	free(fixture);
	return r == 0 && access(FOLDER, F_OK) ? 0 : -1;
}

/* A frame: Ethernet, then what is given. `size` counts from the IP header. */
struct frame {
	uint8_t bytes[2048];
	uint32_t size;
	uint32_t gso_size, gso_segs;
};

static struct frame frame4(const char *source, const char *destination, uint8_t protocol, uint32_t size)
{
	struct frame frame = {.size = size};
	struct cidr from = prefix(source), to = prefix(destination);
	uint8_t *ip = frame.bytes + ETHERNET;

	frame.bytes[12] = 0x08;
	ip[0] = 0x45;
	ip[9] = protocol;
	memcpy(ip + 12, from.bytes, 4);
	memcpy(ip + 16, to.bytes, 4);
	ip[32] = 0x50; /* where TCP has the length of its header */
	return frame;
}

static struct frame frame6(const char *source, const char *destination, uint8_t protocol, uint32_t size)
{
	struct frame frame = {.size = size};
	struct cidr from = prefix(source), to = prefix(destination);
	uint8_t *ip = frame.bytes + ETHERNET;

	frame.bytes[12] = 0x86;
	frame.bytes[13] = 0xdd;
	ip[0] = 0x60;
	ip[6] = protocol;
	memcpy(ip + 8, from.bytes, 16);
	memcpy(ip + 24, to.bytes, 16);
	return frame;
}

static uint32_t run_times(int program, const struct frame *frame, int repeat)
{
	struct __sk_buff context = {.gso_size = frame->gso_size, .gso_segs = frame->gso_segs};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame->bytes, .data_size_in = ETHERNET + frame->size,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = repeat);

	assert_int_equal(bpf_prog_test_run_opts(program, &run), 0);
	return run.retval;
}

static uint32_t run(int program, const struct frame *frame)
{
	return run_times(program, frame, 1);
}

static void assert_counts(const struct fixture *fixture, uint32_t slot, uint64_t up_bytes,
			  uint64_t up_packets, uint64_t down_bytes, uint64_t down_packets)
{
	struct meter_totals totals;

	meter_read(fixture->meter, slot, &totals);
	assert_int_equal(totals.upload_bytes, up_bytes);
	assert_int_equal(totals.upload_packets, up_packets);
	assert_int_equal(totals.download_bytes, down_bytes);
	assert_int_equal(totals.download_packets, down_packets);
}

static uint64_t unparsed(const struct fixture *fixture)
{
	struct meter_interface_totals totals;

	meter_read_interface(fixture->meter, &totals);
	return totals.unparsed_packets;
}

static uint64_t counted(const struct fixture *fixture)
{
	struct meter_interface_totals totals;

	meter_read_interface(fixture->meter, &totals);
	return totals.counted;
}

/* Credit is neither made nor lost: what was drawn is counted or still on a lease. */
static void assert_conserved(const struct fixture *fixture)
{
	uint64_t held = 0;

	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++)
		held += fixture->cells[cpu].lease;
	assert_int_equal(fixture->pool->drawn, counted(fixture) + held);
}

static void grant(struct fixture *fixture, uint64_t cycle, uint64_t seq, uint64_t ceiling, uint32_t mask)
{
	const struct meter_grant new_grant = {cycle, seq, ceiling, mask};

	assert_int_equal(meter_grant(fixture->meter, &new_grant), 0);
}

static bool exhausted(const struct fixture *fixture)
{
	struct meter_limit_state limit;

	meter_read_limit(fixture->meter, &limit);
	return limit.exhausted;
}

static void counts_the_longest_prefix(void **state)
{
	struct fixture *fixture = *state;
	struct cidr site = prefix("10.1.0.0/16");
	struct frame frame = frame4("10.1.2.3", "10.0.0.7", 17, 100);

	set_prefix(fixture, "10.1.0.0/16", 8);
	set_prefix(fixture, "10.1.2.0/24", 9);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_counts(fixture, 9, 100, 1, 0, 0);
	/* The other way the same packet belongs to its destination. */
	assert_int_equal(run(fixture->egress, &frame), PASSED);
	assert_counts(fixture, PEER, 0, 0, 100, 1);
	frame = frame4("10.1.3.3", "10.0.0.7", 17, 60);
	run(fixture->ingress, &frame);
	assert_counts(fixture, 8, 60, 1, 0, 0);
	assert_int_equal(meter_delete_prefix(fixture->meter, &site), 0);
	assert_int_equal(meter_delete_prefix(fixture->meter, &site), -ENOENT);
	run(fixture->ingress, &frame);
	assert_counts(fixture, 8, 60, 1, 0, 0);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 60, 1, 0, 0);
}

static void counts_ipv6_prefixes(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame6("fd00:1::5", "fd00:2::9", 17, 200);

	set_prefix(fixture, "fd00:1::/64", 3);
	set_prefix(fixture, "fd00:2::9/128", 4);
	run(fixture->ingress, &frame);
	run(fixture->egress, &frame);
	run(fixture->egress, &frame);
	assert_counts(fixture, 3, 200, 1, 0, 0);
	assert_counts(fixture, 4, 0, 0, 400, 2);
}

static void counts_strangers_apart(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("192.0.2.1", "192.0.2.2", 17, 90);
	struct frame frame_v6 = frame6("fd00::1", "fd00::2", 58, 70);

	run(fixture->ingress, &frame);
	run(fixture->egress, &frame_v6);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 90, 1, 70, 1);
	assert_int_equal(unparsed(fixture), 0);
}

static void counts_prefixes_as_they_move(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 50);

	run(fixture->ingress, &frame);
	set_prefix(fixture, "10.0.0.7/32", 8);
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 50, 1, 0, 0);
	assert_counts(fixture, 8, 50, 1, 0, 0);
}

static void weighs_tcp_aggregates(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 6, 1040);

	/* 1,000 bytes behind headers of 40, 300 at a time: four segments, three more headers. */
	frame.gso_size = 300;
	frame.gso_segs = 0;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 1160, 4, 0, 0);
	frame.gso_segs = 65535;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 2320, 8, 0, 0);
	/* TCP options are repeated, too: 12 bytes of them leave 988. */
	frame.bytes[ETHERNET + 32] = 0x80;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 2320 + 1040 + 3 * 52, 12, 0, 0);
	assert_int_equal(unparsed(fixture), 0);
}

static void weighs_udp_aggregates_behind_ipv6_extensions(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame6("fd00::1", "fd00:1::5", 0, 40 + 8 + 24 + 8 + 500);
	uint8_t *extensions = frame.bytes + ETHERNET + 40;

	set_prefix(fixture, "fd00:1::5/128", 3);
	extensions[0] = 60; /* hop-by-hop of 8 bytes, then destination options */
	extensions[8] = 17; /* of 24 bytes, then UDP */
	extensions[8 + 1] = 2;
	frame.gso_size = 100;
	run(fixture->egress, &frame);
	assert_counts(fixture, 3, 0, 0, 580 + 4 * 80, 5);
	assert_int_equal(unparsed(fixture), 0);
}

static void counts_what_it_cannot_follow_by_length(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 4, 1040);

	frame.gso_size = 300;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 1040, 1, 0, 0);
	assert_int_equal(unparsed(fixture), 1);
	frame.gso_size = 0;
	frame.gso_segs = 4;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 2080, 2, 0, 0);
	assert_int_equal(unparsed(fixture), 2);
}

static void counts_truncated_packets_apart(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 6, 19);
	struct frame frame_v6 = frame6("fd00::1", "fd00::2", 6, 39);

	/* The kernel's test runner itself refuses a few of the shortest; whichever it takes must be counted.
	 */
	frame.bytes[12] = frame_v6.bytes[12] = 0x12;
	run(fixture->ingress, &frame);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 19, 1, 0, 0);
	run(fixture->ingress, &frame_v6);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 58, 2, 0, 0);
	assert_int_equal(unparsed(fixture), 2);
	/* A whole IP header with half a TCP header: the peer's, by its length. */
	frame = frame4("10.0.0.7", "192.0.2.1", 6, 30);
	frame.gso_size = 1;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 30, 1, 0, 0);
	assert_int_equal(unparsed(fixture), 3);
}

/* Sends packets of changing size on both CPUs until one is refused; returns how many bytes passed. */
static uint64_t send_until_refused(struct fixture *fixture)
{
	uint64_t before = counted(fixture);

	for (unsigned i = 0;; i++) {
		struct frame frame = frame4("10.0.0.7", "192.0.2.1", 6, 41 + i * 37 % 1400);

		frame.gso_size = i % 3 ? 1 + i % 11 : 0; /* up to 57 kB on the wire */
		use_cpu((int)(i % 2));
		if (run(fixture->ingress, &frame) == DROPPED)
			break;
		assert_true(i < 1000000);
	}
	use_cpu(0);
	assert_conserved(fixture);
	return counted(fixture) - before;
}

static void limits_to_the_ceiling(void **state)
{
	static const uint64_t ceilings[] = {2000000, 10000000, 12345678, 999999};
	struct fixture *fixture = *state;
	struct meter_limit_state limit;

	for (size_t i = 0; i < ARRAY_SIZE(ceilings); i++) {
		uint64_t admitted;

		grant(fixture, i + 1, 1, ceilings[i], WT_UPLOADS);
		admitted = send_until_refused(fixture);
		assert_true(admitted <= ceilings[i]);
		assert_true(ceilings[i] - admitted < 1000000);
		meter_read_limit(fixture->meter, &limit);
		assert_int_equal(limit.cycle_counted, admitted);
		assert_int_equal(limit.grant.ceiling, ceilings[i]);
		assert_true(limit.exhausted);
	}
}

/* A ceiling that single packets reach to the byte lets the last of them pass and not one byte more. */
static void spends_the_last_byte(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	grant(fixture, 1, 1, 5000, WT_UPLOADS);
	for (int i = 0; i < 5; i++)
		assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_false(exhausted(fixture));
	frame.size = 28;
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_true(exhausted(fixture));
	assert_int_equal(counted(fixture), 5000);
	assert_conserved(fixture);
}

static void refuses_until_a_newer_grant(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "10.0.0.7", 17, 1000), small = frame, stranger;
	const struct meter_grant same = {3, 5, 900000, WT_UPLOADS}, older = {2, 9, 900000, WT_UPLOADS};
	struct meter_totals totals;

	stranger = frame4("192.0.2.1", "192.0.2.2", 17, 500);
	small.size = 28;
	grant(fixture, 3, 5, 1500, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	/* 500 bytes are left, but refusal is for good, both ways, and for all. */
	assert_int_equal(run(fixture->ingress, &small), DROPPED);
	assert_int_equal(run(fixture->egress, &small), DROPPED);
	assert_int_equal(run(fixture->ingress, &stranger), DROPPED);
	assert_int_equal(meter_grant(fixture->meter, &same), -EALREADY);
	assert_int_equal(meter_grant(fixture->meter, &older), -EALREADY);
	assert_int_equal(run(fixture->ingress, &small), DROPPED);
	meter_read(fixture->meter, PEER, &totals);
	assert_int_equal(totals.refused_bytes, 1000 + 3 * 28);
	assert_int_equal(totals.refused_packets, 4);
	assert_counts(fixture, PEER, 1000, 1, 0, 0);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 0, 0, 0, 0);
	grant(fixture, 3, 6, 1500, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &small), PASSED);
	assert_int_equal(run(fixture->ingress, &stranger), PASSED);
}

static void raises_within_a_cycle(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	for (uint64_t seq = 1; seq <= 1000; seq++) {
		grant(fixture, 1, seq, 1000 * seq, WT_UPLOADS);
		assert_int_equal(run(fixture->ingress, &frame), PASSED);
		if (seq % 2)
			assert_int_equal(run(fixture->ingress, &frame), DROPPED);
		assert_int_equal(counted(fixture), 1000 * seq);
		assert_conserved(fixture);
	}
}

static void lowers_below_what_was_counted(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	grant(fixture, 1, 1, WT_NO_CEILING, WT_UPLOADS);
	run_times(fixture->ingress, &frame, 5000);
	grant(fixture, 1, 2, 2000000, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(counted(fixture), 5000000);
	grant(fixture, 1, 3, 5001000, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(counted(fixture), 5001000);
	assert_conserved(fixture);
}

/* A CPU that fell idle under a large grant holds a lease; the small grant after it is still usable. */
static void keeps_the_bound_with_an_idle_lease(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);
	int passed = 0;

	grant(fixture, 1, 1, 1000000000000, WT_UPLOADS);
	use_cpu(1);
	run(fixture->ingress, &frame);
	use_cpu(0);
	grant(fixture, 2, 1, 1100000, WT_UPLOADS);
	while (run(fixture->ingress, &frame) == PASSED)
		passed++;
	assert_true(passed * 1000 > 1100000 - 1000000 && passed * 1000 <= 1100000);
	assert_conserved(fixture);
}

static void counts_by_the_mask(void **state)
{
	static const uint32_t masks[] = {WT_UPLOADS, WT_DOWNLOADS, WT_UPLOADS | WT_DOWNLOADS};
	static const uint64_t expected[] = {100, 30, 130};
	struct fixture *fixture = *state;
	struct frame up = frame4("10.0.0.7", "192.0.2.1", 17, 100),
		     down = frame4("192.0.2.1", "10.0.0.7", 17, 30);
	struct frame stranger = frame4("192.0.2.1", "192.0.2.2", 17, 500);
	struct meter_limit_state limit;

	/* Before the first grant nothing is counted against a limit. */
	run(fixture->ingress, &up);
	assert_int_equal(counted(fixture), 0);
	for (uint64_t i = 0; i < ARRAY_SIZE(masks); i++) {
		grant(fixture, i + 1, 1, 130, masks[i]);
		assert_int_equal(run(fixture->ingress, &up), PASSED);
		assert_int_equal(run(fixture->egress, &down), PASSED);
		assert_int_equal(run(fixture->ingress, &stranger), PASSED);
		meter_read_limit(fixture->meter, &limit);
		assert_int_equal(limit.cycle_counted, expected[i]);
		assert_int_equal(limit.grant.mask, masks[i]);
		assert_conserved(fixture);
	}
}

static void refuses_for_other_reasons(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "10.0.0.7", 17, 100);

	grant(fixture, 1, 1, 1000, WT_UPLOADS);
	for (uint32_t reasons = 1; reasons <= (WT_REFUSE_ADMIN | WT_REFUSE_BILLING); reasons++) {
		meter_set_refuse(fixture->meter, reasons);
		assert_int_equal(run(fixture->ingress, &frame), DROPPED);
		assert_int_equal(run(fixture->egress, &frame), DROPPED);
	}
	assert_false(exhausted(fixture));
	/* A grant does not lift them. */
	grant(fixture, 1, 2, 2000, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	meter_set_refuse(fixture->meter, 0);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(counted(fixture), 100);
}

static void tells_of_exhaustion_once(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	for (uint64_t seq = 1; seq <= 3; seq++) {
		grant(fixture, 1, seq, 1500, WT_UPLOADS);
		assert_int_equal(meter_drain_events(fixture->meter), 0);
		for (int i = 0; i < 10; i++)
			run(fixture->ingress, &frame);
		assert_int_equal(meter_drain_events(fixture->meter), 1);
	}
}

/* Whatever part of a grant was stored when its process died, the next one finds it wholly in force. */
static void finishes_a_grant_after_a_crash(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);
	struct meter_limit_state limit;
	struct wt_pool *pool = fixture->pool;

	grant(fixture, 1, 1, 10000, WT_UPLOADS);
	run(fixture->ingress, &frame);
	for (uint64_t seq = 2; seq < 9; seq++) {
		pool->pending_mask = WT_DOWNLOADS;
		pool->pending_base = 1000;
		pool->pending_cycle = 2;
		pool->pending_grant_seq = seq;
		pool->pending_ceiling = 1000 + seq;
		pool->pending_generation = pool->generation + 1;
		if (seq > 2)
			pool->mask = WT_DOWNLOADS;
		if (seq > 3)
			pool->cycle = 2;
		if (seq > 4)
			pool->grant_seq = seq;
		if (seq > 5)
			pool->ceiling = pool->pending_ceiling;
		if (seq > 6)
			pool->generation = pool->pending_generation;
		meter_close(fixture->meter);
		assert_int_equal(meter_adopt(&options, &fixture->meter), 0);
		meter_read_limit(fixture->meter, &limit);
		assert_int_equal(limit.grant.cycle, 2);
		assert_int_equal(limit.grant.grant_seq, seq);
		assert_int_equal(limit.grant.ceiling, seq);
		assert_int_equal(limit.grant.mask, WT_DOWNLOADS);
		assert_int_equal(limit.cycle_counted, 0);
		assert_int_equal(pool->generation, seq + 1);
		assert_int_equal(pool->pending_generation, 0);
	}
}

struct sender {
	const struct fixture *fixture;
	const bool *stop;
	int cpu;
	uint64_t sent;
};

static void *send_on_a_cpu(void *argument)
{
	struct sender *sender = argument;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);
	int program = sender->fixture->ingress;

	use_cpu(sender->cpu);
	while (!__atomic_load_n(sender->stop, __ATOMIC_RELAXED)) {
		run_times(program, &frame, 1000);
		sender->sent += 1000;
	}
	return NULL;
}

/* Two CPUs race for the same credit while the limit is raised, lowered and lifted 1,000 times. */
static void stays_exact_under_every_transition(void **state)
{
	struct fixture *fixture = *state;
	bool stop = false;
	struct sender senders[2] = {{fixture, &stop, 0, 0}, {fixture, &stop, 1, 0}};
	pthread_t threads[2];
	struct meter_totals totals;
	uint64_t highest = 0;

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_on_a_cpu, &senders[i]), 0);
	for (uint64_t seq = 1; seq <= 1000; seq++) {
		uint64_t ceiling = counted(fixture) + (seq * 7919) % 3000000;

		if (seq % 5 == 0)
			ceiling -= ceiling < 500000 ? ceiling : 500000;
		highest = ceiling > highest ? ceiling : highest;
		grant(fixture, 1, seq, ceiling, WT_UPLOADS);
		assert_true(counted(fixture) <= highest);
		usleep(200);
	}
	while (!exhausted(fixture))
		usleep(1000);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	meter_read(fixture->meter, PEER, &totals);
	assert_true(counted(fixture) <= highest);
	assert_int_equal(totals.upload_bytes, counted(fixture));
	assert_int_equal(totals.upload_packets + totals.refused_packets, senders[0].sent + senders[1].sent);
	assert_int_equal(totals.upload_bytes, totals.upload_packets * 1000);
	assert_conserved(fixture);
}

/* Namespaces of its own: an Ethernet pair that is never up, and a BPF file system; all go with the process.
 */
static int make_laboratory(void)
{
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	if (mount("test", "/run", "tmpfs", 0, NULL) || mkdir("/run/bpf", 0700) ||
	    mount("test", "/run/bpf", "bpf", 0, "mode=0700"))
		return -errno;
	return system("ip link add left type veth peer name right") ? -EIO : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(counts_the_longest_prefix, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_ipv6_prefixes, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_strangers_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_prefixes_as_they_move, setup, teardown),
		cmocka_unit_test_setup_teardown(weighs_tcp_aggregates, setup, teardown),
		cmocka_unit_test_setup_teardown(weighs_udp_aggregates_behind_ipv6_extensions, setup,
						teardown),
		cmocka_unit_test_setup_teardown(counts_what_it_cannot_follow_by_length, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_truncated_packets_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_to_the_ceiling, setup, teardown),
		cmocka_unit_test_setup_teardown(spends_the_last_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_until_a_newer_grant, setup, teardown),
		cmocka_unit_test_setup_teardown(raises_within_a_cycle, setup, teardown),
		cmocka_unit_test_setup_teardown(lowers_below_what_was_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_the_bound_with_an_idle_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_by_the_mask, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_for_other_reasons, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_of_exhaustion_once, setup, teardown),
		cmocka_unit_test_setup_teardown(finishes_a_grant_after_a_crash, setup, teardown),
		cmocka_unit_test_setup_teardown(stays_exact_under_every_transition, setup, teardown),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
