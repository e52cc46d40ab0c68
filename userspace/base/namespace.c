// SPDX-License-Identifier: BSD-2-Clause
#include "base/namespace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* By which our mount is told from that of `ip netns add`. */
#define NAMES_SOURCE "wiretoll"

int namespace_open_own(const char *kind, int *ret_fd)
{
	char path[48];
	int fd;

	snprintf(path, sizeof(path), "/proc/thread-self/ns/%s", kind);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int make_file(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);

	return fd < 0 ? -errno : 0;
}

int namespace_pin(int fd, const char *path)
{
	char source[48];
	int r = make_file(path);

	if (r < 0)
		return r;
	snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
	return mount(source, path, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

bool namespace_is_mounted(const char *path)
{
	char resolved[PATH_MAX];
	bool found = false;
	struct mntent *entry;
	FILE *mounts;

	if (!realpath(path, resolved))
		return false;
	mounts = setmntent("/proc/thread-self/mounts", "r");
	if (!mounts)
		return false;
	while (!found && (entry = getmntent(mounts)))
		found = strcmp(entry->mnt_dir, resolved) == 0;
	endmntent(mounts);
	return found;
}

int namespace_make_net(const char *path)
{
	_cleanup_close_ int own = -1;
	_cleanup_close_ int made = -1;
	int r;

	if (namespace_is_mounted(path))
		return 0;
	r = namespace_open_own("net", &own);
	if (r < 0)
		return r;
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	r = namespace_open_own("net", &made);
	if (setns(own, CLONE_NEWNET) < 0)
		return -errno;
	return r == 0 ? namespace_pin(made, path) : r;
}

int namespace_unmount(const char *path)
{
	struct stat status;

	while (namespace_is_mounted(path))
		if (umount2(path, MNT_DETACH) < 0)
			return -errno;
	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(status.st_mode) ? rmdir(path) < 0 : unlink(path) < 0)
		return errno == ENOENT ? 0 : -errno;
	return 0;
}

static bool is_empty(const char *folder)
{
	DIR *dir = opendir(folder);
	const struct dirent *entry;
	int names = 0;

	if (!dir)
		return false;
	while (names <= 2 && (entry = readdir(dir)))
		names++;
	closedir(dir);
	return names == 2; /* itself and its parent */
}

int namespace_hold_names(const char *folder)
{
	/* What is pinned there already would be covered. */
	if (namespace_is_mounted(folder) || !is_empty(folder))
		return 0;
	return mount(NAMES_SOURCE, folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") < 0
		       ? -errno
		       : 0;
}

void namespace_release_names(const char *folder)
{
	FILE *mounts = setmntent("/proc/thread-self/mounts", "r");
	struct mntent *entry;
	bool is_ours = false;

	if (!mounts)
		return;
	while ((entry = getmntent(mounts)))
		if (strcmp(entry->mnt_dir, folder) == 0)
			is_ours = strcmp(entry->mnt_fsname, NAMES_SOURCE) == 0;
	endmntent(mounts);
	if (is_ours && is_empty(folder))
		(void)umount2(folder, 0);
}

int namespace_call_net(const char *path, int (*fn)(const void *data), const void *data)
{
	_cleanup_close_ int own = -1;
	_cleanup_close_ int target = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (target < 0)
		return -errno;
	r = namespace_open_own("net", &own);
	if (r < 0)
		return r;
	if (setns(target, CLONE_NEWNET) < 0)
		return -errno;
	r = fn(data);
	return setns(own, CLONE_NEWNET) < 0 ? -errno : r;
}
