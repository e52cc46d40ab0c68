// SPDX-License-Identifier: BSD-2-Clause
/*
 * Random packets through the loaded programs, on changing CPUs, in both directions, by tc and in the last
 * quarter of the time uploads by XDP, while prefixes move and limits change (I2, I4, I13, I15, I16). After
 * each packet the counts are those of the oracle, which cuts the packet into segments and scans a list of
 * prefixes, and those of the parser compiled for user space.
 *
 *   packets [SECONDS [SEED]]    ends with status 0 and a line of figures when nothing differed
 */
#include "../bpf/fixture.h"
#include "fuzz.h"
#include "segments.h"

#include "../../bpf/parse.h"

#include <inttypes.h>
#include <linux/bpf.h>
#include <sys/socket.h>
#include <time.h>
#include "../chance.h"
#include "../drafts.h"
#include "../prefix_oracle.h"

#define SLOTS    100
#define PREFIXES 64
#define LEAST    20000 /* packets, however slow the machine is */
#define LIMITED  3     /* slots 1 to 3 may have limits of their own */

struct entry {
	struct cidr prefix;
	uint32_t slot;
};

static struct meter *meter;
static int programs[2]; /* uploads, downloads */
static bool by_xdp;     /* uploads are */
static struct entry entries[PREFIXES];
static size_t n_entries;
static struct meter_totals expected[SLOTS];
static uint64_t expected_unparsed;
static struct {
	uint64_t aggregates, refused, unparsed, changes;
} seen;

/* What a limit has let pass in its cycle, and the highest ceiling that it had; slot 0 is the interface. */
static struct {
	uint64_t admitted, ceiling, cycle, seq;
	uint32_t mask;
} limits[LIMITED + 1];

/* ---- whose packets ---- */

static struct cidr random_prefix(void)
{
	struct cidr cidr = {.family = random_below(2) ? AF_INET : AF_INET6};
	unsigned size = cidr.family == AF_INET ? 4 : 16;

	cidr.bytes[0] = 10;
	for (unsigned i = 1; i < size; i++)
		cidr.bytes[i] = (uint8_t)(random_below(4) ? 0 : random_below(3));
	cidr.prefix_length = size * 8;
	return cidr;
}

static struct entry *entry_of(const struct cidr *cidr)
{
	for (size_t i = 0; i < n_entries; i++)
		if (cidr_equal(&entries[i].prefix, cidr))
			return &entries[i];
	return NULL;
}

static void change_prefixes(void)
{
	struct cidr cidr = random_prefix();
	struct entry *entry;

	if (random_below(2))
		cidr.prefix_length = random_below(cidr.prefix_length + 1);
	cidr = cidr_network(&cidr);
	if (n_entries && random_below(3) == 0)
		cidr = entries[random_below((uint32_t)n_entries)].prefix;
	entry = entry_of(&cidr);
	if (entry && random_below(2)) {
		CLAIM(meter_delete_prefix(meter, &cidr) == 0);
		*entry = entries[--n_entries];
		return;
	}
	if (!entry) {
		if (n_entries == PREFIXES)
			return;
		entry = &entries[n_entries++];
	}
	*entry = (struct entry){cidr, 1 + random_below(SLOTS - 1)};
	if (random_below(2))
		entry->slot = 1 + random_below(LIMITED + 1);
	CLAIM(meter_set_prefix(meter, &cidr, entry->slot, 1) == 0);
}

static uint32_t owner_of(const struct frame *frame, unsigned direction)
{
	const uint8_t *ip = frame->bytes + ETHERNET;
	unsigned version = ip_version(ip, frame->size, frame->size);
	const uint8_t *address =
		ip + (version == 4 ? 12 : 8) + (direction == WT_DOWNLOADS) * (version == 4 ? 4 : 16);
	const struct entry *longest = NULL;

	for (size_t i = 0; version && i < n_entries; i++)
		if (entries[i].prefix.family == (version == 4 ? AF_INET : AF_INET6) &&
		    holds_bytes(&entries[i].prefix, address) &&
		    (!longest || entries[i].prefix.prefix_length > longest->prefix.prefix_length))
			longest = &entries[i];
	return longest ? longest->slot : WT_SLOT_UNATTRIBUTED;
}

