/* SPDX-License-Identifier: BSD-2-Clause */
/* The two threads beside the workers: the listener for changes and the billing clock. */
#ifndef WIRETOLL_API_BACKGROUND_H
#define WIRETOLL_API_BACKGROUND_H

#include "work.h"

struct background;

WT_MUST_CHECK int background_start(struct work *work, const char *database_file,
				   struct background **ret_background);

/* Returns when the clock's round under way has ended. To be stopped before the pool that it wakes. */
void background_stop(struct background *background);

#endif
