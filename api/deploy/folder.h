/* SPDX-License-Identifier: BSD-2-Clause */
/* A gateway's folders. */
#ifndef WIRETOLL_DEPLOY_FOLDER_H
#define WIRETOLL_DEPLOY_FOLDER_H

#include "base/base.h"

#include <sys/types.h>

/*
 * Removes a directory with all in it, however deep, by descriptors: whoever may change its content meanwhile
 * cannot lead the removal elsewhere. The way to it must be root's. -EXDEV at another mount; -ETIMEDOUT after
 * `patience_ms`, with part of it gone.
 */
WT_MUST_CHECK int folder_remove(const char *path, int patience_ms);

/*
 * Moves a directory to a new name within `trash`, on the same file system, so that it is gone at once however
 * much is in it; the `secrets` in it, names up to a NULL, are removed before. One that is not there is no
 * error.
 */
WT_MUST_CHECK int folder_discard(const char *path, const char *trash, const char *const *secrets);

/* Calls `fn` for each entry's path until one is not 0, which is returned. */
WT_MUST_CHECK int folder_each(const char *path, int (*fn)(const char *path, void *data), void *data);

/* Creates a folder, or takes it over, with this owner and mode. */
WT_MUST_CHECK int folder_make(const char *path, uid_t uid, mode_t mode);

#endif
