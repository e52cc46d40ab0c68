// SPDX-License-Identifier: BSD-2-Clause
/* The meter, a capture and two probes, and whether they say the same. See compare.h. */
#include "compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS    50
#define QUIET_MS   300  /* longer than an acknowledgement is put off */
#define LOST_MS    3000 /* a difference that stays for so long will not go */
#define RESTLESS_S 120
#define TRIES      3 /* of which two may lose packets */

static const enum capture_direction ways[] = {CAPTURE_IN, CAPTURE_OUT};

static struct meter *meter;
static struct capture *customer;
static struct probe ingress, egress;
static struct moment rested; /* where the last case ended: what came since belongs to the next one */

int compare_setup(void **state)
{
	(void)state;
	meter = lab_attach();
	ingress = probe_attach(lab_ifindex(GATEWAY, LAB_DEVICE), false);
	egress = probe_attach(lab_ifindex(GATEWAY, LAB_DEVICE), true);
	customer = capture_start(1, "wgc");
	/* What was on its way when they began has been seen by some of them only. */
	rested = compare_look();
	rested = compare_rest(&rested);
	return 0;
}

int compare_teardown(void **state)
{
	(void)state;
	lab_clean();
	capture_stop(customer);
	probe_close(&ingress);
	probe_close(&egress);
	/* The probes' filters go with it. */
	return meter_remove(meter) || lab_run(GATEWAY, "tc qdisc del dev " LAB_DEVICE " clsact");
}

struct meter *compare_meter(void)
{
	return meter;
}

struct moment compare_look(void)
{
	struct moment moment = {.seen = capture_read(customer)};

	meter_read(meter, 1, &moment.counted);
	meter_read_interface(meter, &moment.interface);
	moment.hooks[CAPTURE_IN] = probe_read(&egress);
	moment.hooks[CAPTURE_OUT] = probe_read(&ingress);
	lab_read_wireguard(&moment.wireguard[CAPTURE_IN], &moment.wireguard[CAPTURE_OUT]);
	moment.dropped[CAPTURE_IN] = lab_dropped(true);
	moment.dropped[CAPTURE_OUT] = lab_dropped(false);
	return moment;
}

int64_t compare_excess(const struct moment *before, const struct moment *after, enum capture_direction way)
{
	uint64_t seen = after->seen.bytes[way] - before->seen.bytes[way];

	if (way == CAPTURE_OUT)
		return (int64_t)(after->counted.upload_bytes - before->counted.upload_bytes - seen);
	return (int64_t)(after->counted.download_bytes - before->counted.download_bytes - seen);
}

int64_t compare_excess_packets(const struct moment *before, const struct moment *after,
			       enum capture_direction way)
{
	uint64_t seen = after->seen.packets[way] - before->seen.packets[way];

	if (way == CAPTURE_OUT)
		return (int64_t)(after->counted.upload_packets - before->counted.upload_packets - seen);
	return (int64_t)(after->counted.download_packets - before->counted.download_packets - seen);
}

/* Bytes that one WireGuard has sent and the other not received. */
static int64_t missing(const struct moment *before, const struct moment *after, enum capture_direction way)
{
	return (int64_t)(after->wireguard[way].sent - before->wireguard[way].sent) -
	       (int64_t)(after->wireguard[way].received - before->wireguard[way].received);
}

static uint64_t dropped(const struct moment *before, const struct moment *after, enum capture_direction way)
{
	return after->dropped[way] - before->dropped[way];
}

/* A device also drops what it cannot cut, before it is captured: that is no loss where the counts agree. */
bool compare_lost(const struct moment *before, const struct moment *after, enum capture_direction way)
{
	return missing(before, after, way) ||
	       (dropped(before, after, way) &&
		(compare_excess(before, after, way) || compare_excess_packets(before, after, way)));
}

/* The meter stands before the loss on the way down, and behind it on the way up. */
static int64_t unexplained(const struct moment *before, const struct moment *after,
			   enum capture_direction way)
{
	int64_t excess = compare_excess(before, after, way), lost = missing(before, after, way);

	if (way == CAPTURE_OUT)
		excess = -excess;
	if (excess < 0)
		return excess;
	/* A packet is longer with its header. What a device has dropped has no length that is known. */
	return excess <= lost || dropped(before, after, way) ? 0 : excess - lost;
}

