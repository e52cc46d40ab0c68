/* SPDX-License-Identifier: BSD-2-Clause */
/* What the meter has counted for the first customer, held against what a capture in his namespace has seen.
 */
#ifndef WIRETOLL_TESTS_VM_COMPARE_H
#define WIRETOLL_TESTS_VM_COMPARE_H

#include "capture.h"
#include "lab.h"
#include "probe.h"

/* All views of one moment. */
struct moment {
	struct capture_totals seen;
	struct meter_totals counted;
	struct meter_interface_totals interface;
	struct probe_totals hooks[CAPTURE_DIRECTIONS]; /* an aggregate is one packet there */
};

/* A meter, its probes and the capture: as cmocka's setup and teardown. */
int compare_setup(void **state);
int compare_teardown(void **state);
struct meter *compare_meter(void);

struct moment compare_look(void);
/* By how many bytes the meter has counted more than was seen between two moments. */
int64_t compare_excess(const struct moment *before, const struct moment *after, enum capture_direction way);
/* Waits until both say the same of what was since `before`, and stay so while nothing more comes; or until
 * nothing more comes for so long that they never will: false. */
bool compare_settles(const struct moment *before, struct moment *after);
/* A line of it in the log. */
void compare_tell(const char *name, const struct moment *before, const struct moment *after);

/*
 * Sends, as often as packets are lost on the way, until both are the same to the byte; they must be the same
 * to the packet then, and nothing unparsed. Fails the test when no aggregates went out.
 */
bool compare_traffic(const char *name, void (*send)(const void *data, int end), const void *data, int end);

#endif
