/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A new version, or a larger capacity, takes a pinned meter over while packets flow: new programs and maps
 * come into the place of the old ones, each packet is counted by one of the two, and limits go on to the
 * byte. A new epoch begins; the counts of the old one stand still, sealed, until the caller has written them
 * down. See docs/decisions/hand-over.md.
 *
 *	r = meter_hand_over(&meter, 0);
 *	if (r == 0)
 *		r = meter_open_sealed(meter, &sealed);
 *	... meter_read(sealed, slot, &totals) for the last time, durably written down with the new epoch ...
 *	r = meter_forget_sealed(meter, sealed);
 *
 * Slots, their owners and incarnations, prefixes, and the cycles of grants are the same in both epochs. A
 * process that is killed anywhere loses nothing: meter_adopt() undoes what was not begun in earnest and
 * finishes what was; and whoever has adopted a meter asks for a sealed epoch first.
 */
#ifndef WIRETOLL_METER_HANDOVER_H
#define WIRETOLL_METER_HANDOVER_H

#include "meter/meter.h"

/* Whether the adopted programs are of another version than these: a reason to hand over. */
bool meter_is_outdated(const struct meter *meter);

/*
 * Replaces *meter by a new one of this capacity (0: that which it has; never less, else -ERANGE). -EBUSY when
 * an earlier epoch is still sealed, -ESTALE when the interface is gone. After these and all errors before the
 * swap the meter goes on as it was; after -EIO it counts on, but is to be closed and adopted anew.
 */
WT_MUST_CHECK int meter_hand_over(struct meter **meter, uint32_t capacity);

/* The earlier epoch, to be read only, and closed or forgotten. -ENOENT when none is sealed. */
WT_MUST_CHECK int meter_open_sealed(const struct meter *meter, struct meter **ret_sealed);

/* Removes it; its counts are gone. The object is freed, also when this fails. */
WT_MUST_CHECK int meter_forget_sealed(const struct meter *meter, struct meter *sealed);

#endif
