/* SPDX-License-Identifier: BSD-2-Clause */
/* In which states the gateway was, until batches say so. Pure. */
#ifndef WIRETOLL_AGENT_STATES_H
#define WIRETOLL_AGENT_STATES_H

#include "agent/batch.h"

/* While no batch can be written. Of still more changes, the last one stands for the rest. */
#define STATES_MAX 1024

struct states {
	struct batch_state
		list[STATES_MAX]; /* one behind the other; the last one is open: its end is not set */
	size_t n;                 /* 0: down */
};

/* From this instant on; it is not before the last change. */
void states_set(struct states *states, enum gateway_state state, int64_t now_ns);

/* Moves the oldest states, up to the head's end, into the head. Returns whether there are more than it has
 * room for: they are for the next batch. */
bool states_take(struct states *states, struct batch_head *head);

#endif
