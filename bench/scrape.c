// SPDX-License-Identifier: BSD-2-Clause
/* Reading everybody's counters: the meter's mapping, batches of system calls, nft and wg. */
#include "bench.h"

#include "driver.skel.h"
#include "naive.skel.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEY_TEXT 45
#define CHUNK    4096

enum variant { MAPPING, ARRAY_BATCH, HASH_BATCH, NFT, WG, VARIANTS };

static const char *const names[VARIANTS] = {"mapping", "array-batch", "hash-batch", "nft", "wg"};

struct scrape {
	const struct bench_peers *peers;
	struct meter *meter;
	struct naive_bpf *naive;
	struct naive_count *counts; /* [entry][CPU] */
	uint32_t *slots;
};

/* Both directions, refusals, over all CPUs: what a sample of the agent reads. */
static void read_mapping(const struct scrape *scrape)
{
	uint64_t packets = 0;

	for (uint32_t slot = 0; slot <= scrape->peers->count; slot++) {
		struct meter_totals totals;

		meter_read(scrape->meter, slot, &totals);
		packets += totals.download_packets + totals.upload_packets;
	}
	if (packets != BENCH_KEYS)
		fail("%llu packets read of %u", (unsigned long long)packets, BENCH_KEYS);
}

/* One direction. */
static void read_batches(const struct scrape *scrape, const struct bpf_map *map)
{
	uint32_t place, seen = 0, count;
	int r = 0;

	for (void *in = NULL; r == 0; in = &place, seen += count) {
		count = CHUNK;
		r = bpf_map_lookup_batch(bpf_map__fd(map), in, &place, scrape->slots, scrape->counts, &count,
					 NULL);
		if (r < 0 && r != -ENOENT)
			fail("a batch was not read: error %d", -r);
	}
	if (seen != scrape->peers->count + 1)
		fail("%u entries read of %u", seen, scrape->peers->count + 1);
}

static void make_nft(const struct bench_peers *peers)
{
	FILE *file = popen("nft -f -", "w");
	char text[CIDR_TEXT_SIZE];

	if (!file)
		fail("cannot run nft");
	fputs("table ip bench { set peers { type ipv4_addr; counter; elements = {", file);
	for (uint32_t i = 0; i < peers->count; i++)
		fprintf(file, "%s%s", i ? ", " : "", cidr_format_address(&peers->prefixes[i], text));
	fputs("}; }\n}\n", file);
	if (pclose(file))
		fail("nft does not take the set");
}

static void make_wireguard(const struct bench_peers *peers)
{
	FILE *file = fopen("/run/peers.conf", "w");
	char text[CIDR_TEXT_SIZE], key_text[KEY_TEXT];
	uint8_t key[32];

	if (!file)
		fail("cannot write the peers");
	fputs("[Interface]\n", file);
	for (uint32_t i = 0; i < peers->count; i++) {
		randombytes_buf(key, sizeof(key));
		sodium_bin2base64(key_text, sizeof(key_text), key, sizeof(key),
				  sodium_base64_VARIANT_ORIGINAL);
		fprintf(file, "[Peer]\nPublicKey = %s\nAllowedIPs = %s\n", key_text,
			cidr_format(&peers->prefixes[i], text));
	}
	if (fclose(file))
		fail("cannot write the peers");
	shell("wireguard-go bench-wg >/dev/null 2>&1 && wg setconf bench-wg /run/peers.conf");
}

/* Nanoseconds a peer and direction. The commands' clock is the wall's: their work is in other processes. */
static double sample(const struct scrape *scrape, enum variant variant)
{
	double begun = thread_time(), begun_wall = wall_time();
	double peers = (double)scrape->peers->count;

	switch (variant) {
	case MAPPING:
		read_mapping(scrape);
		return (thread_time() - begun) / peers / 2;
	case ARRAY_BATCH:
		read_batches(scrape, scrape->naive->maps.array);
		return (thread_time() - begun) / peers;
	case HASH_BATCH:
		read_batches(scrape, scrape->naive->maps.hash);
		return (thread_time() - begun) / peers;
	case NFT:
		shell("nft -j list set ip bench peers >/dev/null");
		return (wall_time() - begun_wall) / peers;
	default:
		shell("wg show bench-wg transfer >/dev/null");
		return (wall_time() - begun_wall) / peers / 2;
	}
}

/* wireguard-go keeps several threads of execution for each peer: no more than these. */
#define MOST_WIREGUARD 10000

static bool has(enum variant variant, uint32_t peers)
{
	return variant < NFT || peers <= MOST_WIREGUARD;
}

static void measure(const struct scrape *scrape, uint32_t rounds)
{
	struct series series[VARIANTS] = {0};
	uint32_t peers = scrape->peers->count;

	for (uint32_t round = 0; round <= rounds; round++)
		for (enum variant v = 0; v < VARIANTS; v++)
			if (has(v, peers)) {
				double value = sample(scrape, v);

				if (round > 0)
					series_add(&series[v], value);
			}
	for (enum variant v = 0; v < VARIANTS; v++)
		if (series[v].count)
			series_print(&series[v], "ns", "scrape/%u/%s", peers, names[v]);
}

void bench_scrape(const struct bench_options *options)
{
	struct driver_bpf *driver = rig_driver();
	struct bench_peers peers;
	struct scrape scrape = {.peers = &peers};

	use_cpu(0);
	shell("ip link add parked type veth peer name parked-end");
	peers_make(&peers, options, driver);
	scrape.naive = rig_naive(&peers, 14);
	scrape.meter = rig_meter("parked", &peers);
	scrape.counts = calloc((size_t)CHUNK * BENCH_CPUS, sizeof(*scrape.counts));
	scrape.slots = calloc(CHUNK, sizeof(*scrape.slots));
	if (!scrape.counts || !scrape.slots)
		fail("out of memory");
	/* Counts to be read. */
	rig_aim(driver, rig_attached("parked", TCX_EGRESS));
	rig_run(bpf_program__fd(driver->progs.drive4), AF_INET, 1);
	if (has(NFT, peers.count)) {
		make_nft(&peers);
		make_wireguard(&peers);
	}
	measure(&scrape, options->rounds);
	rig_remove(scrape.meter);
	naive_bpf__destroy(scrape.naive);
	driver_bpf__destroy(driver);
	free(scrape.counts);
	free(scrape.slots);
	peers_free(&peers);
}
