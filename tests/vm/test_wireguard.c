// SPDX-License-Identifier: BSD-2-Clause
/*
 * Thousands of peers on the kernel's WireGuard through netlink, as `wg show` then lists them; and one prefix
 * taken from a peer with many, while its session goes on. Runs last, as it leaves the device behind.
 */
#include "capture.h"
#include "lab.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIXES 4U  /* of each peer */
#define MANY     200 /* of one peer */
#define MANY_NET "10.50.0"
#define PATIENCE 60 /* seconds */

struct expected {
	char key[KEY_TEXT_SIZE];
	char prefixes[PREFIXES][CIDR_TEXT_SIZE];
	bool lacks_last;
};

static size_t peers = 1000; /* more with FULL=1 */

static struct cidr cidr(const char *text)
{
	struct cidr prefix;

	assert_int_equal(cidr_parse(text, &prefix), 0);
	return prefix;
}

static struct wg *open_device(const char *interface)
{
	struct wg *wg = NULL;

	assert_int_equal(wg_open(interface, &wg), 0);
	assert_string_equal(wg_kind(wg), "kernel");
	return wg;
}

/* Host routes and networks of both families. */
static void describe(struct expected *peer, size_t number, const struct key *key)
{
	unsigned high = (unsigned)number >> 8, low = (unsigned)number & 255;

	key_format(key, peer->key);
	snprintf(peer->prefixes[0], CIDR_TEXT_SIZE, "11.%u.%u.16/28", high, low);
	snprintf(peer->prefixes[1], CIDR_TEXT_SIZE, "12.%u.%u.7/32", high, low);
	snprintf(peer->prefixes[2], CIDR_TEXT_SIZE, "fd11:0:%x::/48", (unsigned)number + 1);
	snprintf(peer->prefixes[3], CIDR_TEXT_SIZE, "fd12::%x/128", (unsigned)number + 1);
}

static void configure(struct wg *wg, struct expected *expected)
{
	struct wg_peer_change *changes = calloc(peers, sizeof(*changes));
	struct cidr *prefixes = calloc(peers * PREFIXES, sizeof(*prefixes));

	assert_true(changes && prefixes);
	for (size_t i = 0; i < peers; i++) {
		struct cidr *own = &prefixes[i * PREFIXES];

		key_generate_preshared(&changes[i].public_key);
		describe(&expected[i], i, &changes[i].public_key);
		for (size_t j = 0; j < PREFIXES; j++)
			own[j] = cidr(expected[i].prefixes[j]);
		changes[i].set_keepalive = true;
		changes[i].keepalive = (uint16_t)(i % 100);
		changes[i].allowed_ips = own;
		changes[i].n_allowed_ips = PREFIXES;
	}
	assert_int_equal(wg_change_peers(wg, changes, peers), 0);
	free(changes);
	free(prefixes);
}

static int by_key(const void *a, const void *b)
{
	const struct expected *left = a, *right = b;

	return strcmp(left->key, right->key);
}

static struct expected *find(struct expected *expected, const char *key)
{
	struct expected wanted = {0};

	snprintf(wanted.key, sizeof(wanted.key), "%s", key);
	return bsearch(&wanted, expected, peers, sizeof(*expected), by_key);
}

static bool has_prefix(const struct expected *peer, const char *text)
{
	for (size_t i = 0; i < PREFIXES - peer->lacks_last; i++)
		if (strcmp(peer->prefixes[i], text) == 0)
			return true;
	return false;
}

/* One line of `wg show DEVICE allowed-ips`: the key, a tab, and the prefixes in any order. */
static void assert_line(struct expected *expected, char *line)
{
	char *rest = line, *key = strsep(&rest, "\t"), *text;
	struct expected *peer = find(expected, key);
	size_t count = 0;

	assert_non_null(peer);
	while ((text = strsep(&rest, " \n")))
		if (*text) {
			assert_true(has_prefix(peer, text));
			count++;
		}
	assert_int_equal(count, PREFIXES - peer->lacks_last);
}

