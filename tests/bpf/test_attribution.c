// SPDX-License-Identifier: BSD-2-Clause
/*
 * Attribution by the loaded programs, under changes (I16): against a list that is scanned for the longest
 * prefix, with a hundred thousand peers, and by a second thread while the first changes everything around.
 */
#include "fixture.h"

#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include "../chance.h"
#include "../prefix_oracle.h"

struct known {
	struct cidr prefix;
	uint32_t slot;
};

static struct known list[512];
static size_t listed;
static uint32_t expected(const struct cidr *address)
{
	const struct known *longest = NULL;

	for (size_t i = 0; i < listed; i++) {
		if (holds(&list[i].prefix, address) &&
		    (!longest || list[i].prefix.prefix_length > longest->prefix.prefix_length))
			longest = &list[i];
	}
	return longest ? longest->slot : WT_SLOT_UNATTRIBUTED;
}

static struct cidr random_address(void)
{
	static const uint8_t few[] = {0, 0, 1, 3, 128};
	struct cidr address = {.family = random_below(2) ? AF_INET : AF_INET6};
	unsigned size = address.family == AF_INET ? 4 : 16;

	address.bytes[0] = 10;
	for (unsigned i = 1; i < size; i++)
		address.bytes[i] = few[random_below(sizeof(few))];
	if (size == 16 && random_below(2))
		memset(address.bytes + 4, 0, 8);
	if (size == 16 && !random_below(4)) {
		memset(address.bytes, 0, 10);
		memset(address.bytes + 10, 0xff, 2);
	}
	address.prefix_length = size * 8;
	return address;
}

static struct cidr random_prefix(void)
{
	struct cidr prefix = random_address();

	if (random_below(3))
		prefix.prefix_length = random_below(prefix.prefix_length + 1);
	return cidr_network(&prefix);
}

static struct known *find_listed(const struct cidr *prefix)
{
	for (size_t i = 0; i < listed; i++) {
		if (cidr_equal(&list[i].prefix, prefix))
			return &list[i];
	}
	return NULL;
}

static void change_at_random(struct fixture *fixture)
{
	struct cidr prefix =
		listed && random_below(3) ? list[random_below((uint32_t)listed)].prefix : random_prefix();
	struct known *known = find_listed(&prefix);
	uint32_t slot = 1 + random_below(99);

	if (known && !random_below(listed > 200 ? 2 : 5)) {
		assert_int_equal(meter_delete_prefix(fixture->meter, &prefix), 0);
		*known = list[--listed];
		return;
	}
	assert_int_equal(meter_set_prefix(fixture->meter, &prefix, slot, 1), 0);
	if (!known)
		known = &list[listed++];
	*known = (struct known){prefix, slot};
}

static struct frame frame_from(const struct cidr *source)
{
	struct frame frame = {.size = 60};
	uint8_t *ip = frame.bytes + ETHERNET;

	frame.bytes[12] = source->family == AF_INET ? 0x08 : 0x86;
	frame.bytes[13] = source->family == AF_INET ? 0x00 : 0xdd;
	ip[0] = source->family == AF_INET ? 0x45 : 0x60;
	memcpy(ip + (source->family == AF_INET ? 12 : 8), source->bytes, source->family == AF_INET ? 4 : 16);
	return frame;
}

static uint64_t upload_packets(const struct fixture *fixture, uint32_t slot)
{
	struct meter_totals totals;

	meter_read(fixture->meter, slot, &totals);
	return totals.upload_packets;
}

static void assert_attributed(struct fixture *fixture, const struct cidr *address, uint32_t slot)
{
	struct frame frame = frame_from(address);
	uint64_t before = upload_packets(fixture, slot);

	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(upload_packets(fixture, slot), before + 1);
}

