// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/folder.h"
#include "base/file.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status;
	(void)type;
	(void)place;
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int folder_remove(const char *path)
{
	int r = nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

	if (r == -1)
		return errno == ENOENT ? 0 : -errno;
	return r;
}

int folder_make(const char *path, uid_t uid, mode_t mode)
{
	int r = file_make_folder(path, mode);

	if (r < 0)
		return r;
	if (chmod(path, mode) < 0 || lchown(path, uid, uid) < 0)
		return -errno;
	return 0;
}