/* ---- packets ---- */

static void put_address(uint8_t *to, bool ipv4)
{
	struct cidr address = random_prefix();

	if (n_entries && random_below(4))
		address = entries[random_below((uint32_t)n_entries)].prefix;
	memcpy(to, address.bytes, ipv4 ? 4 : 16);
	if (random_below(3) == 0)
		to[(ipv4 ? 4 : 16) - 1] = (uint8_t)random_below(3);
}

/* Headers of the IP version, extensions and the transport; returns their size. */
static uint32_t put_headers(uint8_t *ip, bool ipv4)
{
	static const uint8_t extensions[] = {0, 43, 44, 51, 60, 135};
	static const uint8_t transports[] = {6, 6, 6, 6, 6, 17, 17, 17, 17, 17, 4, 41, 47, 50, 58, 132};
	uint8_t transport = transports[random_below(sizeof(transports))];
	uint32_t size = ipv4 ? 20 + 4 * random_below(11) : 40, next = ipv4 ? 9 : 6;

	ip[0] = ipv4 ? (uint8_t)(0x40 | size / 4) : 0x60;
	put_address(ip + (ipv4 ? 12 : 8), ipv4);
	put_address(ip + (ipv4 ? 16 : 24), ipv4);
	for (uint32_t left = ipv4 ? 0 : random_below(10); left > 1; left -= 2) {
		uint8_t type = extensions[random_below(sizeof(extensions))], units = (uint8_t)random_below(4);

		ip[next] = type;
		next = size;
		ip[size + 1] = type == 44 ? 0 : units;
		size += type == 51 ? (units + 2U) * 4 : type == 44 ? 8 : (units + 1U) * 8;
	}
	ip[next] = transport;
	if (transport == 6)
		ip[size + 12] = (uint8_t)((5 + random_below(11)) << 4);
	return size + (transport == 6 ? 4 * (ip[size + 12] >> 4) : 8);
}

/* Tunnels within the tunnel, up to one more than are followed; returns the size of all headers. */
static uint32_t put_tunnels(uint8_t *ip, bool ipv4)
{
	struct draft draft;

	draft_begin(&draft);
	draft_ip(&draft, ipv4 ? IP4_OPTIONS : IP6_EXTENSIONS);
	for (uint32_t left = random_below(5); left; left--) {
		draft_tunnel(&draft, (enum tunnel)random_below(TUNNELS));
		draft_ip(&draft, (enum ip_kind)random_below(IP_KINDS));
	}
	draft_transport(&draft, (enum transport)random_below(TRANSPORTS));
	draft_seal(&draft, 200);
	memcpy(ip, draft.bytes, draft.size);
	put_address(ip + (ipv4 ? 12 : 8), ipv4);
	put_address(ip + (ipv4 ? 16 : 24), ipv4);
	return draft.size;
}

static struct frame random_frame(void)
{
	struct frame frame = {0};
	uint8_t *ip = frame.bytes + ETHERNET;
	bool ipv4 = random_below(2), tunnels = random_below(3) == 0;
	uint32_t headers = tunnels ? put_tunnels(ip, ipv4) : put_headers(ip, ipv4);

	/* Under the EtherType of its own, or another, as the programs do not look at it. */
	frame.bytes[12] = ipv4 ? 0x08 : 0x86;
	frame.bytes[13] = ipv4 ? 0x00 : 0xdd;
	frame.size = headers + random_below(1 + (random_below(4) ? 1400 : 20));
	if (tunnels && random_below(4))
		frame.size = headers + 200;
	if (random_below(8) == 0)
		frame.size = 1 + random_below(frame.size);
	for (uint32_t flips = random_below(4) ? 0 : random_below(6); flips; flips--)
		ip[random_below(random_below(2) ? headers : frame.size)] ^= (uint8_t)(1U << random_below(8));
	if (frame.size < 40)
		frame.bytes[12] = 0x12; /* the kernel's runner would look into the header */
	if (random_below(3))
		frame.gso_size = 1 + random_below(random_below(2) ? 100 : 65535);
	if (tunnels && random_below(8) == 0)
		frame.gso_size = 0xffff;
	/* Whatever somebody claims of an aggregate; seldom of what is none. */
	frame.gso_segs = random_below(frame.gso_size ? 2 : 16) ? 0 : random_below(65536);
	return frame;
}