static void assert_listed(struct expected *expected)
{
	FILE *pipe = popen("wg show many allowed-ips", "r");
	char line[512];
	size_t lines = 0;

	assert_non_null(pipe);
	for (; fgets(line, sizeof(line), pipe); lines++)
		assert_line(expected, line);
	assert_int_equal(pclose(pipe), 0);
	assert_int_equal(lines, peers);
}

static void assert_dumped(struct wg *wg, struct expected *expected)
{
	struct wg_device *device = NULL;

	assert_int_equal(wg_dump(wg, &device), 0);
	assert_int_equal(device->n_peers, peers);
	for (size_t i = 0; i < peers; i++) {
		char key[KEY_TEXT_SIZE], text[CIDR_TEXT_SIZE];
		const struct wg_peer *peer = &device->peers[i];
		const struct expected *same = find(expected, key_format(&peer->public_key, key));

		assert_non_null(same);
		assert_int_equal(peer->n_allowed_ips, PREFIXES - same->lacks_last);
		for (size_t j = 0; j < peer->n_allowed_ips; j++)
			assert_true(has_prefix(same, cidr_format(&peer->allowed_ips[j], text)));
	}
	wg_device_free(device);
}

static void sets_and_reads_all_peers(void **state)
{
	struct expected *expected = calloc(peers, sizeof(*expected));
	struct cidr gone;
	struct key key;
	struct wg *wg;

	(void)state;
	assert_non_null(expected);
	assert_int_equal(lab_run(GATEWAY, "ip link add many type wireguard"), 0);
	wg = open_device("many");
	configure(wg, expected);
	qsort(expected, peers, sizeof(*expected), by_key);
	assert_listed(expected);
	assert_dumped(wg, expected);
	/* One prefix of one peer; nobody else loses any. */
	gone = cidr(expected[peers / 2].prefixes[PREFIXES - 1]);
	assert_int_equal(key_parse(expected[peers / 2].key, &key), 0);
	assert_int_equal(wg_remove_allowed_ip(wg, &key, &gone), 0);
	expected[peers / 2].lacks_last = true;
	assert_listed(expected);
	assert_dumped(wg, expected);
	wg_close(wg);
	/* The device goes with the machine: removing it waits for every reader, once for each peer. */
	free(expected);
}

/* The first customer, as WireGuard has it. */
static struct wg_peer first_customer(struct wg *wg, struct wg_device **ret_device)
{
	const struct cidr address = cidr("10.8.0.2/32");

	assert_int_equal(wg_dump(wg, ret_device), 0);
	for (size_t i = 0; i < (*ret_device)->n_peers; i++) {
		const struct wg_peer *peer = &(*ret_device)->peers[i];

		for (size_t j = 0; j < peer->n_allowed_ips; j++)
			if (cidr_equal(&peer->allowed_ips[j], &address))
				return *peer;
	}
	fail_msg("the first customer is not there");
	return (struct wg_peer){0};
}

static void give_many_prefixes(struct wg *wg, const struct key *key, struct meter *meter)
{
	struct cidr prefixes[MANY];
	const struct wg_peer_change change = {
		.public_key = *key, .update_only = true, .allowed_ips = prefixes, .n_allowed_ips = MANY};

	for (int i = 0; i < MANY; i++) {
		char text[CIDR_TEXT_SIZE];

		snprintf(text, sizeof(text), MANY_NET ".%d/32", i + 1);
		prefixes[i] = cidr(text);
		lab_set_prefix(meter, text, 1);
	}
	assert_int_equal(wg_change_peers(wg, &change, 1), 0);
	assert_int_equal(lab_run(GATEWAY, "ip route add " MANY_NET ".0/24 dev " LAB_DEVICE), 0);
	for (int i = 7; i <= 8; i++)
		assert_int_equal(lab_run(1, "ip addr add " MANY_NET ".%d/32 dev wgc", i), 0);
}

