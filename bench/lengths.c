// SPDX-License-Identifier: BSD-2-Clause
/*
 * What packets and aggregates cost beside the programs of an earlier build: A B, B A, …, by
 * BPF_PROG_TEST_RUN. Both are loaded over the same maps, those of a meter with peers, and several times, as
 * what a program costs depends a little on where the kernel has put it.
 */
#include "bench.h"

#include "driver.skel.h"

#include "../tests/drafts.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOADS    6
#define RUNS     2 /* in a sample: the last counts */
#define SEGMENTS 45
#define SEGMENT  20 /* bytes: the test runner takes no large packets */
#define ETHERNET 14

enum { EARLIER, NOW, BUILDS };

static const char *const build_names[BUILDS] = {"earlier", "now"};

struct shape {
	const char *name;
	enum ip_kind ip;
	int tunnels; /* -1: a plain packet */
	enum tunnel tunnel;
	enum transport transport;
};

/* One program of an object that uses the maps of another. */
struct build {
	struct bpf_object *object;
	int program;
};

struct bench_frame {
	uint8_t bytes[2048];
	uint32_t size, gso_size;
	struct pile pile;
};

/* ---- loading over the maps of the meter ---- */

/* libbpf puts the object's name before the names of its sections. */
static const char *bare_name(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot ? dot : name;
}

static int map_like(const struct bpf_map *wanted, const uint32_t *ids, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct bpf_map_info info = {0};
		uint32_t size = sizeof(info);
		int fd = bpf_map_get_fd_by_id(ids[i]);

		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
		    strncmp(bare_name(info.name), bare_name(bpf_map__name(wanted)), sizeof(info.name) - 1) ==
			    0)
			return fd;
		close(fd);
	}
	return -1;
}

/* Constants are frozen in a map of each object's own. */
static void copy_constants(struct bpf_map *map, int from)
{
	uint32_t zero = 0, size = bpf_map__value_size(map);
	void *value = calloc(1, size);

	if (!value || bpf_map_lookup_elem(from, &zero, value) || bpf_map__set_initial_value(map, value, size))
		fail("the constants of the meter do not fit the other build");
	free(value);
}

static void share_maps(struct bpf_object *object, int attached)
{
	uint32_t ids[32], size = sizeof(struct bpf_prog_info);
	struct bpf_prog_info info = {.map_ids = (uintptr_t)ids, .nr_map_ids = 32};
	struct bpf_map *map;

	if (bpf_obj_get_info_by_fd(attached, &info, &size))
		fail("the meter's maps are not to be found");
	bpf_object__for_each_map(map, object)
	{
		int fd = map_like(map, ids, info.nr_map_ids);

		if (fd < 0)
			continue; /* the program does without it */
		if (strcmp(bare_name(bpf_map__name(map)), ".rodata") == 0)
			copy_constants(map, fd);
		else if (bpf_map__reuse_fd(map, fd))
			fail("the two builds have no common map %s", bpf_map__name(map));
		close(fd);
	}
}

static struct build load(const char *path, int attached)
{
	struct build build = {.object = bpf_object__open(path)};
	struct bpf_program *program;

	if (!build.object)
		fail("%s does not open", path);
	share_maps(build.object, attached);
	bpf_object__for_each_program(program, build.object)
		bpf_program__set_autoload(program, strcmp(bpf_program__name(program), "meter_egress") == 0);
	/* What is not shared is not used, but must have a size. */
	struct bpf_map *map;
	bpf_object__for_each_map(map, build.object) if (bpf_map__max_entries(map) == 0)
		bpf_map__set_max_entries(map, (uint32_t)sysconf(_SC_PAGESIZE));
	if (bpf_object__load(build.object))
		fail("%s does not load over the maps of this build", path);
	program = bpf_object__find_program_by_name(build.object, "meter_egress");
	build.program = bpf_program__fd(program);
	return build;
}

/* ---- packets ---- */

static struct bench_frame make_frame(const struct shape *shape)
{
	const uint32_t payload = shape->tunnels < 0 ? 0 : SEGMENTS * SEGMENT;
	struct bench_frame frame = {.gso_size = payload ? SEGMENT : 0};
	const bool ipv4 = shape->ip == IP4;
	struct draft draft;

