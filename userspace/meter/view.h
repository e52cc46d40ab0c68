/* SPDX-License-Identifier: BSD-2-Clause */
/* Looking at a pinned meter without taking hold of it. */
#ifndef WIRETOLL_METER_VIEW_H
#define WIRETOLL_METER_VIEW_H

#include "meter/meter.h"

/*
 * Opens what is pinned, also while another process holds it: to read counts, owners and limits, and for
 * meter_is_shadowed(); nothing else may be called. It may belong to something that is gone. -ENOENT when
 * nothing is pinned, -EPROTO when the layout is of another version. To be closed with meter_close().
 */
WT_MUST_CHECK int meter_view(const char *pin_folder, struct meter **ret_meter);

/* Where a meter's interface is. */
enum meter_presence {
	METER_HERE,      /* the interface of this index in this network namespace has it */
	METER_ELSEWHERE, /* it counts, on an interface of another network namespace */
	METER_DETACHED,  /* its interface is here, and has it no more */
	METER_GONE,      /* its interface is not here; by its links, if it has any, nowhere */
};

/*
 * Asks the kernel. ret_ifindex: of its interface, where that is (METER_HERE, METER_ELSEWHERE). A clsact
 * filter is no object that could be asked from another namespace: without links, METER_GONE only says that it
 * is not here.
 */
enum meter_presence meter_presence(const struct meter *meter, uint32_t *ret_ifindex);

/* Whether it is attached by links, which know their interface wherever that goes. */
bool meter_has_links(const struct meter *meter);

#endif
