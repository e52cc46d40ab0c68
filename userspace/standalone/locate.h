/* SPDX-License-Identifier: BSD-2-Clause */
/* Which meter an interface has: found by its hooks, whatever it was called and wherever it was before. */
#ifndef WIRETOLL_STANDALONE_LOCATE_H
#define WIRETOLL_STANDALONE_LOCATE_H

#include "standalone/place.h"

#include <net/if.h>

struct location {
	struct place place;
	char interface[IF_NAMESIZE]; /* its name now; of one that cannot be reached the last that is known */
	bool unreachable;            /* in a network namespace that cannot be entered from here */
};

/*
 * The interface of this name in this network namespace, or, where there is none, one that had it here and was
 * moved to another namespace with its meter; or the interface of the meter whose place has this id. The
 * process enters that namespace, if it can be reached. -ENODEV when there is no such interface, -EEXIST when
 * the interface's place is taken by a meter that was moved away; both with a message.
 */
WT_MUST_CHECK int locate(const char *interface, struct location *ret_location, struct json_problem *problem);

/* Enters the network namespace in which the meter's links are on their interface: whether it was found. */
struct meter;
bool locate_enter(const struct meter *meter, char ret_interface[static IF_NAMESIZE]);

#endif