static void answers_like_a_list(void **state)
{
	struct fixture *fixture = *state;

	listed = 0;
	list[listed++] = (struct known){prefix("10.0.0.7/32"), PEER};
	for (int round = 0; round < 4000; round++) {
		change_at_random(fixture);
		for (int i = 0; i < 5; i++) {
			struct cidr address = random_address();

			assert_attributed(fixture, &address, expected(&address));
		}
		if (round % 500 == 0) {
			meter_close(fixture->meter);
			assert_int_equal(meter_adopt(&options, &fixture->meter), 0);
		}
	}
	assert_true(listed > 100);
}

/* ---- a hundred thousand ---- */

#define MANY 100000

static struct cidr peer_address(int family, uint32_t number)
{
	struct cidr address = {.family = family, .prefix_length = family == AF_INET ? 32 : 128};
	uint8_t *end = address.bytes + (family == AF_INET ? 4 : 16);

	address.bytes[0] = family == AF_INET ? 10 : 0xfd;
	end[-3] = (uint8_t)(64 + (number >> 16));
	end[-2] = (uint8_t)(number >> 8);
	end[-1] = (uint8_t)number;
	return address;
}

/* A site behind the peer: of a length and at a place that only its number tells. */
static struct cidr peer_site(int family, uint32_t number)
{
	struct cidr site = {.family = family,
			    .prefix_length = family == AF_INET ? 25 + number % 7 : 49 + number % 16};
	uint32_t spread = number * 2654435761U;

	site.bytes[0] = family == AF_INET ? (uint8_t)(100 + number % 100) : 0x20;
	memcpy(site.bytes + 1, &spread, 3);
	memcpy(site.bytes + 4, &number, family == AF_INET ? 0 : 4);
	return cidr_network(&site);
}

static int setup_many(void **state)
{
	struct meter_options many = options;
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	many.capacity = MANY + 1;
	assert_non_null(fixture);
	use_cpu(0);
	assert_int_equal(meter_attach(&many, &fixture->meter), 0);
	fixture->ingress = bpf_obj_get(FOLDER "/live/ingress");
	fixture->egress = bpf_obj_get(FOLDER "/live/egress");
	assert_true(fixture->ingress >= 0 && fixture->egress >= 0);
	fixture->credit = map_pin("credit", 4096);
	fixture->cells = map_pin("interface_cells", sizeof(*fixture->cells));
	*state = fixture;
	return 0;
}

static void holds_a_hundred_thousand_peers(void **state)
{
	static const int families[] = {AF_INET, AF_INET6};
	static struct cidr sites[2][MANY];
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < MANY; i++) {
		for (int f = 0; f < 2; f++) {
			struct cidr address = peer_address(families[f], i);

			assert_int_equal(meter_set_prefix(fixture->meter, &address, i + 1, 1), 0);
			sites[f][i] = peer_site(families[f], i);
			assert_int_equal(meter_set_prefix(fixture->meter, &sites[f][i], i + 1, 1), 0);
		}
	}
	for (uint32_t i = 0; i < MANY; i += 7) {
		for (int f = 0; f < 2; f++) {
			struct cidr address = peer_address(families[f], i);

			assert_attributed(fixture, &address, i + 1);
		}
	}
	/* A site's own address may lie in another's: the oracle scans the sites of the same family. */
	for (uint32_t i = 0; i < MANY; i += 997) {
		for (int f = 0; f < 2; f++) {
			uint32_t owner = i;

			for (uint32_t j = 0; j < MANY; j++) {
				if (sites[f][j].prefix_length >= sites[f][owner].prefix_length &&
				    holds(&sites[f][j], &sites[f][i]))
					owner = j; /* the last of equal prefixes has replaced the others */
			}
			assert_attributed(fixture, &sites[f][i], owner + 1);
		}
	}
}

/* ---- while packets flow ---- */

#define STABLE 10
#define ENOUGH 10000 /* changes, and packets of each, however long a busy machine takes */

struct flow {
	struct fixture *fixture;
	struct frame frames[STABLE];
	bool *stop;
	uint64_t sent[STABLE];
};

