// SPDX-License-Identifier: BSD-2-Clause
/* Peers, their addresses, and a plain longest-prefix match that says what each must have been counted. */
#include "bench.h"

#include "driver.skel.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Networks behind sites: any length for IPv4; IPv6 is assigned by whole hexadecimal digits. */
#define SITE4_SHORTEST 18
#define SITE4_LENGTHS  13
#define SITE6_SHORTEST 48
#define SITE6_LENGTHS  5
#define SITE6_STEP     4

#define KEYS_PER_PEER 4
#define FEWEST_KEYS   16384

static struct cidr dense_prefix(int family, uint32_t index)
{
	struct cidr prefix = {.family = family, .prefix_length = family == AF_INET ? 32 : 128};
	uint32_t host = index + 1;
	size_t end = family == AF_INET ? 4 : 16;

	if (family == AF_INET)
		prefix.bytes[0] = 10, host += 64U << 16;
	else
		prefix.bytes[0] = BENCH_SUBNET6;
	for (size_t i = 0; i < 3; i++)
		prefix.bytes[end - 1 - i] = (uint8_t)(host >> (8 * i));
	return prefix;
}

static struct cidr site_prefix(int family)
{
	struct cidr prefix = {.family = family};
	unsigned choice = (unsigned)(random_number() >> 32);

	for (size_t i = 0; i < (family == AF_INET ? 4 : 16); i++)
		prefix.bytes[i] = (uint8_t)(random_number() >> 24);
	/* Unicast, and not 127.0.0.0/8; global for IPv6. */
	prefix.bytes[0] = family == AF_INET ? (uint8_t)(128 + prefix.bytes[0] % 64) : 0x20;
	prefix.prefix_length = family == AF_INET ? SITE4_SHORTEST + choice % SITE4_LENGTHS
						 : SITE6_SHORTEST + choice % SITE6_LENGTHS * SITE6_STEP;
	return cidr_network(&prefix);
}

static void make_prefixes(struct bench_peers *peers)
{
	uint32_t unique = 0;

	while (unique < peers->count) {
		for (uint32_t i = unique; i < peers->count; i++)
			peers->prefixes[i] =
				peers->dense ? dense_prefix(peers->family, i) : site_prefix(peers->family);
		qsort(peers->prefixes, peers->count, sizeof(struct cidr), cidr_compare);
		unique = 1;
		for (uint32_t i = 1; i < peers->count; i++)
			if (!cidr_equal(&peers->prefixes[i], &peers->prefixes[unique - 1]))
				peers->prefixes[unique++] = peers->prefixes[i];
	}
}

/* An address in the prefix. */
static struct cidr address_in(const struct cidr *prefix)
{
	struct cidr address = *prefix;

	address.prefix_length = cidr_max_length(prefix);
	/* The lower half of a scattered IPv6 address is 0: no prefix reaches there. */
	for (unsigned bit = prefix->prefix_length; bit < (address.prefix_length == 32 ? 32 : 64); bit++)
		if (random_number() >> 40 & 1)
			address.bytes[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	return address;
}

/* Tries every length that is in use, the longest first. */
static uint32_t slot_of(const struct bench_peers *peers, const bool lengths[static 129],
			const struct cidr *address)
{
	for (unsigned length = cidr_max_length(address) + 1; length-- > 0;) {
		struct cidr prefix = *address;
		const struct cidr *found;

		if (!lengths[length])
			continue;
		prefix.prefix_length = length;
		prefix = cidr_network(&prefix);
		found = bsearch(&prefix, peers->prefixes, peers->count, sizeof(prefix), cidr_compare);
		if (found)
			return (uint32_t)(found - peers->prefixes) + 1;
	}
	return 0;
}

/* A power of two: each peer is met some four times before the addresses come again. */
static uint32_t count_keys(const struct bench_peers *peers)
{
	uint32_t keys = FEWEST_KEYS;

	while (keys < KEYS_PER_PEER * peers->count && keys < BENCH_KEYS)
		keys *= 2;
	return keys;
}

static void store_key(struct driver_bpf *driver, const struct bench_peers *peers, uint32_t index,
		      const struct cidr *address)
{
	if (peers->family == AF_INET)
		memcpy(&driver->bss->keys4[index], address->bytes, 4);
	else if (peers->dense)
		memcpy(&driver->bss->keys4[index], address->bytes + 12, 4);
	else
		memcpy(&driver->bss->keys6[index], address->bytes, 8);
}

static void make_keys(struct bench_peers *peers, struct driver_bpf *driver)
{
	const uint32_t keys = count_keys(peers);
	bool lengths[129] = {false};

	for (uint32_t i = 0; i < peers->count; i++)
		lengths[peers->prefixes[i].prefix_length] = true;
	for (uint32_t i = 0; i < keys; i++) {
		struct cidr address = address_in(&peers->prefixes[(random_number() >> 20) % peers->count]);

		peers->expected[slot_of(peers, lengths, &address)] += BENCH_KEYS / keys;
		for (uint32_t again = i; again < BENCH_KEYS; again += keys)
			store_key(driver, peers, again, &address);
	}
	driver->bss->key_mask = keys - 1;
}

void peers_make(struct bench_peers *ret_peers, const struct bench_options *options, struct driver_bpf *driver)
{
	*ret_peers = (struct bench_peers){
		.family = options->family,
		.dense = options->dense,
		.count = options->peers,
		.prefixes = calloc(options->peers, sizeof(struct cidr)),
		.expected = calloc(options->peers + 1, sizeof(uint32_t)),
	};
	if (!ret_peers->prefixes || !ret_peers->expected)
		fail("out of memory");
	make_prefixes(ret_peers);
	make_keys(ret_peers, driver);
}

void peers_free(struct bench_peers *peers)
{
	free(peers->prefixes);
	free(peers->expected);
}

void peers_check(const struct bench_peers *peers, const struct meter *meter, uint64_t runs, uint64_t size)
{
	for (uint32_t slot = 0; slot <= peers->count; slot++) {
		uint64_t packets = peers->expected[slot] * runs;
		struct meter_totals totals;

		meter_read(meter, slot, &totals);
		if (totals.download_packets != packets || totals.download_bytes != packets * size)
			fail("slot %u of %u: %llu packets, %llu bytes counted, %llu packets of %llu bytes "
			     "sent",
			     slot, peers->count, (unsigned long long)totals.download_packets,
			     (unsigned long long)totals.download_bytes, (unsigned long long)packets,
			     (unsigned long long)size);
	}
}
