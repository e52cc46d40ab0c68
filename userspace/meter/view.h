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

/* Whether it certainly counts nothing any more: its links' interface is gone. */
bool meter_is_ended(const struct meter *meter);

#endif
