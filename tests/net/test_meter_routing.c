// SPDX-License-Identifier: BSD-2-Clause
/*
 * The meter and WireGuard take the same peer for a packet (I16): WireGuard itself is the oracle. It has peers
 * that do not answer, so the first packet for one of them makes it send a handshake to just that one, which
 * its counter shows. Prefixes nest, overlap, move and go at random. Runs in namespaces of its own; needs
 * root, iproute2, wireguard-tools, wireguard-go.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"
#include "wg/wg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include "../chance.h"

#define PEERS   120
#define CHANGES 300
#define PROBES  400

static const struct meter_options options = {
	.pin_folder = "/run/bpf/meter", .interface = "wgs", .capacity = 256};

static struct key keys[PEERS + 1]; /* by slot */
static struct cidr given[CHANGES];
static uint32_t owners[CHANGES];
static size_t n_given;
/* Few different bits, so that prefixes of all lengths share their beginnings. */
static struct cidr random_address(void)
{
	struct cidr address = {.family = random_below(2) ? AF_INET : AF_INET6};
	unsigned size = address.family == AF_INET ? 4 : 16;
	static const uint8_t few[] = {0, 0, 1, 3, 128};

	for (unsigned i = 1; i < size; i++)
		address.bytes[i] = few[random_below(sizeof(few))];
	if (size == 16)
		memset(address.bytes + 3, 0, 9);
	address.bytes[0] = size == 4 ? 10 : 0xfd;
	address.prefix_length = size * 8;
	return address;
}

static struct cidr random_prefix(void)
{
	struct cidr prefix = random_address();

	if (random_below(3))
		prefix.prefix_length = 12 + random_below(prefix.prefix_length - 11);
	return cidr_network(&prefix);
}

/* ---- both sides are told the same ---- */

static void make_peers(struct wg *wg)
{
	static struct wg_peer_change changes[PEERS];
	struct key private_key;

	key_generate_private(&private_key);
	assert_int_equal(wg_set_interface(wg, &private_key, 51820), 0);
	for (uint32_t slot = 1; slot <= PEERS; slot++) {
		struct sockaddr_in nobody = {.sin_family = AF_INET,
					     .sin_port = htons((uint16_t)(20000 + slot))};
		struct wg_peer_change *change = &changes[slot - 1];

		key_generate_private(&private_key);
		assert_int_equal(key_public(&private_key, &keys[slot]), 0);
		inet_pton(AF_INET, "127.0.0.1", &nobody.sin_addr);
		*change = (struct wg_peer_change){.public_key = keys[slot], .set_endpoint = true};
		memcpy(&change->endpoint, &nobody, sizeof(nobody));
	}
	assert_int_equal(wg_change_peers(wg, changes, PEERS), 0);
}

static size_t place_of(const struct cidr *prefix)
{
	size_t i = 0;

	while (i < n_given && !cidr_equal(&given[i], prefix))
		i++;
	return i;
}

static void give(struct wg *wg, struct meter *meter, const struct cidr *prefix, uint32_t slot)
{
	const struct wg_peer_change change = {
		.public_key = keys[slot], .update_only = true, .allowed_ips = prefix, .n_allowed_ips = 1};
	size_t place = place_of(prefix);

	assert_int_equal(wg_change_peers(wg, &change, 1), 0);
	assert_int_equal(meter_set_prefix(meter, prefix, slot, 1), 0);
	given[place] = *prefix;
	owners[place] = slot;
	n_given += place == n_given;
}

static void take_away(struct wg *wg, struct meter *meter, size_t place)
{
	assert_int_equal(wg_remove_allowed_ip(wg, &keys[owners[place]], &given[place]), 0);
	assert_int_equal(meter_delete_prefix(meter, &given[place]), 0);
	n_given--;
	given[place] = given[n_given];
	owners[place] = owners[n_given];
}

/* Additions, then moves and removals of what is there, too. */
static void change_at_random(struct wg *wg, struct meter *meter)
{
	for (int i = 0; i < CHANGES; i++) {
		struct cidr prefix = random_prefix();

		if (i < CHANGES / 2 || !random_below(3))
			give(wg, meter, &prefix, 1 + random_below(PEERS));
		else if (random_below(4))
			give(wg, meter, &given[random_below((uint32_t)n_given)], 1 + random_below(PEERS));
		else
			take_away(wg, meter, random_below((uint32_t)n_given));
	}
}

