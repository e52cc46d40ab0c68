/* SPDX-License-Identifier: BSD-2-Clause */
/* The oracle: counts the packets of an interface as a capture sees them. Knows nothing of the meter. */
#ifndef WIRETOLL_TESTS_VM_CAPTURE_H
#define WIRETOLL_TESTS_VM_CAPTURE_H

#include <stdint.h>

struct capture;

enum capture_direction { CAPTURE_IN, CAPTURE_OUT, CAPTURE_DIRECTIONS };

struct capture_totals {
	uint64_t bytes[CAPTURE_DIRECTIONS], packets[CAPTURE_DIRECTIONS];
	uint64_t largest[CAPTURE_DIRECTIONS]; /* packet so far: beyond the MTU is an aggregate */
	uint64_t odd;                         /* packets whose IP header has another length */
	uint64_t lost;                        /* the capture itself could not keep up */
};

/* Counts on the interface from now on, in a thread of its own; fails the test when it cannot. */
struct capture *capture_start(int place, const char *interface);
struct capture_totals capture_read(struct capture *capture);
void capture_stop(struct capture *capture);

#endif