/* Two requests; whether there was an answer. `patience` is for when there is none, in seconds. */
static int ping_from(int host, int patience)
{
	return lab_run(1, "ping -q -n -c 2 -i 0.1 -W %d -I " MANY_NET ".%d 10.8.0.1 >/dev/null", patience,
		       host);
}

/* Takes one prefix from WireGuard and the meter while the customer's packets flow: none of them is lost. */
static void remove_under_traffic(struct wg *wg, const struct key *key, struct meter *meter)
{
	const struct cidr gone = cidr(MANY_NET ".7/32");
	FILE *traffic = popen("ip netns exec c1 ping -q -n -c 200 -i 0.01 -I 10.50.0.8 10.8.0.1", "r");
	char text[512] = "";
	size_t size = 0;

	assert_non_null(traffic);
	assert_int_equal(usleep(500000), 0);
	assert_int_equal(wg_remove_allowed_ip(wg, key, &gone), 0);
	assert_int_equal(meter_delete_prefix(meter, &gone), 0);
	size = fread(text, 1, sizeof(text) - 1, traffic);
	text[size] = '\0';
	assert_int_equal(pclose(traffic), 0);
	/* What has arrived, the capture says: ping does not wait for an answer that is late. */
	assert_non_null(strstr(text, "200 packets transmitted"));
}

static void one_prefix_goes_and_the_session_stays(void **state)
{
	struct wg *wg = open_device(LAB_DEVICE);
	struct meter *meter = lab_attach();
	struct capture *capture = capture_start(1, "wgc");
	struct wg_device *before, *after;
	struct wg_peer then = first_customer(wg, &before), now;
	struct meter_totals counted, strangers;
	struct capture_totals truth;

	(void)state;
	give_many_prefixes(wg, &then.public_key, meter);
	assert_int_equal(ping_from(7, PATIENCE), 0);
	assert_int_equal(ping_from(8, PATIENCE), 0);
	remove_under_traffic(wg, &then.public_key, meter);
	now = first_customer(wg, &after);
	assert_int_equal(after->n_peers, before->n_peers);
	assert_int_equal(now.n_allowed_ips, 2 + MANY - 1);
	/* WireGuard renews it by itself after two minutes: a busy machine may take as long. */
	if (now.handshake_ns != then.handshake_ns)
		assert_true(now.handshake_ns - then.handshake_ns > 110 * NSEC_PER_SEC);
	assert_true(now.rx_bytes > then.rx_bytes);
	assert_memory_equal(&now.endpoint, &then.endpoint, sizeof(then.endpoint));
	assert_int_not_equal(ping_from(7, 1), 0);
	assert_int_equal(ping_from(8, PATIENCE), 0);
	assert_int_equal(lab_run(2, "ping -q -n -c 2 -i 0.1 -W %d 10.8.0.1 >/dev/null", PATIENCE), 0);
	/* 84 bytes a ping: two from .7 before, two before, 200 within and two after from .8. */
	capture_settles(capture, meter, 1, false, PATIENCE);
	truth = capture_read(capture);
	meter_read(meter, 1, &counted);
	assert_int_equal(truth.packets[CAPTURE_IN], 206);
	assert_int_equal(truth.bytes[CAPTURE_IN], 206 * 84);
	assert_int_equal(counted.upload_packets, 206);
	assert_int_equal(counted.upload_bytes, 206 * 84);
	assert_int_equal(counted.download_bytes, 206 * 84);
	meter_read(meter, WT_SLOT_UNATTRIBUTED, &strangers);
	assert_int_equal(strangers.upload_bytes, 0);
	wg_device_free(before);
	wg_device_free(after);
	capture_stop(capture);
	assert_int_equal(meter_remove(meter), 0);
	wg_close(wg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_prefix_goes_and_the_session_stays),
		cmocka_unit_test(sets_and_reads_all_peers),
	};

	if (lab_is_full())
		peers = 10000;
	if (lab_make()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