/* ---- limits ---- */

static int grant(uint32_t slot)
{
	const struct meter_grant wanted = {limits[slot].cycle, limits[slot].seq, limits[slot].ceiling,
					   limits[slot].mask};

	return slot ? meter_grant_peer(meter, slot, &wanted) : meter_grant(meter, &wanted);
}

static void change_limit(void)
{
	uint32_t slot = random_below(LIMITED + 1);

	if (!limits[slot].cycle || random_below(3) == 0) {
		limits[slot].cycle++;
		limits[slot].seq = 0;
		limits[slot].admitted = limits[slot].ceiling = 0;
		limits[slot].mask = 1 + random_below(3);
	}
	limits[slot].seq++;
	limits[slot].ceiling += random_below(random_below(2) ? 3000000 : 30000);
	CLAIM(grant(slot) == 0);
	/* A stale one changes nothing. */
	limits[slot].seq--;
	CLAIM(grant(slot) == -EALREADY);
	limits[slot].seq++;
	seen.changes++;
}

static void count_admitted(uint32_t limit, unsigned direction, uint64_t bytes)
{
	if (!limits[limit].cycle || !(limits[limit].mask & direction))
		return;
	limits[limit].admitted += bytes;
	CLAIM(limits[limit].admitted <= limits[limit].ceiling);
}

/* What has latched has left less than the bound unspent. */
static void claim_spent(uint32_t slot)
{
	struct meter_limit_state state;

	if (slot)
		CLAIM(meter_read_peer_limit(meter, slot, &state) == 0);
	else
		meter_read_limit(meter, &state);
	CLAIM(state.cycle_counted == limits[slot].admitted);
	CLAIM(!state.exhausted || limits[slot].ceiling - limits[slot].admitted < WT_UNSPENT_BOUND);
}

/* ---- one packet ---- */

/* Whether it passed. XDP gets a frame, and nothing about segments. */
static bool passes(const struct frame *frame, unsigned direction)
{
	LIBBPF_OPTS(bpf_test_run_opts, options_of_run, .data_in = frame->bytes,
		    .data_size_in = ETHERNET + frame->size, .repeat = 1);
	uint32_t verdict;

	if (!by_xdp || direction != WT_UPLOADS) {
		verdict = run(programs[direction - 1], frame);
		CLAIM(verdict == PASSED || verdict == DROPPED);
		return verdict == PASSED;
	}
	CLAIM(bpf_prog_test_run_opts(programs[0], &options_of_run) == 0);
	CLAIM(options_of_run.retval == XDP_PASS || options_of_run.retval == XDP_DROP);
	return options_of_run.retval == XDP_PASS;
}

static struct segments segments_of(const struct frame *frame)
{
	const struct aggregate aggregate = {.bytes = frame->bytes + ETHERNET,
					    .size = frame->size,
					    .length = frame->size,
					    .gso_size = frame->gso_size,
					    .gso_segs = frame->gso_segs};

	return cut(&aggregate);
}

