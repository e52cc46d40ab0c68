// SPDX-License-Identifier: BSD-2-Clause
/* See probe.h. Written as instructions, so that it shares nothing with the meter's programs. */
#include "probe.h"

#include "lab.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <unistd.h>

#define PRIORITY 100

/* r0 is the map's value: add what is in r1 to the word at `offset`. */
#define ADD_TO(offset)                                                                                       \
	{                                                                                                    \
		.code = BPF_STX | BPF_ATOMIC | BPF_DW, .dst_reg = 0, .src_reg = 1, .off = (offset),          \
		.imm = BPF_ADD                                                                               \
	}
#define LOAD_CONTEXT(member)                                                                                 \
	{                                                                                                    \
		.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 1, .src_reg = 6,                               \
		.off = offsetof(struct __sk_buff, member)                                                    \
	}
#define MOVE(to, value)                                                                                      \
	{                                                                                                    \
		.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (to), .imm = (value)                         \
	}

static int load_program(int map)
{
	const struct bpf_insn instructions[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 6, .src_reg = 1},
		{.code = BPF_LD | BPF_IMM | BPF_DW,
		 .dst_reg = 0,
		 .src_reg = BPF_PSEUDO_MAP_VALUE,
		 .imm = map},
		{0},
		LOAD_CONTEXT(len),
		ADD_TO(offsetof(struct probe_totals, length)),
		{.code = BPF_LDX | BPF_MEM | BPF_DW,
		 .dst_reg = 2,
		 .src_reg = 0,
		 .off = offsetof(struct probe_totals, largest)},
		{.code = BPF_JMP | BPF_JGE | BPF_X, .dst_reg = 2, .src_reg = 1, .off = 1},
		{.code = BPF_STX | BPF_MEM | BPF_DW,
		 .dst_reg = 0,
		 .src_reg = 1,
		 .off = offsetof(struct probe_totals, largest)},
		LOAD_CONTEXT(wire_len),
		ADD_TO(offsetof(struct probe_totals, wire_length)),
		MOVE(1, 1),
		ADD_TO(offsetof(struct probe_totals, packets)),
		MOVE(0, -1), /* TC_ACT_UNSPEC: on to the next */
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "probe", "GPL", instructions, ARRAY_SIZE(instructions),
			     NULL);
}

/* The meter makes it only where it has no tcx. */
static void make_clsact(int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	int r = bpf_tc_hook_create(&hook);

	assert_true(r == 0 || r == -EEXIST);
}

struct probe probe_attach(int ifindex, bool egress)
{
	struct probe probe = {
		.map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "probe", 4, sizeof(struct probe_totals), 1, NULL)};
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = 1, .priority = PRIORITY);

	assert_true(probe.map >= 0);
	make_clsact(ifindex);
	probe.program = load_program(probe.map);
	assert_true(probe.program >= 0);
	options.prog_fd = probe.program;
	assert_int_equal(bpf_tc_attach(&hook, &options), 0);
	return probe;
}

struct probe_totals probe_read(const struct probe *probe)
{
	struct probe_totals totals;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(probe->map, &zero, &totals), 0);
	return totals;
}

void probe_close(struct probe *probe)
{
	close(probe->program);
	close(probe->map);
}
