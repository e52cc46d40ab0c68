/* SPDX-License-Identifier: BSD-2-Clause */
/* A gateway's folders. */
#ifndef WIRETOLL_DEPLOY_FOLDER_H
#define WIRETOLL_DEPLOY_FOLDER_H

#include "base/base.h"

#include <sys/types.h>

/* Removes a folder with all in it, not following links and not crossing into other mounts. */
WT_MUST_CHECK int folder_remove(const char *path);

/* Creates a folder, or takes it over, with this owner and mode. */
WT_MUST_CHECK int folder_make(const char *path, uid_t uid, mode_t mode);

#endif
