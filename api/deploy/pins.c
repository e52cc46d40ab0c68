// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/pins.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_COVERS 16

/* A line of mountinfo, see proc(5). */
struct mount {
	int id, parent;
	bool is_pin;
	char *path;
};

struct mounts {
	struct mount *items;
	size_t n, n_pins;
};

static void mounts_free(struct mounts *mounts)
{
	for (size_t i = 0; i < mounts->n; i++)
		free(mounts->items[i].path);
	free(mounts->items);
	memset(mounts, 0, sizeof(*mounts));
}

/* Spaces and the like are written as \040. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned code;

		if (sscanf(from, "\\%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

static int parse_mount(const char *line, const char *keep, struct mount *ret)
{
	const char *type = strstr(line, " - ");
	char kind[8] = "";

	memset(ret, 0, sizeof(*ret));
	if (!type || sscanf(line, "%d %d %*s %*s %ms", &ret->id, &ret->parent, &ret->path) != 3) {
		free(ret->path);
		return -EBADMSG;
	}
	unescape(ret->path);
	sscanf(type, " - %7s", kind);
	ret->is_pin = (strcmp(kind, "nsfs") == 0 || strcmp(kind, "bpf") == 0) && strcmp(ret->path, keep) != 0;
	return 0;
}

static int add_mount(struct mounts *mounts, const char *line, const char *keep)
{
	struct mount *longer = realloc(mounts->items, (mounts->n + 1) * sizeof(*longer));
	int r;

	if (!longer)
		return -ENOMEM;
	mounts->items = longer;
	r = parse_mount(line, keep, &longer[mounts->n]);
	if (r < 0)
		return r;
	mounts->n_pins += longer[mounts->n++].is_pin;
	return 0;
}

static int read_mounts(const char *keep, struct mounts *ret)
{
	FILE *file = fopen("/proc/thread-self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	if (!file)
		return -errno;
	while (r == 0 && getline(&line, &size, file) > 0)
		r = add_mount(ret, line, keep);
	if (r == 0 && ferror(file))
		r = -EIO;
	fclose(file);
	if (r < 0)
		mounts_free(ret);
	return r;
}

/* The mount that a path leads to; -1: none. */
static int mount_at(const char *path)
{
	struct statx found;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_MNT_ID,
		  &found) < 0 ||
	    !(found.stx_mask & STATX_MNT_ID))
		return -1;
	return (int)found.stx_mnt_id;
}

/* Innermost last, so taken off backwards. One that is not at its path went with another, or lies beneath one.
 */
static size_t detach_visible(const struct mounts *mounts)
{
	size_t detached = 0;

	for (size_t i = mounts->n; i-- > 0;) {
		const struct mount *one = &mounts->items[i];

		if (one->is_pin && mount_at(one->path) == one->id &&
		    umount2(one->path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
			detached++;
	}
	return detached;
}

static const struct mount *find(const struct mounts *mounts, int id)
{
	for (size_t i = 0; i < mounts->n; i++) {
		if (mounts->items[i].id == id)
			return &mounts->items[i];
	}
	return NULL;
}

static bool leads_to(const struct mounts *mounts, int id, const struct mount *inner)
{
	while (inner && inner->id != id)
		inner = inner->parent == inner->id ? NULL : find(mounts, inner->parent);
	return inner != NULL;
}

/* The outermost folder on the way to a mount where another mount is in the way. */
static int covered_at(const struct mounts *mounts, const struct mount *mount, char ret_path[static PATH_MAX])
{
	snprintf(ret_path, PATH_MAX, "%s", mount->path);
	for (char *end = ret_path + 1; *end; end++) {
		char *slash = strchrnul(end, '/'), next = *slash;
		int found;

		*slash = '\0';
		found = mount_at(ret_path);
		if (found >= 0 && !leads_to(mounts, found, mount))
			return 0;
		*slash = next;
		end = slash - (next == '\0');
	}
	return -EBUSY;
}

/* A copy of what is mounted at a path, and all in it, that is mounted nowhere. */
static int lift(const char *path)
{
	int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		return -errno;
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return fd;
	close(fd);
	return -EBUSY;
}

/* Lifts what covers the mount, layer after layer, takes it off, and puts the layers back. */
static int detach_covered(const struct mounts *mounts, const struct mount *mount)
{
	char paths[MAX_COVERS][PATH_MAX];
	int covers[MAX_COVERS], r = 0;
	size_t n = 0;

	while (r >= 0 && mount_at(mount->path) != mount->id) {
		r = n == MAX_COVERS ? -EBUSY : covered_at(mounts, mount, paths[n]);
		if (r == 0)
			r = covers[n] = lift(paths[n]);
		if (r >= 0)
			n++;
	}
	if (r >= 0)
		r = umount2(mount->path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -EBUSY : 0;
	while (n-- > 0) {
		if (move_mount(covers[n], "", AT_FDCWD, paths[n], MOVE_MOUNT_F_EMPTY_PATH) < 0 && r == 0)
			r = -errno;
		close(covers[n]);
	}
	return r;
}

static int detach_first_covered(const struct mounts *mounts)
{
	for (size_t i = 0; i < mounts->n; i++) {
		if (mounts->items[i].is_pin)
			return detach_covered(mounts, &mounts->items[i]);
	}
	return 0;
}

int pins_detach(const char *keep)
{
	struct mounts mounts;
	bool left = true;
	int r = 0;

	while (left && r == 0) {
		r = read_mounts(keep, &mounts);
		if (r < 0)
			return r;
		left = mounts.n_pins > 0;
		if (left && detach_visible(&mounts) == 0)
			r = detach_first_covered(&mounts);
		mounts_free(&mounts);
	}
	return r;
}