	draft_begin(&draft);
	draft_ip(&draft, shape->ip);
	for (int i = 0; i < shape->tunnels; i++) {
		draft_tunnel(&draft, shape->tunnel);
		draft_ip(&draft, IP4);
	}
	draft_transport(&draft, shape->transport);
	draft_seal(&draft, payload);
	frame.bytes[12] = ipv4 ? 0x08 : 0x86;
	frame.bytes[13] = ipv4 ? 0x00 : 0xdd;
	memcpy(frame.bytes + ETHERNET, draft.bytes, draft.size);
	if (!ipv4)
		frame.bytes[ETHERNET + 24] = BENCH_SUBNET6;
	frame.size = payload ? draft.size + payload : RIG_PACKET;
	frame.pile = payload ? draft_cut(&draft, payload, SEGMENT) : (struct pile){RIG_PACKET, 1};
	return frame;
}

static uint64_t counted(const struct meter *meter, uint32_t peers)
{
	uint64_t sum = 0;

	for (uint32_t slot = 0; slot <= peers; slot++) {
		struct meter_totals totals;

		meter_read(meter, slot, &totals);
		sum += totals.download_bytes;
	}
	return sum;
}

static double sample(const struct driver_bpf *driver, int drive, int program, const struct bench_frame *frame)
{
	double value = 0;

	rig_aim(driver, program);
	for (int i = 0; i < RUNS; i++)
		value = rig_run_frame(drive, frame->bytes, ETHERNET + frame->size, frame->gso_size, 1);
	return value;
}

static void measure(const struct shape *shape, const struct bench_options *options, int family)
{
	struct series series[BUILDS] = {0};
	struct bench_options of_family = *options;
	const struct bench_frame frame = make_frame(shape);
	struct driver_bpf *driver = rig_driver();
	struct bench_peers peers;
	struct meter *meter;
	int attached, drive;
	uint64_t before;

	of_family.family = family;
	peers_make(&peers, &of_family, driver);
	meter = rig_meter("bench0", &peers);
	attached = rig_attached("bench0", TCX_EGRESS);
	drive = rig_driving(driver, &peers);
	for (uint32_t i = 0; i < LOADS; i++) {
		const struct build first = load(options->builds[i % BUILDS], attached),
				   second = load(options->builds[!(i % BUILDS)], attached);
		const int programs[] = {i % BUILDS ? second.program : first.program,
					i % BUILDS ? first.program : second.program};

		/* The first round warms up and is not kept. */
		for (uint32_t round = 0; round <= options->rounds; round++)
			for (uint32_t turn = 0; turn < BUILDS; turn++) {
				uint32_t build = in_turn(round, turn, BUILDS);
				double value = sample(driver, drive, programs[build], &frame);

				if (round > 0)
					series_add(&series[build], value);
			}
		before = counted(meter, peers.count);
		sample(driver, drive, programs[NOW], &frame);
		if (counted(meter, peers.count) - before != RUNS * BENCH_KEYS * frame.pile.bytes)
			fail("%s: a packet was not counted by the %llu bytes of its segments", shape->name,
			     (unsigned long long)frame.pile.bytes);
		bpf_object__close(first.object);
		bpf_object__close(second.object);
	}
	for (uint32_t build = 0; build < BUILDS; build++)
		series_print(&series[build], "ns", "lengths/%s/%s", shape->name, build_names[build]);
	close(attached);
	rig_remove(meter);
	peers_free(&peers);
	driver_bpf__destroy(driver);
}

void bench_lengths(const struct bench_options *options)
{
	static const struct shape shapes[] = {
		{"plain4", IP4, -1, T_IP, BY_UDP},
		{"plain6", IP6, -1, T_IP, BY_UDP},
		{"tcp4", IP4, 0, T_IP, BY_TCP_OPTIONS},
		{"tcp6", IP6, 0, T_IP, BY_TCP_OPTIONS},
		{"udp4", IP4, 0, T_IP, BY_UDP},
		{"ipip", IP4, 1, T_IP, BY_TCP_OPTIONS},
		{"gre", IP4, 1, T_GRE_KEY, BY_TCP_OPTIONS},
		{"vxlan", IP4, 1, T_VXLAN, BY_TCP_OPTIONS},
		{"srv6", IP6_ROUTED, 1, T_IP, BY_TCP_OPTIONS},
		{"three", IP4, 3, T_VXLAN, BY_TCP_OPTIONS},
	};

	if (!options->builds[EARLIER] || !options->builds[NOW])
		fail("lengths: --earlier FILE --now FILE are wanted");
	use_cpu(0);
	shell("ip link add bench0 type veth peer name bench1");
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		measure(&shapes[i], options, shapes[i].ip == IP4 ? AF_INET : AF_INET6);
}
