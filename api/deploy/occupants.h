/* SPDX-License-Identifier: BSD-2-Clause */
/* The processes in a network namespace. */
#ifndef WIRETOLL_DEPLOY_OCCUPANTS_H
#define WIRETOLL_DEPLOY_OCCUPANTS_H

#include "base/base.h"

#include <sys/types.h>

/* Asks one process to end and waits; after `patience_ms` it is killed. Returns when it is gone. */
WT_MUST_CHECK int occupant_end(pid_t pid, int patience_ms);

/* Ends every process in the pinned namespace in the same way. */
WT_MUST_CHECK int occupants_end(const char *netns_pin, int patience_ms);

#endif
