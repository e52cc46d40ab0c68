// SPDX-License-Identifier: BSD-2-Clause
/*
 * Limits on aggregates of tunnels, of SCTP and over 64 KiB. What an aggregate weighs is what a capture in the
 * customer's namespace has seen of such ones before, packet by packet; so many of them pass as fit, and the
 * rest is refused with all it weighs. In the virtual machine only.
 */
#include "compare.h"
#include "guest.h"
#include "lab.h"
#include "tunnels.h"

#include "meter/audit.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NUMBER   1 /* of the tunnel */
#define SEGMENT  1000
#define SEGMENTS 20
#define COUNT    8 /* aggregates; some of them pass */
#define SOME     5
#define LIMIT    1100000 /* where only the bound on what a limit leaves is known */
#define MANY     60      /* more than that limit */
#define PAUSE_US 20000   /* WireGuard's queues hold 1,024 packets */

static bool full; /* FULL=1 */
static int guest = -1;

/* Of one aggregate, on the wire. */
struct weight {
	uint64_t bytes, packets;
};

/* Both ends of a tunnel, and which of them the guest is behind. */
struct way {
	const struct tunnel_kind *kind;
	int end;
	bool down;
};

/* ---- what a guest sends ---------------------------------------------------------------------------------
 */

/* Where each end takes what comes out of the tunnel no further, and says nothing. */
static const char *target(const struct way *way)
{
	if (way->kind->within & IPV4)
		return way->down ? "172.18.0.1" : "172.19.0.1";
	return way->down ? "fd18::1" : "fd19::1";
}

static int place_of(const struct way *way)
{
	return way->down ? way->end : 1;
}

/* Its ends say nothing of their own, where they can do without IPv6. */
static void silence(int place)
{
	/* A small device has no IPv6. */
	lab_run(place, "sysctl -qw net.ipv6.conf.t%d.disable_ipv6=1 2>/dev/null", NUMBER);
}

/* The guest's packets into the tunnel. Neighbours stay known: nobody asks for them in between. */
static void open_way(const struct way *way)
{
	const int version = way->kind->within & IPV4 ? IPV4 : IPV6;
	const char *next = tunnel_address(NUMBER, version, !way->down);

	if (version == IPV4)
		next += strlen("::ffff:");
	tunnel_make(way->kind, way->end, NUMBER);
	if (version == IPV4) {
		silence(1);
		silence(way->end);
	}
	guest = guest_open(place_of(way));
	assert_int_equal(
		lab_run(place_of(way),
			"sh -ec 'echo 3600000 >/proc/sys/net/ipv%4$d/neigh/t%1$d/base_reachable_time_ms; "
			"ip route add %2$s via %3$s dev t%1$d; "
			"for i in $(seq 60); do ping -q -n -c 1 -W 5 %3$s >/dev/null && exit; done; exit 1'",
			NUMBER, target(way), next, version == IPV4 ? 4 : 6),
		0);
}

static void close_way(const struct way *way)
{
	close(guest);
	guest = -1;
	tunnel_remove(way->end, NUMBER);
}