static void expect(const struct frame *frame, unsigned direction, bool passed)
{
	const uint8_t *ip = frame->bytes + ETHERNET;
	const struct wt_packet packet = {.data = ip, .length = frame->size, .captured = frame->size};
	const struct wt_gso gso = {.size = frame->gso_size, .segs = frame->gso_segs};
	const struct segments segments = segments_of(frame);
	const struct wt_weight weight = wt_weigh(&packet, &gso);
	uint32_t slot = owner_of(frame, direction);
	struct meter_totals *totals = &expected[slot];

	CLAIM(weight.bytes == segments.bytes && weight.packets == segments.packets &&
	      weight.unparsed == segments.unparsed);
	expected_unparsed += segments.unparsed;
	seen.unparsed += segments.unparsed;
	seen.aggregates += segments.packets > 1;
	if (!passed) {
		totals->refused_bytes += segments.bytes;
		totals->refused_packets += segments.packets;
		seen.refused++;
		claim_spent(0);
		if (slot && slot <= LIMITED)
			claim_spent(slot);
		return;
	}
	*(direction == WT_UPLOADS ? &totals->upload_bytes : &totals->download_bytes) += segments.bytes;
	*(direction == WT_UPLOADS ? &totals->upload_packets : &totals->download_packets) += segments.packets;
	if (slot != WT_SLOT_UNATTRIBUTED)
		count_admitted(0, direction, segments.bytes);
	if (slot != WT_SLOT_UNATTRIBUTED && slot <= LIMITED)
		count_admitted(slot, direction, segments.bytes);
}

static void claim_slot(uint32_t slot)
{
	struct meter_totals totals;

	meter_read(meter, slot, &totals);
	CLAIM(memcmp(&totals, &expected[slot], sizeof(totals)) == 0);
}

static void claim_all(void)
{
	struct meter_interface_totals totals;

	for (uint32_t slot = 0; slot < SLOTS; slot++)
		claim_slot(slot);
	meter_read_interface(meter, &totals);
	CLAIM(totals.unparsed_packets == expected_unparsed);
}

static void send_one(void)
{
	struct frame frame = random_frame();
	unsigned direction = 1 + random_below(2);

	if (by_xdp && direction == WT_UPLOADS)
		frame.gso_size = frame.gso_segs = 0;
	expect(&frame, direction, passes(&frame, direction));
	claim_slot(owner_of(&frame, direction));
}

/* Returns how many. */
static uint64_t send_for(time_t seconds)
{
	time_t end = time(NULL) + seconds;
	uint64_t packets = 0;

	for (; packets % 1024 || packets < LEAST || time(NULL) < end; packets++) {
		if (packets % 64 == 0) {
			use_cpu((int)random_below(2));
			change_prefixes();
		}
		/* The first ones without any limit. */
		if (packets > 4096 && random_below(256) == 0)
			change_limit();
		send_one();
		if (packets % 1024 == 0)
			claim_all();
	}
	claim_all();
	return packets;
}

/* With a meter of its own. */
static uint64_t meter_for(time_t seconds, enum meter_attach how)
{
	struct meter_options wanted = options;
	uint64_t packets;

	by_xdp = how == METER_ATTACH_XDP;
	wanted.attach = how;
	n_entries = 0;
	expected_unparsed = 0;
	memset(expected, 0, sizeof(expected));
	memset(limits, 0, sizeof(limits));
	CLAIM(meter_attach(&wanted, &meter) == 0);
	programs[0] = bpf_obj_get(FOLDER "/live/ingress");
	programs[1] = bpf_obj_get(FOLDER "/live/egress");
	CLAIM(programs[0] >= 0 && programs[1] >= 0);
	packets = send_for(seconds);
	close(programs[0]);
	close(programs[1]);
	CLAIM(meter_remove(meter) == 0);
	return packets;
}

int main(int argc, char **argv)
{
	time_t seconds = argc > 1 ? atol(argv[1]) : 3;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL), packets;

	random_state = seed * 2 + 88172645463325252ULL;
	fprintf(stderr, "seed %" PRIu64 "\n", seed);
	CLAIM(make_laboratory() == 0);
	packets = meter_for(seconds - seconds / 4, METER_ATTACH_AUTO);
	packets += meter_for(seconds / 4, METER_ATTACH_XDP);
	CLAIM(seen.aggregates && seen.refused && seen.unparsed && seen.changes);
	printf("%" PRIu64 " packets, %" PRIu64 " aggregates, %" PRIu64 " unparsed, %" PRIu64
	       " refused, %" PRIu64 " changes of limits, seed %" PRIu64 "\n",
	       packets, seen.aggregates, seen.unparsed, seen.refused, seen.changes, seed);
	return 0;
}
