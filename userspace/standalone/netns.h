/* SPDX-License-Identifier: BSD-2-Clause */
/* Network namespaces: finding the one that an interface was moved to, and knowing when one's own is deleted.
 */
#ifndef WIRETOLL_STANDALONE_NETNS_H
#define WIRETOLL_STANDALONE_NETNS_H

#include "base/base.h"

#include <sys/types.h>

/*
 * Enters one network namespace after the other that a name in /run/netns or a process has, until `is_wanted`
 * says so, and stays there: true. Else the process, which must have one thread, is back in its own: false, as
 * without the right to (CAP_SYS_ADMIN).
 */
bool netns_search(bool (*is_wanted)(void *data), void *data);

/* The calling process's network namespace: whether it has, and had, a name that keeps it. */
struct netns_watch {
	uint64_t inode;
	int mounts; /* the table of mounts, which tells of changes; -1: not open */
	bool was_named, is_named;
};

/* Begins with what is. It cannot fail: what is not known is never said. */
void netns_watch_begin(struct netns_watch *watch);
void netns_watch_end(struct netns_watch *watch);

/* Whether the namespace has lost its names (`ip netns del`); cheap while the mounts do not change. */
bool netns_is_deleted(struct netns_watch *watch);

/*
 * A process besides this program's that keeps the namespace, by being in it or by a descriptor, or that may,
 * as it cannot be seen; 0: none.
 */
pid_t netns_holder(const struct netns_watch *watch);

#endif
