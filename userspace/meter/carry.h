/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The credit of one slot (0: the interface's) through a hand-over, in this order: hold in the old maps while
 * only the old programs run, wait until every packet has seen it, lend to the new maps, swap the programs,
 * wait until no old one runs, finish. Up to the swap it is undone by carry_release(). All may be repeated.
 */
#ifndef WIRETOLL_METER_CARRY_H
#define WIRETOLL_METER_CARRY_H

#include "meter/internal.h"

/* Keeps half of what is left from the old programs, and the next grant from being taken up. */
void carry_hold(struct meter *old, uint32_t slot);
void carry_release(struct meter *old, uint32_t slot);
/* The new programs, which do not run yet, get the half. */
void carry_lend(const struct meter *old, struct meter *new, uint32_t slot);
/* They get all that the old programs, which run no more, have not counted, and the next grant. */
void carry_finish(const struct meter *old, struct meter *new, uint32_t slot);

#endif
