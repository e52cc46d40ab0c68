/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the meter has counted for the first customer, held against what a capture in his namespace has seen.
 * Whether packets were lost in between is not asked of either: WireGuard's own counts at both ends and the
 * devices' counts of dropped packets say so.
 */
#ifndef WIRETOLL_TESTS_VM_COMPARE_H
#define WIRETOLL_TESTS_VM_COMPARE_H

#include "capture.h"
#include "lab.h"
#include "probe.h"

/* All views of one moment; by the way that packets go, as the customer sees it. */
struct moment {
	struct capture_totals seen;
	struct meter_totals counted;
	struct meter_interface_totals interface;
	struct probe_totals hooks[CAPTURE_DIRECTIONS]; /* an aggregate is one packet there */
	struct lab_transfer wireguard[CAPTURE_DIRECTIONS];
	uint64_t dropped[CAPTURE_DIRECTIONS]; /* packets, by either end's device */
};

/* A meter, its probes and the capture, from a moment of rest on: as cmocka's setup and teardown, which
 * removes what the test has left in the way of devices. */
int compare_setup(void **state);
int compare_teardown(void **state);
struct meter *compare_meter(void);

struct moment compare_look(void);
/*
 * Waits until nothing moves any more: no view changes for a while, and WireGuard has received at each end
 * what it sent at the other; a longer while where that, or the meter, does not agree with what was seen since
 * `before`. What is lost, or counted wrongly, is so then.
 */
struct moment compare_rest(const struct moment *before);
/* By how many bytes and packets the meter has counted more than was seen between two moments. */
int64_t compare_excess(const struct moment *before, const struct moment *after, enum capture_direction way);
int64_t compare_excess_packets(const struct moment *before, const struct moment *after,
			       enum capture_direction way);
/* Whether packets were lost between the meter and the capture. */
bool compare_lost(const struct moment *before, const struct moment *after, enum capture_direction way);
/* A line of it in the log. */
void compare_tell(const char *name, const struct moment *before, const struct moment *after);

/*
 * Sends from one moment of rest to the next, in which both must be the same, to the byte and to the packet,
 * and nothing unparsed: false where they are not. A try in which packets were lost on the way decides
 * nothing but that the difference is no larger than the loss; it says so in the log, and is made again.
 * Fails the test when no aggregates went out, or when packets are lost again and again.
 */
bool compare_traffic(const char *name, void (*send)(const void *data, int end), const void *data, int end);
/* The same of what some kernels cut before it comes to the hook. */
bool compare_any_traffic(const char *name, void (*send)(const void *data, int end), const void *data,
			 int end);

#endif
