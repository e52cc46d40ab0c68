// SPDX-License-Identifier: BSD-2-Clause
/*
 * What packets and aggregates cost beside the programs of an earlier build, by BPF_PROG_TEST_RUN. Both are
 * loaded over the same maps, those of a meter with peers. A round is a few slices of each, of some tenths of
 * a millisecond, A B B A B A A B …: what else the machine does falls on both or on few of them, and the
 * fastest slice of each counts. What a program costs depends on where the kernel has put it, by up to a
 * nanosecond: so each build is loaded many times, and each pair of programs gives one difference.
 */
#include "bench.h"

#include "driver.skel.h"

#include "../tests/drafts.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLICE    2048  /* packets */
#define SLICES   4     /* of each program in a round */
#define WARMTH   16384 /* packets, before the rounds: all addresses that the driver has */
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

/* Peers of one family, and the driver that has their addresses. */
struct side {
	struct bench_peers peers;
	struct driver_bpf *driver;
	int drive;
};

struct stage {
	struct meter *meter;
	struct side sides[2]; /* IPv4, IPv6: the same slots */
	struct build (*pairs)[BUILDS];
	uint32_t loads, rounds;
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

static const struct bpf_program *hook_of(const struct bpf_object *object)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(object, "meter_egress");

	if (!program)
		fail("a build has no program meter_egress");
	return program;
}

/* The object is NULL where this kernel does not take the program. */
static struct build try_load(const char *path, int attached)
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
	if (bpf_object__load(build.object)) {
		bpf_object__close(build.object);
		return (struct build){0};
	}
	build.program = bpf_program__fd(hook_of(build.object));
	return build;
}

static struct build load(const char *path, int attached)
{
	struct build build = try_load(path, attached);

	if (!build.object)
		fail("%s does not load over the maps of this build", path);
	return build;
}

/* As the meter does: the programs for newer kernels, and the others where these do not load. */
static const char *what_loads(const struct bench_options *options, int attached)
{
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	struct build build = try_load(options->builds[NOW], attached);

	libbpf_set_print(print);
	if (build.object)
		bpf_object__close(build.object);
	return build.object || !options->fallback ? options->builds[NOW] : options->fallback;
}

/* Loaded in turns, so that neither build always comes first. */
static void load_pairs(struct stage *stage, const char *const paths[BUILDS], int attached)
{
	stage->pairs = calloc(stage->loads, sizeof(*stage->pairs));
	if (!stage->pairs)
		fail("out of memory");
	for (uint32_t i = 0; i < stage->loads; i++)
		for (uint32_t turn = 0; turn < BUILDS; turn++) {
			uint32_t build = in_turn(i, turn, BUILDS);

			stage->pairs[i][build] = load(paths[build], attached);
		}
}

/* ---- what a plain packet passes ---- */

/* Where maps and functions are is not part of it. */
static bool same_instruction(const struct bpf_insn *a, const struct bpf_insn *b)
{
	bool elsewhere = a->code == (BPF_LD | BPF_IMM | BPF_DW) ||
			 (a->code == (BPF_JMP | BPF_CALL) && a->src_reg == BPF_PSEUDO_CALL);

	return a->code == b->code && a->dst_reg == b->dst_reg && a->src_reg == b->src_reg &&
	       a->off == b->off && (elsewhere || a->imm == b->imm);
}

