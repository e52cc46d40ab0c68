// SPDX-License-Identifier: BSD-2-Clause
/* The meter, a capture and two probes, and whether they say the same. See compare.h. */
#include "compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define TRIES    3 /* packets may be lost on the way */
#define PATIENCE 60
#define LOOK_MS  50
#define QUIET_MS 300
#define LOST_MS  3000 /* a difference that stays for so long will not go */

static struct meter *meter;
static struct capture *customer;
static struct probe ingress, egress;

int compare_setup(void **state)
{
	(void)state;
	meter = lab_attach();
	ingress = probe_attach(lab_ifindex(GATEWAY, LAB_DEVICE), false);
	egress = probe_attach(lab_ifindex(GATEWAY, LAB_DEVICE), true);
	customer = capture_start(1, "wgc");
	return 0;
}

int compare_teardown(void **state)
{
	(void)state;
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
	return moment;
}

int64_t compare_excess(const struct moment *before, const struct moment *after, enum capture_direction way)
{
	uint64_t seen = after->seen.bytes[way] - before->seen.bytes[way];

	if (way == CAPTURE_OUT)
		return (int64_t)(after->counted.upload_bytes - before->counted.upload_bytes - seen);
	return (int64_t)(after->counted.download_bytes - before->counted.download_bytes - seen);
}

bool compare_settles(const struct moment *before, struct moment *after)
{
	uint64_t packets = 0;

	for (int i = 0, quiet = 0; i < PATIENCE * (1000 / LOOK_MS) && quiet < LOST_MS; i++) {
		uint64_t seen;

		*after = compare_look();
		seen = after->seen.packets[CAPTURE_IN] + after->seen.packets[CAPTURE_OUT];
		quiet = seen == packets ? quiet + LOOK_MS : 0;
		packets = seen;
		if (quiet >= QUIET_MS && !compare_excess(before, after, CAPTURE_IN) &&
		    !compare_excess(before, after, CAPTURE_OUT))
			return true;
		usleep(LOOK_MS * 1000);
	}
	return false;
}

void compare_tell(const char *name, const struct moment *before, const struct moment *after)
{
	static const char *const ways[CAPTURE_DIRECTIONS] = {[CAPTURE_IN] = "down", [CAPTURE_OUT] = "up"};

	print_message("# %s:", name);
	for (int way = 0; way < CAPTURE_DIRECTIONS; way++) {
		uint64_t bytes = after->seen.bytes[way] - before->seen.bytes[way];
		int64_t wrong = compare_excess(before, after, way);

		print_message(" %s %" PRIu64 " bytes, %+" PRId64 " (%+.2f %%), %" PRIu64
			      " packets in %" PRIu64 " of up to %" PRIu64 ";",
			      ways[way], bytes, wrong, bytes ? 100.0 * (double)wrong / (double)bytes : 0,
			      after->seen.packets[way] - before->seen.packets[way],
			      after->hooks[way].packets - before->hooks[way].packets,
			      after->hooks[way].largest);
	}
	print_message(" unparsed %" PRIu64 "\n",
		      after->interface.unparsed_packets - before->interface.unparsed_packets);
}

static void assert_same(const struct moment *before, const struct moment *after)
{
	assert_int_equal(after->seen.lost, 0);
	assert_true(after->seen.largest[CAPTURE_IN] <= LAB_MTU &&
		    after->seen.largest[CAPTURE_OUT] <= LAB_MTU);
	assert_int_equal(after->counted.download_packets - before->counted.download_packets,
			 after->seen.packets[CAPTURE_IN] - before->seen.packets[CAPTURE_IN]);
	assert_int_equal(after->counted.upload_packets - before->counted.upload_packets,
			 after->seen.packets[CAPTURE_OUT] - before->seen.packets[CAPTURE_OUT]);
	assert_int_equal(after->interface.unparsed_packets, before->interface.unparsed_packets);
}

bool compare_traffic(const char *name, void (*send)(const void *data, int end), const void *data, int end)
{
	struct moment before, after;
	bool same = false;

	for (int tries = 0; tries < TRIES && !same; tries++) {
		before = compare_look();
		send(data, end);
		same = compare_settles(&before, &after);
		compare_tell(name, &before, &after);
	}
	if (same)
		assert_same(&before, &after);
	/* There were aggregates: else it would have shown nothing. (What comes up is put together as it may.)
	 */
	assert_true(after.hooks[CAPTURE_IN].packets - before.hooks[CAPTURE_IN].packets <
		    after.seen.packets[CAPTURE_IN] - before.seen.packets[CAPTURE_IN]);
	return same;
}