/* ---- a packet, and who took it ---- */

static void send_to(const struct cidr *address)
{
	struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(9)};
	struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
	const void *to = address->family == AF_INET ? (const void *)&ipv4 : &ipv6;
	int fd = socket(address->family, SOCK_DGRAM, 0);

	memcpy(&ipv4.sin_addr, address->bytes, 4);
	memcpy(&ipv6.sin6_addr, address->bytes, 16);
	/* WireGuard's refusal of what has no peer may be an error here; it was sent all the same. */
	(void)!sendto(fd, "probe", 5, 0, to, address->family == AF_INET ? sizeof(ipv4) : sizeof(ipv6));
	close(fd);
}

/* The slot that has one packet more, 0 for the strangers'; -1: none has. */
static int metered(const struct meter *meter, uint64_t packets[PEERS + 1])
{
	int found = -1;

	for (uint32_t slot = 0; slot <= PEERS; slot++) {
		struct meter_totals totals;

		meter_read(meter, slot, &totals);
		if (totals.download_packets == packets[slot])
			continue;
		assert_int_equal(found, -1);
		assert_int_equal(totals.download_packets, packets[slot] + 1);
		packets[slot] = totals.download_packets;
		found = (int)slot;
	}
	return found;
}

/* The peers that WireGuard has sent something to, as a slot each. */
static uint32_t note_called(struct wg *wg, bool called[PEERS + 1])
{
	struct wg_device *device = NULL;
	uint32_t news = 0;

	assert_int_equal(wg_dump(wg, &device), 0);
	for (uint32_t slot = 1; slot <= PEERS; slot++) {
		const struct wg_peer *peer = wg_device_find(device, &keys[slot]);

		assert_non_null(peer);
		if (peer->tx_bytes == 0 || called[slot])
			continue;
		assert_int_equal(news, 0);
		called[slot] = true;
		news = slot;
	}
	wg_device_free(device);
	return news;
}

/* Packets for a peer that was called before tell nothing: it is called again only after a while. */
static void both_choose_the_same_peer(void **state)
{
	static uint64_t packets[PEERS + 1];
	static bool called[PEERS + 1];
	unsigned compared = 0, strangers = 0;
	struct meter *meter = NULL;
	struct wg *wg = NULL;

	(void)state;
	assert_int_equal(meter_attach(&options, &meter), 0);
	assert_int_equal(wg_open("wgs", &wg), 0);
	make_peers(wg);
	change_at_random(wg, meter);
	assert_int_equal(run("ip link set wgs up && ip addr add 192.0.2.1/32 dev wgs && "
			     "ip addr add 2001:db8::1/128 dev wgs nodad && "
			     "ip route add 10.0.0.0/8 dev wgs && ip route add fd00::/8 dev wgs"),
			 0);
	metered(meter, packets);
	for (int i = 0; i < PROBES; i++) {
		struct cidr address = random_address();
		uint32_t news;
		int slot;

		if (random_below(2) && n_given)
			address = given[random_below((uint32_t)n_given)];
		send_to(&address);
		slot = metered(meter, packets);
		assert_true(slot >= 0);
		if (slot > 0 && called[slot])
			continue;
		news = 0;
		for (int wait = 0; wait < (slot ? 10000 : 3) && !news; wait++) {
			usleep(2000);
			news = note_called(wg, called);
		}
		assert_int_equal(news, slot);
		*(slot ? &compared : &strangers) += 1;
	}
	printf("# %u peers, and %u times none\n", compared, strangers);
	assert_true(compared > PEERS / 3 && strangers > 0);
	wg_close(wg);
	assert_int_equal(meter_remove(meter), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_choose_the_same_peer),
	};

	if (namespace_enter() || mount("sysfs", "/sys", "sysfs", 0, NULL) || mkdir("/run/bpf", 0700) ||
	    mount("bpf", "/run/bpf", "bpf", 0, "mode=0700") ||
	    start((char *[]){"wireguard-go", "-f", "wgs", NULL}) < 0 || wait_until_it_listens("wgs")) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
