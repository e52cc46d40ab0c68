// SPDX-License-Identifier: BSD-2-Clause
/*
 * The meter on the kernel's own WireGuard: what it has counted for each customer, byte by byte and packet by
 * packet, is what a capture in the customer's namespace has seen. In the virtual machine only.
 */
#include "capture.h"
#include "lab.h"
#include "probe.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES    10
#define MOMENT   3  /* seconds to wait for agreement when it may never come */
#define PATIENCE 60 /* and when it must */

/* Everybody's view of the same traffic, from the same quiet moment on. */
struct views {
	struct meter *meter;
	struct capture *customers[CUSTOMERS];
	struct capture *gateway;
	struct probe ingress, egress;
};

struct wireguard_totals {
	uint64_t rx, tx;
};

static size_t scale = 1; /* more with FULL=1 */

static void begin(struct views *views)
{
	int ifindex = lab_ifindex(GATEWAY, LAB_DEVICE);

	views->meter = lab_attach();
	views->ingress = probe_attach(ifindex, false);
	views->egress = probe_attach(ifindex, true);
	views->gateway = capture_start(GATEWAY, LAB_DEVICE);
	for (int i = 0; i < CUSTOMERS; i++)
		views->customers[i] = capture_start(i + 1, "wgc");
}

static void end(struct views *views)
{
	for (int i = 0; i < CUSTOMERS; i++)
		capture_stop(views->customers[i]);
	capture_stop(views->gateway);
	assert_int_equal(meter_remove(views->meter), 0);
	probe_close(&views->ingress);
	probe_close(&views->egress);
	/* The probes' filters go with it. */
	assert_int_equal(lab_run(GATEWAY, "tc qdisc del dev " LAB_DEVICE " clsact"), 0);
}

static void read_wireguard(struct wireguard_totals totals[CUSTOMERS])
{
	struct wg_device *device;
	struct wg *wg = NULL;

	assert_int_equal(wg_open(LAB_DEVICE, &wg), 0);
	assert_string_equal(wg_kind(wg), "kernel");
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_int_equal(device->n_peers, CUSTOMERS);
	for (size_t i = 0; i < device->n_peers; i++) {
		const struct wg_peer *peer = &device->peers[i];
		int customer = peer->allowed_ips[0].bytes[3] - 2; /* 10.8.0.2, 10.8.0.3 */

		totals[customer] = (struct wireguard_totals){.rx = peer->rx_bytes, .tx = peer->tx_bytes};
	}
	wg_device_free(device);
	wg_close(wg);
}

static uint64_t send_tcp(void)
{
	size_t unit = 500000 * scale;

	return lab_tcp(1, GATEWAY, GATEWAY4, unit) + lab_tcp(1, GATEWAY, GATEWAY6, unit) +
	       lab_tcp(GATEWAY, 1, FIRST4, 2 * unit) + lab_tcp(GATEWAY, 1, FIRST6, unit) +
	       /* From one customer to the other: what came in as aggregates goes out as such. */
	       lab_tcp(1, 2, SECOND4, unit) + lab_tcp(2, 1, FIRST6, unit);
}

static uint64_t send_udp(void)
{
	const struct lab_datagrams all[] = {
		/* Every size up to the MTU, and a few that fill it. */
		{1, GATEWAY, GATEWAY4, 343, 1, 4, 0},
		{GATEWAY, 1, FIRST6, 338, 1, 4, 0},
		/* Fragments. */
		{1, GATEWAY, GATEWAY4, 16, 3000, 501, 0},
		{1, GATEWAY, GATEWAY6, 16, 3000, 501, 0},
		{GATEWAY, 1, FIRST4, 16, 3000, 501, 0},
		{GATEWAY, 1, FIRST6, 16, 3000, 501, 0},
		{1, 2, SECOND4, 8, 5000, 777, 0},
		/* One call, many datagrams. */
		{GATEWAY, 1, FIRST4, 24, 20000, 333, 1000},
		{GATEWAY, 2, SECOND6, 24, 5000, 101, 100},
		{1, GATEWAY, GATEWAY4, 24, 20000, 333, 1200},
	};
	uint64_t missing = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		missing += lab_udp(&all[i]);
	return missing;
}

