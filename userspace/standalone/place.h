/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where an interface's meter is kept: pins in a BPF file system at /run/wiretoll/bpf, in a folder named by
 * the network namespace's cookie and the interface's index when it was attached, which do not come again
 * together before the next boot; and beside it, in /run/wiretoll/meter, where its history is. An interface
 * that is moved keeps its place.
 */
#ifndef WIRETOLL_STANDALONE_PLACE_H
#define WIRETOLL_STANDALONE_PLACE_H

#include "base/json.h"

#include <limits.h>

#define PLACE_RUN     "/run/wiretoll"
#define PLACE_BPF     PLACE_RUN "/bpf"
#define PLACE_HISTORY PLACE_RUN "/meter"

struct place {
	uint64_t netns_cookie;
	uint32_t ifindex;
	char id[48];            /* "COOKIE-IFINDEX" */
	char pins[PATH_MAX];    /* folder of the pins */
	char pointer[PATH_MAX]; /* the file that says which history the pinned meter has */
};

/* The cookie of the calling process's network namespace. */
WT_MUST_CHECK int place_netns_cookie(uint64_t *ret_cookie);

/* The place of a meter that is attached now. Returns -ENODEV, with a message, when there is no such
 * interface. */
WT_MUST_CHECK int place_find(const char *interface, struct place *ret_place, struct json_problem *problem);

/* The place of a meter whose interface is known by its id only. -EINVAL when it is no id. */
WT_MUST_CHECK int place_from_id(const char *id, struct place *ret_place);

/*
 * The history of an interface of this name in this network namespace, if no other folder was named: it goes
 * on when the interface is made anew.
 */
WT_MUST_CHECK int place_default_history(const char *interface, char ret_path[static PATH_MAX]);
bool place_is_default_history(const char *path);

/*
 * A lock for the steps that make and take away what all meters share. Never held while one interface is
 * asked, or its history written. The descriptor is to be closed. It makes /run/wiretoll if that is not there.
 */
WT_MUST_CHECK int place_lock(int *ret_lock);

/*
 * Sees to it that the BPF file system is there; mounts it where that lasts. Where it would not (`ip netns
 * exec` gives a command mounts of its own), and there is none, -ENOENT with a message that says what to do.
 */
WT_MUST_CHECK int place_mount(struct json_problem *problem);

/* A descriptor that keeps the file system from being taken away, without a lock. */
WT_MUST_CHECK int place_hold(int *ret_hold);

/* Takes the file system and the folders away if nothing else is in them. To be called with the lock held. */
void place_clear(void);

/* The path that the pointer holds; -ENOENT when there is none. And what sets it. */
WT_MUST_CHECK int place_read_pointer(const struct place *place, char ret_path[static PATH_MAX]);
WT_MUST_CHECK int place_write_pointer(const struct place *place, const char *path);

#endif
