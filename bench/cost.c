// SPDX-License-Identifier: BSD-2-Clause
/* What the program costs, by BPF_PROG_TEST_RUN, with a random address in each packet. */
#include "bench.h"

#include "driver.skel.h"
#include "naive.skel.h"

#include <sys/socket.h>
#include <unistd.h>

enum variant { BARE, EMPTY, METER, LIMITED, TRIE, NAIVE, PEERS_LIMITED, VARIANTS };

#define RUNS    2 /* in a sample: the last counts */
#define METERED 3 /* variants that run the meter */

static const char *const names[VARIANTS] = {"bare", "empty", "meter",        "limited",
					    "trie", "naive", "peers-limited"};

struct place {
	const struct driver_bpf *driver;
	struct meter *meter;
	const struct bench_peers *peers;
	int programs[VARIANTS];
};

static double sample(const struct place *place, enum variant variant)
{
	const int family = place->peers->family, drive = rig_driving(place->driver, place->peers);
	double value;

	if (variant == BARE)
		return rig_run(place->programs[BARE], family, 1);
	if (variant == METER || variant == LIMITED || variant == PEERS_LIMITED)
		rig_limit(place->meter, variant != METER);
	if (variant == PEERS_LIMITED)
		rig_limit_peers(place->meter, place->peers, true);
	rig_aim(place->driver, place->programs[variant]);
	/* The first run brings the program's own memory into the caches, in place of the one before it. */
	for (int i = 0; i < RUNS; i++)
		value = rig_run(drive, family, 1);
	if (variant == PEERS_LIMITED)
		rig_limit_peers(place->meter, place->peers, false);
	return value;
}

static void measure(const struct place *place, const struct bench_options *options)
{
	struct series series[VARIANTS] = {0};

	/* The first round warms up and is not kept. */
	for (uint32_t round = 0; round <= options->rounds; round++)
		for (uint32_t i = 0; i < VARIANTS; i++) {
			uint32_t v = in_turn(round, i, VARIANTS);
			double value = sample(place, v);

			if (round > 0)
				series_add(&series[v], value);
		}
	peers_check(place->peers, place->meter, METERED * RUNS * (options->rounds + 1ULL), RIG_PACKET);
	for (enum variant v = 0; v < VARIANTS; v++)
		series_print(&series[v], "ns", "cost/%s/%s/%u/%s", options->family == AF_INET ? "v4" : "v6",
			     options->dense ? "dense" : "scattered", options->peers, names[v]);
}

void bench_cost(const struct bench_options *options)
{
	struct driver_bpf *driver = rig_driver();
	struct bench_peers peers;
	struct naive_bpf *naive;
	struct place place = {.driver = driver, .peers = &peers};

	use_cpu(0);
	/* Never up: nothing but the test runs is counted. */
	shell("ip link add parked type veth peer name parked-end");
	peers_make(&peers, options, driver);
	naive = rig_naive(&peers, 14);
	place.meter = rig_meter("parked", &peers);
	place.programs[BARE] = place.programs[EMPTY] = bpf_program__fd(driver->progs.empty);
	place.programs[METER] = rig_attached("parked", TCX_EGRESS);
	place.programs[LIMITED] = place.programs[PEERS_LIMITED] = place.programs[METER];
	place.programs[TRIE] = bpf_program__fd(naive->progs.trie);
	place.programs[NAIVE] = bpf_program__fd(naive->progs.naive);
	measure(&place, options);
	close(place.programs[METER]);
	rig_remove(place.meter);
	naive_bpf__destroy(naive);
	driver_bpf__destroy(driver);
	peers_free(&peers);
}
