// SPDX-License-Identifier: BSD-2-Clause
/* The programs under test: the real meter's, taken from the hooks where it has attached them, and others. */
#include "bench.h"

#include "driver.skel.h"
#include "naive.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ETHERNET 14
#define NEXT     ((uint32_t)-1)
#define PINS     "/sys/fs/bpf/bench-%s"
#define MUCH     (1ULL << 60)

struct driver_bpf *rig_driver(void)
{
	struct driver_bpf *driver = driver_bpf__open_and_load();

	if (!driver)
		fail("the driver programs do not load (root is needed)");
	return driver;
}

static void fill_tries(const struct naive_bpf *naive, const struct bench_peers *peers)
{
	for (uint32_t slot = 1; slot <= peers->count; slot++) {
		const struct cidr *prefix = &peers->prefixes[slot - 1];
		struct naive_key4 key4 = {.prefix_length = prefix->prefix_length};
		struct naive_key6 key6 = {.prefix_length = prefix->prefix_length};
		bool v4 = peers->family == AF_INET;

		memcpy(key4.address, prefix->bytes, 4);
		memcpy(key6.address, prefix->bytes, 16);
		if (bpf_map_update_elem(bpf_map__fd(v4 ? naive->maps.trie4 : naive->maps.trie6),
					v4 ? (void *)&key4 : (void *)&key6, &slot, BPF_ANY))
			fail("a trie does not take prefix %u", slot);
	}
}

static void fill_hash(const struct naive_bpf *naive, const struct bench_peers *peers)
{
	struct naive_count zeroes[BENCH_CPUS] = {0};

	for (uint32_t slot = 0; slot <= peers->count; slot++)
		if (bpf_map_update_elem(bpf_map__fd(naive->maps.hash), &slot, zeroes, BPF_ANY))
			fail("the hash does not take slot %u", slot);
}

struct naive_bpf *rig_naive(const struct bench_peers *peers, uint32_t l3_offset)
{
	struct naive_bpf *naive = naive_bpf__open();
	const uint32_t entries = peers->count + 1;

	if (!naive)
		fail("the programs to compare with do not open");
	naive->rodata->l3_offset = l3_offset;
	if (bpf_map__set_max_entries(naive->maps.trie4, entries) ||
	    bpf_map__set_max_entries(naive->maps.trie6, entries) ||
	    bpf_map__set_max_entries(naive->maps.hash, entries) ||
	    bpf_map__set_max_entries(naive->maps.array, entries) || naive_bpf__load(naive))
		fail("the programs to compare with do not load");
	fill_tries(naive, peers);
	fill_hash(naive, peers);
	return naive;
}

void rig_give(struct meter *meter, const struct bench_peers *peers)
{
	for (uint32_t slot = 1; slot <= peers->count; slot++) {
		int r = meter_set_prefix(meter, &peers->prefixes[slot - 1], slot, 1);

		if (r < 0)
			fail("the meter does not take prefix %u of %u: %s", slot, peers->count, strerror(-r));
	}
}

struct meter *rig_meter(const char *interface, const struct bench_peers *peers)
{
	return rig_meter_by(METER_ATTACH_AUTO, interface, peers);
}

struct meter *rig_meter_by(enum meter_attach how, const char *interface, const struct bench_peers *peers)
{
	char folder[64];
	const struct meter_options options = {
		.pin_folder = folder,
		.interface = interface,
		.attach = how,
		.capacity = peers->count + 1 > 64 ? peers->count + 1 : 64,
	};
	struct meter *meter = NULL;
	int r;

	snprintf(folder, sizeof(folder), PINS, interface);
	r = meter_attach(&options, &meter);
	if (r < 0)
		fail("no meter on %s: %s", interface, strerror(-r));
	rig_give(meter, peers);
	return meter;
}

void rig_remove(struct meter *meter)
{
	int r = meter_remove(meter);

	if (r < 0)
		fail("the meter is not removed: %s", strerror(-r));
}