static uint64_t send_icmp(void)
{
	return (uint64_t)(lab_run(1, "ping -q -n -c 10 -i 0.02 -s 1000 10.8.0.1 >/dev/null") +
			  lab_run(1, "ping -q -n -c 5 -i 0.02 -s 4000 10.8.0.1 >/dev/null") +
			  lab_run(GATEWAY, "ping -q -n -c 5 -i 0.02 -s 4000 fd08::2 >/dev/null") +
			  lab_run(2, "ping -q -n -c 5 -i 0.02 -s 77 fd08::1 >/dev/null"));
}

/* Both customers, one up and one down, at the same time. */
static uint64_t send_at_once(void)
{
	uint64_t lost = 0;

	for (int way = 0; way < 2; way++) {
		pid_t other = fork();
		int status;

		if (other == 0)
			_exit(way ? lab_tcp(GATEWAY, 2, SECOND6, 1000000 * scale) != 0
				  : lab_tcp(2, GATEWAY, GATEWAY4, 1000000 * scale) != 0);
		lost += way ? lab_tcp(1, GATEWAY, GATEWAY6, 1000000 * scale)
			    : lab_tcp(GATEWAY, 1, FIRST4, 1000000 * scale);
		assert_int_equal(waitpid(other, &status, 0), other);
		lost += status != 0;
	}
	return lost;
}

static bool settle(const struct views *views, int seconds)
{
	/* The first once more: what the second has sent may have been for it. */
	return capture_settles(views->customers[0], views->meter, 1, true, seconds) &&
	       capture_settles(views->customers[1], views->meter, 2, true, seconds) &&
	       capture_settles(views->customers[0], views->meter, 1, true, seconds);
}

static void assert_customer(const struct meter *meter, struct capture *capture, uint32_t slot)
{
	struct capture_totals truth = capture_read(capture);
	struct meter_totals totals;

	meter_read(meter, slot, &totals);
	assert_int_equal(truth.lost, 0);
	assert_int_equal(truth.odd, 0);
	assert_true(truth.largest[CAPTURE_IN] <= LAB_MTU && truth.largest[CAPTURE_OUT] <= LAB_MTU);
	assert_int_equal(totals.upload_bytes, truth.bytes[CAPTURE_OUT]);
	assert_int_equal(totals.upload_packets, truth.packets[CAPTURE_OUT]);
	assert_int_equal(totals.download_bytes, truth.bytes[CAPTURE_IN]);
	assert_int_equal(totals.download_packets, truth.packets[CAPTURE_IN]);
	assert_int_equal(totals.refused_packets, 0);
	assert_true(totals.upload_bytes > 500000 && totals.download_bytes > 500000);
}

/* 32 bytes more a packet, up to 15 of padding, and now and then a handshake or a keepalive. */
static void assert_audit(uint64_t bytes, uint64_t packets, uint64_t wireguard)
{
	assert_in_range(wireguard, bytes + 32 * packets, bytes + 47 * packets + 10000);
}

static void assert_wireguard(const struct meter *meter, const struct wireguard_totals before[CUSTOMERS])
{
	struct wireguard_totals now[CUSTOMERS];

	read_wireguard(now);
	for (uint32_t i = 0; i < CUSTOMERS; i++) {
		struct meter_totals totals;

		meter_read(meter, i + 1, &totals);
		assert_audit(totals.upload_bytes, totals.upload_packets, now[i].rx - before[i].rx);
		assert_audit(totals.download_bytes, totals.download_packets, now[i].tx - before[i].tx);
	}
}

/*
 * What the kernel's own lengths come to (docs/decisions/meter-true-length.md): wire_len is right on the way
 * out; on the way in it is skb->len again, so too little, or right as well, as the kernel is: nothing
 * between. (D6)
 */
static void assert_kernels_lengths(const struct views *views, bool offloads)
{
	struct probe_totals in = probe_read(&views->ingress), out = probe_read(&views->egress);
	uint64_t uploads = 0, downloads = 0;

	for (uint32_t slot = 1; slot <= CUSTOMERS; slot++) {
		struct meter_totals totals;

		meter_read(views->meter, slot, &totals);
		uploads += totals.upload_bytes;
		downloads += totals.download_bytes;
	}
	print_message("# offloads %s: egress %" PRIu64 " captured, wire_len %" PRIu64 ", len %" PRIu64
		      "; ingress %" PRIu64 " captured, wire_len %" PRIu64 ", len %" PRIu64 "\n",
		      offloads ? "on" : "off", downloads, out.wire_length, out.length, uploads,
		      in.wire_length, in.length);
	assert_int_equal(out.wire_length, downloads);
	if (in.wire_length != in.length)
		assert_int_equal(in.wire_length, uploads);
	if (offloads)
		assert_true(in.length < uploads && out.length < downloads);
	else
		assert_int_equal(in.length, uploads);
}