static void *send_until_told(void *argument)
{
	struct flow *flow = argument;

	use_cpu(1);
	while (!__atomic_load_n(flow->stop, __ATOMIC_RELAXED)) {
		for (int i = 0; i < STABLE; i++) {
			if (run_times(flow->fixture->ingress, &flow->frames[i], 2000) == PASSED)
				__atomic_fetch_add(&flow->sent[i], 2000, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

/* Prefixes that nest in those of the stable peers, or around them, and hold none of their addresses. */
static struct cidr neighbour(uint32_t number)
{
	static const char *const around[] = {"10.0.0.0/8",    "10.1.0.0/16",    "10.1.2.0/23",   "0.0.0.0/0",
					     "10.1.2.64/26",  "10.1.2.4/32",    "10.1.2.6/31",   "fd00::/8",
					     "fd00:1::/32",   "fd00:1::4/128",  "fd00:1::6/127", "::/0",
					     "fd00:1:2::/64", "fd00:1::100/120"};
	struct cidr address;

	if (number % 2)
		return prefix(around[number / 2 % ARRAY_SIZE(around)]);
	address = number % 4 ? prefix("10.1.2.128/25") : prefix("fd00:1::8000/113");
	address.prefix_length = address.family == AF_INET ? 26 + number / 4 % 7 : 114 + number / 4 % 15;
	address.bytes[address.family == AF_INET ? 3 : 14] |= (uint8_t)(number / 4 * 37 & 0x7f);
	return cidr_network(&address);
}

static void never_misattributes_a_stable_peer(void **state)
{
	/* By an address of the window, by addresses beyond it, by prefixes that hold others. */
	static const char *const prefixes[STABLE] = {
		"10.1.2.5/32",   "10.1.2.0/24",  "10.0.0.0/9", "192.0.2.1/32",    "198.51.100.0/30",
		"fd00:1::5/128", "fd00:1::/112", "fd00::/16",  "2001:db8::1/128", "2001:db8:1::/48"};
	static const char *const addresses[STABLE] = {
		"10.1.2.5",  "10.1.2.9",  "10.99.0.1", "192.0.2.1",   "198.51.100.2",
		"fd00:1::5", "fd00:1::9", "fd00:9::1", "2001:db8::1", "2001:db8:1::1"};
	struct fixture *fixture = *state;
	bool stop = false, present[256] = {false};
	struct flow flow = {.fixture = fixture, .stop = &stop};
	struct timespec begun, now;
	uint64_t changes = 0;
	pthread_t thread;

	for (uint32_t i = 0; i < STABLE; i++) {
		struct cidr address = prefix(addresses[i]);

		flow.frames[i] = frame_from(&address);
		set_prefix(fixture, prefixes[i], i + 10);
	}
	assert_int_equal(pthread_create(&thread, NULL, send_until_told, &flow), 0);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do {
		for (int i = 0; i < 1000; i++, changes++) {
			uint32_t number = random_below(ARRAY_SIZE(present));
			struct cidr other = neighbour(number);
			int r;

			if (random_below(2)) {
				r = meter_set_prefix(fixture->meter, &other, 30 + random_below(60), 1);
				assert_int_equal(r, 0);
			} else {
				r = meter_delete_prefix(fixture->meter, &other);
				assert_true(r == 0 || r == -ENOENT);
			}
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begun.tv_sec < 5 || changes <= ENOUGH ||
		 __atomic_load_n(&flow.sent[0], __ATOMIC_RELAXED) <= ENOUGH);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	assert_int_equal(pthread_join(thread, NULL), 0);
	for (uint32_t slot = 0; slot < 100; slot++) {
		bool stable = slot >= 10 && slot < 10 + STABLE;

		assert_int_equal(upload_packets(fixture, slot), stable ? flow.sent[slot - 10] : 0);
	}
	print_message("%lu changes, %lu packets of each stable peer\n", changes, flow.sent[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_like_a_list, setup, teardown),
		cmocka_unit_test_setup_teardown(never_misattributes_a_stable_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(holds_a_hundred_thousand_peers, setup_many, teardown),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
