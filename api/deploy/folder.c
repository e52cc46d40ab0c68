// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/folder.h"
#include "base/clock.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 16 /* directories open at once; what is deeper is moved up first */

struct removal {
	int top; /* the directory that is emptied */
	dev_t device;
	int64_t end_ns;
	unsigned moved;
};

static int open_directory(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int empty(struct removal *removal, int directory, int depth);

/* A directory within `parent`. */
static int remove_directory(struct removal *removal, int parent, const char *name, int depth)
{
	char moved[32];
	int r;

	if (depth == MAX_DEPTH) {
		/* A name that is taken: the next number. */
		snprintf(moved, sizeof(moved), ".deep-%u", removal->moved++);
		return renameat2(parent, name, removal->top, moved, RENAME_NOREPLACE) < 0 &&
				       errno != EEXIST && errno != ENOENT
			       ? -errno
			       : 0;
	}

	_cleanup_close_ int fd = open_directory(parent, name);

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? 0 : fd;
	r = empty(removal, fd, depth);
	if (r == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTEMPTY)
		r = -errno;
	return r;
}

static int remove_entry(struct removal *removal, int directory, const struct dirent *entry, int depth)
{
	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return 0;
	if (clock_boot_ns() > removal->end_ns)
		return -ETIMEDOUT;
	if (unlinkat(directory, entry->d_name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	return remove_directory(removal, directory, entry->d_name, depth + 1);
}

/* One reading of the directory; with what came back into it meanwhile it is not empty yet. */
static int empty_once(struct removal *removal, DIR *directory, int depth, bool *ret_any)
{
	const struct dirent *entry;
	int r = 0;

	*ret_any = false;
	rewinddir(directory);
	while (r == 0 && (entry = readdir(directory))) {
		*ret_any = *ret_any || (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0);
		r = remove_entry(removal, dirfd(directory), entry, depth);
	}
	return r;
}

/* The descriptor stays the caller's. */
static int empty(struct removal *removal, int directory, int depth)
{
	int copy = open_directory(directory, ".");
	struct stat status;
	bool any = true;
	DIR *stream;
	int r = 0;

	if (copy < 0)
		return copy;
	stream = fdopendir(copy);
	if (!stream) {
		close(copy);
		return -ENOMEM;
	}
	if (fstat(directory, &status) < 0)
		r = -errno;
	else if (status.st_dev != removal->device)
		r = -EXDEV;
	/* Below the top one reading is enough: what is left is found again from there. */
	while (r == 0 && any) {
		r = empty_once(removal, stream, depth, &any);
		if (depth > 0)
			break;
	}
	closedir(stream);
	return r;
}

int folder_remove(const char *path, int patience_ms)
{
	struct removal removal = {.end_ns = clock_boot_ns() + patience_ms * 1000000LL};
	_cleanup_close_ int top = open_directory(AT_FDCWD, path);
	struct stat status;
	int r;

	if (top < 0)
		return top == -ENOENT ? 0 : top;
	if (fstat(top, &status) < 0)
		return -errno;
	removal.top = top;
	removal.device = status.st_dev;
	r = empty(&removal, top, 0);
	if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

int folder_discard(const char *path, const char *trash, const char *const *secrets)
{
	_cleanup_close_ int fd = open_directory(AT_FDCWD, path);
	char target[PATH_MAX];

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	/* One that cannot be removed alone goes with the rest. */
	for (; *secrets; secrets++)
		unlinkat(fd, *secrets, 0);
	for (unsigned i = 0;; i++) {
		if (snprintf(target, sizeof(target), "%s%s.%u", trash, strrchr(path, '/'), i) >=
		    (int)sizeof(target))
			return -ENAMETOOLONG;
		if (renameat2(AT_FDCWD, path, AT_FDCWD, target, RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
	}
}

int folder_each(const char *path, int (*fn)(const char *path, void *data), void *data)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;
	char inner[PATH_MAX];
	int r = 0;

	if (!directory)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (entry = readdir(directory))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name) < (int)sizeof(inner))
			r = fn(inner, data);
	}
	closedir(directory);
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
