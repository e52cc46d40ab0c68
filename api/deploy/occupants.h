/* SPDX-License-Identifier: BSD-2-Clause */
/* The processes of a gateway: by its user, and by its network namespace. */
#ifndef WIRETOLL_DEPLOY_OCCUPANTS_H
#define WIRETOLL_DEPLOY_OCCUPANTS_H

#include "base/base.h"

#include <sys/types.h>

/* Asks one process to end and waits; after `patience_ms` it is killed. Returns when it is gone. */
WT_MUST_CHECK int occupant_end(pid_t pid, int patience_ms);

/*
 * Kills every process of a gateway's user, wherever it has gone: into other namespaces, sessions or groups.
 * -EBUSY when some are left after `patience_ms`.
 */
WT_MUST_CHECK int occupants_kill_user(uid_t uid, int patience_ms);

/* How many processes the user has, not counting those that have ended. Negative errno. */
WT_MUST_CHECK int occupants_count_of_user(uid_t uid);

/* Ends every process in the pinned namespace in the same way. */
WT_MUST_CHECK int occupants_end(const char *netns_pin, int patience_ms);

#endif
