// SPDX-License-Identifier: BSD-2-Clause
/* What a limit leaves unspent when two CPUs use it up together, and that it never admits a byte more. */
#include "bench.h"

#include <bpf/bpf.h>
#include <pthread.h>
#include <unistd.h>

#define ETHERNET 14
#define PACKET   1420
#define CHUNK    200
#define DROPPED  2
#define CORES    2

struct lane {
	pthread_t thread;
	int cpu, program;
};

/* Sends until the last packet of a chunk is refused. */
static void *exhaust(void *data)
{
	const struct lane *lane = data;
	uint8_t frame[ETHERNET + PACKET] = {
		[12] = 0x08,          [ETHERNET] = 0x45,    [ETHERNET + 9] = 17,
		[ETHERNET + 16] = 10, [ETHERNET + 17] = 64, [ETHERNET + 19] = 1,
	};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = sizeof(frame), .repeat = CHUNK);

	use_cpu(lane->cpu);
	do {
		if (bpf_prog_test_run_opts(lane->program, &run))
			fail("a test run failed");
	} while (run.retval != DROPPED);
	return NULL;
}

static double unspent(struct meter *meter, int program, uint64_t limit)
{
	static uint64_t cycle;
	const struct meter_grant grant = {
		.cycle = ++cycle, .grant_seq = 1, .ceiling = limit, .mask = WT_DOWNLOADS};
	struct lane lanes[CORES];
	struct meter_totals before, after;
	struct meter_limit_state state;
	uint64_t admitted;

	meter_read(meter, 1, &before);
	if (meter_grant(meter, &grant))
		fail("the grant is not taken");
	for (int i = 0; i < CORES; i++) {
		lanes[i] = (struct lane){.cpu = i, .program = program};
		if (pthread_create(&lanes[i].thread, NULL, exhaust, &lanes[i]))
			fail("cannot start a thread");
	}
	for (int i = 0; i < CORES; i++)
		pthread_join(lanes[i].thread, NULL);
	meter_read(meter, 1, &after);
	meter_read_limit(meter, &state);
	admitted = after.download_bytes - before.download_bytes;
	if (admitted > limit || admitted != state.cycle_counted || !state.exhausted)
		fail("a limit of %llu bytes admitted %llu and counted %llu", (unsigned long long)limit,
		     (unsigned long long)admitted, (unsigned long long)state.cycle_counted);
	return (double)(limit - admitted);
}

void bench_credit(const struct bench_options *options)
{
	static const uint64_t limits[] = {1000000, 10000000, 100000000, 1000000000};
	struct cidr prefix = {.family = 2, .prefix_length = 32, .bytes = {10, 64, 0, 1}};
	const struct bench_peers peers = {.family = 2, .count = 1, .prefixes = &prefix};
	struct meter *meter;
	int program;

	shell("ip link add parked type veth peer name parked-end");
	meter = rig_meter("parked", &peers);
	program = rig_attached("parked", TCX_EGRESS);
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		struct series series = {0};

		for (uint32_t round = 0; round < options->rounds; round++)
			series_add(&series, unspent(meter, program, limits[i]));
		series_print(&series, "bytes", "credit/%llu", (unsigned long long)limits[i]);
	}
	close(program);
	rig_remove(meter);
}
