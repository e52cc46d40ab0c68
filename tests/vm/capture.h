/* SPDX-License-Identifier: BSD-2-Clause */
/* The oracle: counts the packets of an interface as a capture sees them. Knows nothing of the meter. */
#ifndef WIRETOLL_TESTS_VM_CAPTURE_H
#define WIRETOLL_TESTS_VM_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

struct capture;
struct meter;

enum capture_direction { CAPTURE_IN, CAPTURE_OUT, CAPTURE_DIRECTIONS };

struct capture_totals {
	uint64_t bytes[CAPTURE_DIRECTIONS], packets[CAPTURE_DIRECTIONS];
	uint64_t largest[CAPTURE_DIRECTIONS]; /* packet so far: beyond the MTU is an aggregate */
	uint64_t odd;                         /* packets whose IP header has another length */
	uint64_t lost;                        /* the capture itself could not keep up */
};

/* Counts on the interface from now on, in a thread of its own; fails the test when it cannot. */
struct capture *capture_start(int place, const char *interface);
/* All that the device has seen by now. */
struct capture_totals capture_read(struct capture *capture);
/*
 * Whether the meter's bytes of that slot come to be what was captured, and stay so while nothing more comes:
 * down, and with `uploads` up as well. The last packets are on their way for a moment, and for longer on a
 * busy machine.
 */
bool capture_settles(struct capture *capture, const struct meter *meter, uint32_t slot, bool uploads,
		     int seconds);
void capture_stop(struct capture *capture);

#endif
