// SPDX-License-Identifier: BSD-2-Clause
/* One peer on one CPU and on two at once: what it costs each, and whether a count is lost. */
#include "bench.h"

#include "driver.skel.h"
#include "naive.skel.h"

#include <math.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define CORES   2
#define TIMES   8 /* a run of each sends this many times all addresses: long enough to overlap */
#define OVERLAP 0.8
#define TRIES   5

enum variant { EMPTY, LIMITED, SHARED, VARIANTS };

static const char *const names[VARIANTS] = {"empty", "limited", "shared"};

struct lane {
	pthread_t thread;
	pthread_barrier_t *start;
	int cpu, program;
	double cost, begun, ended;
};

static void *drive(void *data)
{
	struct lane *lane = data;

	use_cpu(lane->cpu);
	pthread_barrier_wait(lane->start);
	lane->begun = wall_time();
	lane->cost = rig_run(lane->program, AF_INET, TIMES);
	lane->ended = wall_time();
	return NULL;
}

static void run_together(struct lane lanes[static CORES], int program, int cores)
{
	pthread_barrier_t start;

	pthread_barrier_init(&start, NULL, (unsigned)cores);
	for (int i = 0; i < cores; i++) {
		lanes[i] = (struct lane){.start = &start, .cpu = i, .program = program};
		if (pthread_create(&lanes[i].thread, NULL, drive, &lanes[i]))
			fail("cannot start a thread");
	}
	for (int i = 0; i < cores; i++)
		pthread_join(lanes[i].thread, NULL);
	pthread_barrier_destroy(&start);
}

/* The share of the longer run in which the other one ran, too: another process may have held a CPU. */
static double overlap(const struct lane lanes[static CORES])
{
	double begun = fmax(lanes[0].begun, lanes[1].begun), ended = fmin(lanes[0].ended, lanes[1].ended);

	return (ended - begun) / fmax(lanes[0].ended - lanes[0].begun, lanes[1].ended - lanes[1].begun);
}

/* The mean over the CPUs taking part. Counts the runs of all. */
static double sample(int program, int cores, uint64_t *runs)
{
	struct lane lanes[CORES];
	double sum = 0;
	int tries = 0;

	do {
		run_together(lanes, program, cores);
		*runs += (uint64_t)cores * TIMES;
	} while (cores > 1 && overlap(lanes) < OVERLAP && ++tries < TRIES);
	for (int i = 0; i < cores; i++)
		sum += lanes[i].cost;
	return sum / cores;
}

void bench_contend(const struct bench_options *options)
{
	const struct bench_options one = {.family = AF_INET, .dense = true, .peers = 1};
	struct series series[VARIANTS][CORES] = {0};
	struct driver_bpf *driver = rig_driver();
	struct bench_peers peers;
	struct naive_bpf *naive;
	struct meter *meter;
	uint64_t runs[VARIANTS] = {0};

	if (sysconf(_SC_NPROCESSORS_ONLN) < CORES)
		fail("two CPUs are needed");
	shell("ip link add parked type veth peer name parked-end");
	peers_make(&peers, &one, driver);
	naive = rig_naive(&peers, 14);
	meter = rig_meter("parked", &peers);
	rig_limit(meter, true);

	const int program = rig_attached("parked", TCX_EGRESS);
	const int programs[VARIANTS] = {
		[EMPTY] = bpf_program__fd(driver->progs.empty),
		[LIMITED] = program,
		[SHARED] = bpf_program__fd(naive->progs.shared),
	};

	for (uint32_t round = 0; round < options->rounds; round++)
		for (enum variant v = 0; v < VARIANTS; v++) {
			rig_aim(driver, programs[v]);
			for (int cores = 1; cores <= CORES; cores++)
				series_add(&series[v][cores - 1],
					   sample(bpf_program__fd(driver->progs.drive4), cores, &runs[v]));
		}
	peers_check(&peers, meter, runs[LIMITED], RIG_PACKET);
	if (naive->bss->together.packets != runs[SHARED] * BENCH_KEYS)
		fail("the shared counter has lost %lld packets",
		     (long long)(runs[SHARED] * BENCH_KEYS - naive->bss->together.packets));
	for (enum variant v = 0; v < VARIANTS; v++)
		for (int cores = 1; cores <= CORES; cores++)
			series_print(&series[v][cores - 1], "ns", "contend/%d/%s", cores, names[v]);
	close(program);
	rig_remove(meter);
	naive_bpf__destroy(naive);
	driver_bpf__destroy(driver);
	peers_free(&peers);
}
