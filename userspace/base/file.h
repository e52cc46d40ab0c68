/* SPDX-License-Identifier: BSD-2-Clause */
/* Small files: read whole, replaced atomically. */
#ifndef WIRETOLL_BASE_FILE_H
#define WIRETOLL_BASE_FILE_H

#include "base/base.h"

#include <sys/types.h>

/*
 * Reads a whole file of at most `max` bytes into a new buffer with a NUL behind it; the caller frees it.
 * Returns -errno; -EFBIG for a larger file.
 */
WT_MUST_CHECK int file_read(const char *path, size_t max, char **ret_text, size_t *ret_length);

/*
 * Replaces a file: temporary file in the same folder with the given mode, fsync, rename, fsync of the
 * folder. A reader, or a crash, sees the old text or the new one. Returns -errno.
 */
WT_MUST_CHECK int file_replace(const char *path, const void *data, size_t length, mode_t mode);

/* Makes it durable that the file or folder is there by that name. */
WT_MUST_CHECK int file_sync_folder_of(const char *path);

/* Creates a folder and its missing parents (these 0755). An existing folder is left as it is. */
WT_MUST_CHECK int file_make_folder(const char *path, mode_t mode);

/* Writes all bytes to a descriptor, continuing after short writes and EINTR. */
WT_MUST_CHECK int file_write_all(int fd, const void *data, size_t length);

#endif
