/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Namespaces held by bind mounts, so that they outlive every process in them. The calling process must have
 * one thread; it is back in its own namespaces when a call returns, unless that failed.
 */
#ifndef WIRETOLL_BASE_NAMESPACE_H
#define WIRETOLL_BASE_NAMESPACE_H

#include "base/base.h"

/* Makes an empty network namespace and pins it at `path`. One that is pinned there already is kept. */
WT_MUST_CHECK int namespace_make_net(const char *path);

/* Whether something is mounted on exactly this path. */
bool namespace_is_mounted(const char *path);

/* Takes a pin or a mount away, with the file or folder it was mounted on. What is not there is no error. */
WT_MUST_CHECK int namespace_unmount(const char *path);

/*
 * Makes the folder of names, /run/netns, which exists, a mount of its own before the first pin is in it. Else
 * the host's first `ip netns add` mounts it on itself, over the pins, which no path leads to any more.
 */
WT_MUST_CHECK int namespace_hold_names(const char *folder);

/* Takes that mount off again, if it is ours and no name in it is left. */
void namespace_release_names(const char *folder);

/* Runs `fn` inside the pinned network namespace and returns what it returned. */
WT_MUST_CHECK int namespace_call_net(const char *path, int (*fn)(const void *data), const void *data);

/* A descriptor of the caller's own namespace of a kind: "net", "mnt". */
WT_MUST_CHECK int namespace_open_own(const char *kind, int *ret_fd);

/* Pins the namespace behind a descriptor at `path`, a file that is made when there is none. */
WT_MUST_CHECK int namespace_pin(int fd, const char *path);

#endif