static bool is_same(const struct moment *before, const struct moment *after)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (compare_excess(before, after, ways[i]) || compare_excess_packets(before, after, ways[i]))
			return false;
	return true;
}

static bool is_lossless(const struct moment *before, const struct moment *after)
{
	return !compare_lost(before, after, CAPTURE_IN) && !compare_lost(before, after, CAPTURE_OUT);
}

struct moment compare_rest(const struct moment *before)
{
	struct moment now = compare_look(), last;
	int still = 0;

	for (int i = 0; i < RESTLESS_S * (1000 / LOOK_MS); i++) {
		bool agreed = is_same(before, &now) && is_lossless(before, &now);

		if (still >= (agreed ? QUIET_MS : LOST_MS))
			return now;
		usleep(LOOK_MS * 1000);
		last = now;
		now = compare_look();
		still = memcmp(&last, &now, sizeof(now)) == 0 ? still + LOOK_MS : 0;
	}
	fail_msg("no rest in %d seconds", RESTLESS_S);
	return now;
}

void compare_tell(const char *name, const struct moment *before, const struct moment *after)
{
	static const char *const names[CAPTURE_DIRECTIONS] = {[CAPTURE_IN] = "down", [CAPTURE_OUT] = "up"};

	print_message("# %s:", name);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		enum capture_direction way = ways[i];
		uint64_t bytes = after->seen.bytes[way] - before->seen.bytes[way];
		int64_t wrong = compare_excess(before, after, way);

		print_message(" %s %" PRIu64 " bytes, %+" PRId64 " (%+.2f %%), %" PRIu64 " packets, %+" PRId64
			      ", in %" PRIu64 " of up to %" PRIu64 ";",
			      names[way], bytes, wrong, bytes ? 100.0 * (double)wrong / (double)bytes : 0,
			      after->seen.packets[way] - before->seen.packets[way],
			      compare_excess_packets(before, after, way),
			      after->hooks[way].packets - before->hooks[way].packets,
			      after->hooks[way].largest);
		if (compare_lost(before, after, way))
			print_message(" LOST %" PRId64 " bytes, %" PRIu64 " packets dropped;",
				      missing(before, after, way), dropped(before, after, way));
	}
	print_message(" unparsed %" PRIu64 "\n",
		      after->interface.unparsed_packets - before->interface.unparsed_packets);
}

/* The capture is what it should be: all packets, and each of them single. (FOU changes the length in a header
 * that has been captured.) */
static void assert_captured(const struct moment *after)
{
	assert_int_equal(after->seen.lost, 0);
	assert_true(after->seen.largest[CAPTURE_IN] <= LAB_MTU &&
		    after->seen.largest[CAPTURE_OUT] <= LAB_MTU);
}

/* There were aggregates: else it would have shown nothing. (What comes up is put together as it may.) */
static void assert_aggregates(const struct moment *before, const struct moment *after)
{
	assert_true(after->hooks[CAPTURE_IN].packets - before->hooks[CAPTURE_IN].packets <
		    after->seen.packets[CAPTURE_IN] - before->seen.packets[CAPTURE_IN]);
}

static bool compare(const char *name, void (*send)(const void *data, int end), const void *data, int end,
		    bool aggregates)
{
	for (int i = 0; i < TRIES; i++) {
		struct moment before = compare_rest(&rested), after;

		if (is_lossless(&rested, &before) && !is_same(&rested, &before)) {
			compare_tell("between two cases", &rested, &before);
			rested = before;
			return false;
		}
		send(data, end);
		after = rested = compare_rest(&before);
		compare_tell(name, &before, &after);
		assert_captured(&after);
		if (aggregates)
			assert_aggregates(&before, &after);
		if (is_lossless(&before, &after))
			return is_same(&before, &after) &&
			       after.interface.unparsed_packets == before.interface.unparsed_packets;
		if (unexplained(&before, &after, CAPTURE_IN) || unexplained(&before, &after, CAPTURE_OUT))
			return false;
		print_message("# %s: packets were lost on the way, so it is sent again\n", name);
	}
	fail_msg("%s: packets were lost in each of %d tries", name, TRIES);
	return false;
}

bool compare_traffic(const char *name, void (*send)(const void *data, int end), const void *data, int end)
{
	return compare(name, send, data, end, true);
}

bool compare_any_traffic(const char *name, void (*send)(const void *data, int end), const void *data, int end)
{
	return compare(name, send, data, end, false);
}