/* Aggregates were there, or were not: else the test would have shown nothing. */
static void assert_aggregates(struct capture *gateway, bool offloads)
{
	struct capture_totals seen = capture_read(gateway);

	for (int direction = 0; direction < CAPTURE_DIRECTIONS; direction++)
		assert_int_equal(seen.largest[direction] > LAB_MTU, offloads);
}

/*
 * False when packets were lost on the way, so that one side has seen what the other has not: such a round
 * shows nothing and is repeated. What TCP only sent again because its answer was late has been seen by both.
 */
static bool compare_round(bool offloads)
{
	struct wireguard_totals before[CUSTOMERS];
	struct meter_interface_totals interface;
	struct meter_totals strangers;
	struct views views;
	uint64_t lost;
	bool valid;

	read_wireguard(before);
	begin(&views);
	lost = send_tcp() + send_udp() + send_icmp() + send_at_once();
	valid = settle(&views, lost ? MOMENT : PATIENCE) || lost == 0;
	if (valid) {
		for (uint32_t i = 0; i < CUSTOMERS; i++)
			assert_customer(views.meter, views.customers[i], i + 1);
		assert_wireguard(views.meter, before);
		assert_kernels_lengths(&views, offloads);
		assert_aggregates(views.gateway, offloads);
		meter_read(views.meter, WT_SLOT_UNATTRIBUTED, &strangers);
		assert_int_equal(strangers.upload_bytes + strangers.download_bytes, 0);
		meter_read_interface(views.meter, &interface);
		assert_int_equal(interface.unparsed_packets, 0);
	}
	end(&views);
	return valid;
}

static void compare(bool offloads)
{
	int tries = 1;

	lab_offloads(offloads);
	while (!compare_round(offloads))
		assert_true(++tries <= TRIES);
}

static void counts_aggregates_as_their_packets(void **state)
{
	(void)state;
	compare(true);
}

static void counts_the_same_without_offloads(void **state)
{
	(void)state;
	compare(false);
	lab_offloads(true);
}

/* A process that holds the meter, and one that kills it in the middle of the traffic to come. */
static pid_t hold_and_kill(int round)
{
	const struct meter_options options = lab_options();
	struct meter *meter = NULL;
	int ready[2];
	pid_t holder;
	char byte;

	assert_int_equal(pipe(ready), 0);
	holder = fork();
	if (holder == 0) {
		if (round == 0)
			meter = lab_attach();
		else if (meter_adopt(&options, &meter))
			_exit(1);
		(void)!write(ready[1], "", 1);
		usleep(100000);
		kill(getpid(), SIGKILL);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return holder;
}

static void counts_on_when_its_process_is_killed(void **state)
{
	const struct meter_options options = lab_options();
	struct capture *capture = capture_start(1, "wgc");
	struct capture_totals truth;
	struct meter *meter = NULL;
	struct meter_totals totals;

	(void)state;
	for (int round = 0; round < 5; round++) {
		pid_t holder = hold_and_kill(round);
		int status;

		lab_tcp(GATEWAY, 1, round % 2 ? FIRST6 : FIRST4, 400000 * scale);
		lab_tcp(1, GATEWAY, GATEWAY4, 200000 * scale);
		assert_int_equal(waitpid(holder, &status, 0), holder);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	assert_int_equal(meter_adopt(&options, &meter), 0);
	capture_settles(capture, meter, 1, true, PATIENCE);
	truth = capture_read(capture);
	meter_read(meter, 1, &totals);
	assert_true(totals.download_bytes > 2000000 * scale && totals.upload_bytes > 1000000 * scale);
	assert_int_equal(totals.download_bytes, truth.bytes[CAPTURE_IN]);
	assert_int_equal(totals.upload_bytes, truth.bytes[CAPTURE_OUT]);
	capture_stop(capture);
	assert_int_equal(meter_remove(meter), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_aggregates_as_their_packets),
		cmocka_unit_test(counts_the_same_without_offloads),
		cmocka_unit_test(counts_on_when_its_process_is_killed),
	};

	if (lab_is_full())
		scale = 10;
	if (lab_make()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