/* On one processor from here to the hook, if no other device's processor takes them up. */
static void send_aggregates(const struct way *way, int count)
{
	const struct guest_aggregate aggregate = {
		.to = target(way), .payload = (size_t)SEGMENT * SEGMENTS, .segment = SEGMENT};
	cpu_set_t one, all;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	for (int i = 0; i < count; i++) {
		guest_write(guest, &aggregate);
		usleep(PAUSE_US);
	}
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

/* ---- limits ---------------------------------------------------------------------------------------------
 */

static void grant(uint64_t ceiling)
{
	struct meter_grant next = {.mask = WT_UPLOADS | WT_DOWNLOADS, .ceiling = ceiling, .grant_seq = 1};
	struct meter_limit_state limit;

	assert_int_equal(meter_read_peer_limit(compare_meter(), 1, &limit), 0);
	next.cycle = limit.grant.cycle + 1;
	assert_int_equal(meter_grant_peer(compare_meter(), 1, &next), 0);
}

static void assert_used_up(const struct moment *before, const struct moment *after, uint64_t least,
			   uint64_t most)
{
	struct meter_limit_state limit;

	assert_int_equal(meter_read_peer_limit(compare_meter(), 1, &limit), 0);
	print_message("#  %" PRIu64 " left, %" PRIu64 " bytes in %" PRIu64 " packets refused\n",
		      most - limit.cycle_counted,
		      after->counted.refused_bytes - before->counted.refused_bytes,
		      after->counted.refused_packets - before->counted.refused_packets);
	assert_true(limit.exhausted);
	assert_in_range(limit.cycle_counted, least, most);
	assert_int_equal(limit.cycle_counted, after->counted.upload_bytes - before->counted.upload_bytes +
						      after->counted.download_bytes -
						      before->counted.download_bytes);
	assert_int_equal(after->interface.unparsed_packets, before->interface.unparsed_packets);
	assert_false(compare_lost(before, after, CAPTURE_IN));
	assert_false(compare_lost(before, after, CAPTURE_OUT));
	/* What was let out is what arrived. */
	assert_int_equal(compare_excess(before, after, CAPTURE_IN), 0);
	assert_int_equal(compare_excess_packets(before, after, CAPTURE_IN), 0);
}

/* Sends without a limit. */
static struct weight weigh(const struct way *way)
{
	struct moment before = compare_look(), after;
	struct weight weight;

	before = compare_rest(&before);
	send_aggregates(way, COUNT);
	after = compare_rest(&before);
	compare_tell(way->kind->name, &before, &after);
	assert_false(compare_lost(&before, &after, CAPTURE_IN));
	weight.bytes = after.seen.bytes[CAPTURE_IN] - before.seen.bytes[CAPTURE_IN];
	weight.packets = after.seen.packets[CAPTURE_IN] - before.seen.packets[CAPTURE_IN];
	assert_int_equal(weight.packets, COUNT * SEGMENTS);
	assert_int_equal(weight.bytes % COUNT, 0);
	assert_int_equal(after.hooks[CAPTURE_IN].packets - before.hooks[CAPTURE_IN].packets, COUNT);
	return (struct weight){weight.bytes / COUNT, SEGMENTS};
}

/* On one processor as many pass as fit, to the byte: no other has ever held credit of this meter's. */
static void cut_downloads(const struct way *way, const struct weight *weight, uint64_t ceiling)
{
	const uint64_t passing = ceiling / weight->bytes;
	struct moment before, after;

	before = compare_look();
	grant(ceiling);
	send_aggregates(way, COUNT);
	after = compare_rest(&before);
	compare_tell(way->kind->name, &before, &after);
	assert_used_up(&before, &after, passing * weight->bytes, passing * weight->bytes);
	assert_int_equal(after.seen.bytes[CAPTURE_IN] - before.seen.bytes[CAPTURE_IN],
			 passing * weight->bytes);
	assert_int_equal(after.seen.packets[CAPTURE_IN] - before.seen.packets[CAPTURE_IN],
			 passing * weight->packets);
	assert_int_equal(after.counted.refused_bytes - before.counted.refused_bytes,
			 (COUNT - passing) * weight->bytes);
	assert_int_equal(after.counted.refused_packets - before.counted.refused_packets,
			 (COUNT - passing) * weight->packets);
}

static void limit_downloads(const struct tunnel_kind *kind, int end)
{
	const struct way way = {kind, end, true};
	struct weight weight;

	open_way(&way);
	weight = weigh(&way);
	cut_downloads(&way, &weight, SOME * weight.bytes);
	cut_downloads(&way, &weight, SOME * weight.bytes - 1);
	assert_int_equal(meter_clear_peer_limit(compare_meter(), 1), 0);
	close_way(&way);
}

/* What comes up is put together as it may, on any processor: what the customer has sent and is not counted
 * was refused. */
static void limit_uploads(const struct tunnel_kind *kind, int end)
{
	const struct way way = {kind, end, false};
	struct moment before, after;

	open_way(&way);
	before = compare_look();
	before = compare_rest(&before);
	grant(LIMIT);
	send_aggregates(&way, MANY);
	after = compare_rest(&before);
	compare_tell(kind->name, &before, &after);
	assert_used_up(&before, &after, LIMIT - WT_UNSPENT_BOUND + 1, LIMIT);
	assert_int_equal(after.seen.packets[CAPTURE_OUT] - before.seen.packets[CAPTURE_OUT], MANY * SEGMENTS);
	assert_int_equal(-compare_excess(&before, &after, CAPTURE_OUT),
			 after.counted.refused_bytes - before.counted.refused_bytes);
	assert_int_equal(-compare_excess_packets(&before, &after, CAPTURE_OUT),
			 after.counted.refused_packets - before.counted.refused_packets);
	assert_int_equal(meter_clear_peer_limit(compare_meter(), 1), 0);
	close_way(&way);
}

/* Whether a guest's packets are routed into it as they are; the others are limited with streams in them. */
static bool takes_routes(const struct tunnel_kind *kind)
{
	static const char *const others[] = {"vxlan", "geneve", "gretap", "ip6gretap", "srv6"};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (strncmp(kind->name, others[i], strlen(others[i])) == 0)
			return false;
	return true;
}

/* Of all kinds and both ends with FULL=1. */
static void limit_each(void (*limit)(const struct tunnel_kind *kind, int end), const char *const some[],
		       size_t n)
{
	for (size_t i = 0; !full && i < n; i++)
		limit(tunnel_named(some[i]), tunnel_named(some[i])->end);
	for (size_t i = 0; full && i < TUNNEL_KINDS; i++) {
		if (!takes_routes(&tunnel_kinds[i]))
			continue;
		limit(&tunnel_kinds[i], GATEWAY);
		limit(&tunnel_kinds[i], CONTAINER);
	}
}

static void w1_w2_as_many_aggregates_of_a_tunnel_pass_as_fit(void **state)
{
	static const char *const some[] = {"gre in gue", "ipip in fou"};

	(void)state;
	limit_each(limit_downloads, some, ARRAY_SIZE(some));
}

static void w1_w2_what_comes_up_and_is_not_counted_was_refused(void **state)
{
	static const char *const some[] = {"gre in gue"};

	(void)state;
	limit_each(limit_uploads, some, ARRAY_SIZE(some));
}

/* ---- streams --------------------------------------------------------------------------------------------
 */

static void use_up(const char *name, int protocol, int from, int to, const char *address)
{
	struct moment before = compare_look(), after;

	before = compare_rest(&before);
	grant(LIMIT);
	assert_true(lab_until_exhausted(compare_meter(), 1, protocol, from, to, address) > 0);
	after = compare_rest(&before);
	compare_tell(name, &before, &after);
	assert_used_up(&before, &after, LIMIT - WT_UNSPENT_BOUND + 1, LIMIT);
	assert_in_range(-compare_excess(&before, &after, CAPTURE_OUT), 0,
			after.counted.refused_bytes - before.counted.refused_bytes);
	assert_true(after.counted.refused_packets > before.counted.refused_packets);
	assert_int_equal(meter_clear_peer_limit(compare_meter(), 1), 0);
}

static void use_up_tunnel(const struct tunnel_kind *kind)
{
	tunnel_make(kind, CONTAINER, NUMBER);
	use_up(kind->name, IPPROTO_TCP, CONTAINER, 1, tunnel_address(NUMBER, IPV4, true));
	if (full)
		use_up(kind->name, IPPROTO_TCP, 1, CONTAINER, tunnel_address(NUMBER, IPV6, false));
	tunnel_remove(CONTAINER, NUMBER);
}

static void w1_w2_w3_no_more_of_a_stream_passes_than_a_limit(void **state)
{
	(void)state;
	use_up("sctp", IPPROTO_SCTP, CONTAINER, 1, FIRST4);
	if (!full) {
		use_up_tunnel(tunnel_named("vxlan"));
		return;
	}
	use_up("sctp up", IPPROTO_SCTP, 1, GATEWAY, GATEWAY6);
	for (size_t i = 0; i < TUNNEL_KINDS; i++)
		if (!takes_routes(&tunnel_kinds[i]))
			use_up_tunnel(&tunnel_kinds[i]);
}

static void w4_no_more_of_packets_over_64_kib_passes_than_a_limit(void **state)
{
	(void)state;
	lab_allow_large(true);
	use_up("over 64 KiB", IPPROTO_TCP, CONTAINER, 1, FIRST6);
}

/* ---- what WireGuard cannot deliver ----------------------------------------------------------------------
 */

/* The gateway's peer is made anew, and where it is is not known until the customer's asks. */
static void forget_session(void)
{
	assert_int_equal(lab_run(GATEWAY,
				 "sh -ec 'cd /run; wg set wg0 peer $(wg pubkey <c1) remove; "
				 "wg set wg0 peer $(wg pubkey <c1) allowed-ips 10.8.0.2/32,fd08::2/128'"),
			 0);
}

static void begin_session(void)
{
	assert_int_equal(
		lab_run(1, "sh -ec 'cd /run; wg set wgc peer $(wg pubkey <s) remove; "
			   "wg set wgc peer $(wg pubkey <s) endpoint 192.168.1.1:51820 "
			   "allowed-ips 0.0.0.0/0,::/0; "
			   "for i in $(seq 60); do ping -q -n -c 1 -W 5 10.8.0.1 >/dev/null && exit; done; "
			   "exit 1'"),
		0);
}

/* What was dropped is what would have arrived, as far as WireGuard's padding and handshakes let it be known.
 */
static void w1_what_cannot_be_delivered_of_aggregates_is_given_back(void **state)
{
	const struct way way = {tunnel_named("gre"), CONTAINER, true};
	struct moment before, began, after;
	struct weight weight;
	uint64_t bytes, packets, dropped, undelivered;

	(void)state;
	open_way(&way);
	weight = weigh(&way);
	forget_session();
	before = compare_look();
	send_aggregates(&way, COUNT);
	after = compare_look();
	assert_int_equal(after.seen.bytes[CAPTURE_IN], before.seen.bytes[CAPTURE_IN]);
	begin_session();
	began = compare_look();
	send_aggregates(&way, SOME);
	after = compare_rest(&began);
	bytes = after.counted.download_bytes - before.counted.download_bytes;
	packets = after.counted.download_packets - before.counted.download_packets;
	dropped = bytes - (after.seen.bytes[CAPTURE_IN] - before.seen.bytes[CAPTURE_IN]);
	assert_int_equal(dropped, COUNT * weight.bytes);
	undelivered = audit_undelivered(bytes, packets,
					after.wireguard[CAPTURE_IN].sent - before.wireguard[CAPTURE_IN].sent);
	print_message("# %" PRIu64 " bytes dropped, %" PRIu64 " undelivered\n", dropped, undelivered);
	assert_in_range(undelivered, dropped - SOME * SEGMENTS * 15 - 1000, dropped + COUNT * SEGMENTS * 32);
	close_way(&way);
}

static int teardown(void **state)
{
	if (guest >= 0)
		close(guest);
	guest = -1;
	lab_allow_large(false);
	return compare_teardown(state);
}

static int prepare(void)
{
	static const char to_gateway[] = "sh -ec 'ip route add blackhole 172.19.0.0/16; "
					 "ip route add blackhole fd19::/16'",
			  to_customer[] = "sh -ec 'ip route add blackhole 172.18.0.0/16; "
					  "ip route add blackhole fd18::/16'";

	return lab_run(GATEWAY, to_gateway) || lab_run(CONTAINER, to_gateway) || lab_run(1, to_customer) ? -1
													 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w1_w2_as_many_aggregates_of_a_tunnel_pass_as_fit,
						compare_setup, teardown),
		cmocka_unit_test_setup_teardown(w1_w2_what_comes_up_and_is_not_counted_was_refused,
						compare_setup, teardown),
		cmocka_unit_test_setup_teardown(w1_w2_w3_no_more_of_a_stream_passes_than_a_limit,
						compare_setup, teardown),
		cmocka_unit_test_setup_teardown(w4_no_more_of_packets_over_64_kib_passes_than_a_limit,
						compare_setup, teardown),
		cmocka_unit_test_setup_teardown(w1_what_cannot_be_delivered_of_aggregates_is_given_back,
						compare_setup, teardown),
	};

	full = lab_is_full();
	if (lab_make() || lab_make_container() || tunnels_prepare() || prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