/* What is not in line is called for aggregates, refusals and the like: a plain packet passes nothing else. */
static void compare_hooks(const char *const paths[BUILDS])
{
	struct series differ = {0}, all = {0};
	struct bpf_object *objects[BUILDS];
	const struct bpf_insn *code[BUILDS];
	size_t count[BUILDS], most, same = 0;

	for (int build = 0; build < BUILDS; build++) {
		objects[build] = bpf_object__open(paths[build]);
		if (!objects[build])
			fail("%s does not open", paths[build]);
		code[build] = bpf_program__insns(hook_of(objects[build]));
		count[build] = bpf_program__insn_cnt(hook_of(objects[build]));
	}
	most = count[EARLIER] > count[NOW] ? count[EARLIER] : count[NOW];
	for (size_t i = 0; i < count[EARLIER] && i < count[NOW]; i++)
		same += same_instruction(&code[EARLIER][i], &code[NOW][i]);
	series_add(&differ, (double)(most - same));
	series_add(&all, (double)most);
	series_print(&differ, "instructions", "lengths/hook/differ");
	series_print(&all, "instructions", "lengths/hook/all");
	for (int build = 0; build < BUILDS; build++)
		bpf_object__close(objects[build]);
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

static double run(const struct side *side, uint32_t place, const struct bench_frame *frame, uint32_t packets)
{
	side->driver->bss->second = place;
	return rig_run_frame(side->drive, frame->bytes, ETHERNET + frame->size, frame->gso_size, packets);
}

/* The fastest slice of each. */
static void measure_round(const struct side *side, const uint32_t places[BUILDS], uint32_t round,
			  const struct bench_frame *frame, double fastest[BUILDS])
{
	for (uint32_t i = 0; i < SLICES; i++)
		for (uint32_t turn = 0; turn < BUILDS; turn++) {
			uint32_t build = in_turn(round + i, turn, BUILDS);
			double value = run(side, places[build], frame, SLICE);

			if (i == 0 || value < fastest[build])
				fastest[build] = value;
		}
}

static void measure_pair(const struct stage *stage, uint32_t number, const struct side *side,
			 const struct bench_frame *frame, struct series series[BUILDS])
{
	/* The driver's two ways are a little different, too. */
	const uint32_t places[BUILDS] = {number / BUILDS % BUILDS, 1 - number / BUILDS % BUILDS};

	for (uint32_t build = 0; build < BUILDS; build++) {
		rig_aim_at(side->driver, places[build], stage->pairs[number][build].program);
		run(side, places[build], frame, WARMTH);
	}
	for (uint32_t round = 0; round < stage->rounds; round++) {
		double fastest[BUILDS];

		measure_round(side, places, round, frame, fastest);
		for (uint32_t build = 0; build < BUILDS; build++)
			series_add(&series[build], fastest[build]);
	}
}

static void check_count(const struct stage *stage, const struct side *side, const struct shape *shape,
			const struct bench_frame *frame)
{
	uint64_t before = counted(stage->meter, side->peers.count);

	rig_aim(side->driver, stage->pairs[0][NOW].program);
	run(side, 0, frame, WARMTH);
	if (counted(stage->meter, side->peers.count) - before != WARMTH * frame->pile.bytes)
		fail("%s: a packet was not counted by the %llu bytes of its segments", shape->name,
		     (unsigned long long)frame->pile.bytes);
}

static void measure(const struct stage *stage, const struct shape *shape)
{
	const struct side *side = &stage->sides[shape->ip != IP4];
	const struct bench_frame frame = make_frame(shape);
	struct series series[BUILDS] = {0};

	for (uint32_t i = 0; i < stage->loads; i++)
		measure_pair(stage, i, side, &frame, series);
	check_count(stage, side, shape, &frame);
	for (uint32_t build = 0; build < BUILDS; build++)
		series_print(&series[build], "ns", "lengths/%s/%s", shape->name, build_names[build]);
}

static void set_stage(struct stage *stage, const struct bench_options *options)
{
	static const int families[] = {AF_INET, AF_INET6};
	struct bench_options of_family = *options;

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct side *side = &stage->sides[i];

		of_family.family = families[i];
		side->driver = rig_driver();
		peers_make(&side->peers, &of_family, side->driver);
		side->drive = rig_driving(side->driver, &side->peers);
	}
	stage->meter = rig_meter("bench0", &stage->sides[0].peers);
	rig_give(stage->meter, &stage->sides[1].peers);
}

static void clear_stage(struct stage *stage)
{
	for (uint32_t i = 0; i < stage->loads; i++)
		for (uint32_t build = 0; build < BUILDS; build++)
			bpf_object__close(stage->pairs[i][build].object);
	free(stage->pairs);
	rig_remove(stage->meter);
	for (size_t i = 0; i < ARRAY_SIZE(stage->sides); i++) {
		peers_free(&stage->sides[i].peers);
		driver_bpf__destroy(stage->sides[i].driver);
	}
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

	struct stage stage = {.loads = options->loads, .rounds = options->rounds};
	struct series loads = {0};
	const char *paths[BUILDS];
	int attached;

	if (!options->builds[EARLIER] || !options->builds[NOW])
		fail("lengths: --earlier FILE --now FILE are wanted");
	use_cpu(0);
	shell("ip link add bench0 type veth peer name bench1");
	set_stage(&stage, options);
	attached = rig_attached("bench0", TCX_EGRESS);
	paths[EARLIER] = options->builds[EARLIER];
	paths[NOW] = what_loads(options, attached);
	compare_hooks(paths);
	load_pairs(&stage, paths, attached);
	close(attached);
	series_add(&loads, stage.loads);
	series_print(&loads, "pairs", "lengths/loads");
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		measure(&stage, &shapes[i]);
	clear_stage(&stage);
}