int rig_attached(const char *interface, unsigned hook)
{
	uint32_t ids[4] = {0}, count = 4, flags = 0;
	int fd = -1;

	if (hook == BPF_XDP ? bpf_xdp_query_id((int)if_nametoindex(interface), XDP_FLAGS_SKB_MODE, ids) == 0
			    : bpf_prog_query((int)if_nametoindex(interface), (enum bpf_attach_type)hook, 0,
					     &flags, ids, &count) == 0 &&
				      count > 0)
		fd = bpf_prog_get_fd_by_id(ids[0]);
	if (fd < 0)
		fail("no program is attached to %s", interface);
	return fd;
}

int rig_attach(int program, const char *interface, unsigned hook)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = hook == BPF_XDP ? XDP_FLAGS_SKB_MODE : 0);
	int link = bpf_link_create(program, (int)if_nametoindex(interface), (enum bpf_attach_type)hook,
				   &options);

	if (link < 0)
		fail("cannot attach to %s: %s", interface, strerror(-link));
	return link;
}

void rig_limit(struct meter *meter, bool limited)
{
	static uint64_t sequence;
	const struct meter_grant grant = {
		.cycle = 1,
		.grant_seq = ++sequence,
		.ceiling = MUCH,
		.mask = limited ? WT_DOWNLOADS : WT_UPLOADS,
	};
	int r = meter_grant(meter, &grant);

	if (r < 0)
		fail("the grant is not taken: %s", strerror(-r));
}

void rig_limit_peers(struct meter *meter, const struct bench_peers *peers, bool limited)
{
	static uint64_t sequence;
	const struct meter_grant grant = {
		.cycle = 1,
		.grant_seq = ++sequence,
		.ceiling = MUCH,
		.mask = WT_DOWNLOADS,
	};

	for (uint32_t slot = 1; slot <= peers->count; slot++) {
		int r = limited ? meter_grant_peer(meter, slot, &grant) : meter_clear_peer_limit(meter, slot);

		if (r < 0)
			fail("the grant of slot %u is not taken: %s", slot, strerror(-r));
	}
}

void rig_aim_at(const struct driver_bpf *driver, uint32_t place, int program)
{
	int r = bpf_map_update_elem(bpf_map__fd(driver->maps.target), &place, &program, BPF_ANY);

	if (r < 0)
		fail("the driver cannot call the program: %s", strerror(-r));
}

void rig_aim(const struct driver_bpf *driver, int program)
{
	rig_aim_at(driver, 0, program);
}

int rig_driving(const struct driver_bpf *driver, const struct bench_peers *peers)
{
	if (peers->family == AF_INET)
		return bpf_program__fd(driver->progs.drive4);
	return bpf_program__fd(peers->dense ? driver->progs.drive6_dense : driver->progs.drive6);
}

double rig_run_frame(int program, const void *frame, uint32_t size, uint32_t gso_size, uint32_t packets)
{
	struct __sk_buff context = {.gso_size = gso_size};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = size, .ctx_in = &context,
		    .ctx_size_in = sizeof(context), .repeat = (int)packets);
	double begun = thread_time();

	if (bpf_prog_test_run_opts(program, &run))
		fail("a test run failed");
	begun = thread_time() - begun;
	if (run.retval != NEXT)
		fail("a packet did not pass (%u)", run.retval);
	return begun / (double)packets;
}

double rig_run(int program, int family, uint32_t times)
{
	uint8_t frame[ETHERNET + RIG_PACKET] = {0};

	frame[12] = family == AF_INET ? 0x08 : 0x86;
	frame[13] = family == AF_INET ? 0x00 : 0xdd;
	frame[ETHERNET] = family == AF_INET ? 0x45 : 0x60;
	frame[ETHERNET + (family == AF_INET ? 9 : 6)] = IPPROTO_UDP;
	if (family == AF_INET6)
		frame[ETHERNET + 24] = BENCH_SUBNET6;
	return rig_run_frame(program, frame, sizeof(frame), 0, times * BENCH_KEYS);
}
