// SPDX-License-Identifier: BSD-2-Clause
/*
 * The pin folder. Pins are made in `new`, which is renamed to `live` when all of them are there, and removed
 * after `live` is renamed to `old`: whoever takes the lock next finds either a whole meter or remains to be
 * cleared away.
 */
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const object_names[OBJECTS] = {
	[OBJECT_TABLE] = "table",
	[OBJECT_WINDOWS] = "windows",
	[OBJECT_BUCKETS4] = "buckets4",
	[OBJECT_BUCKETS6] = "buckets6",
	[OBJECT_HINT_LINES] = "hint_lines",
	[OBJECT_INCARNATIONS] = "incarnations",
	[OBJECT_COUNTS] = "counts",
	[OBJECT_PURSES] = "purses",
	[OBJECT_INTERFACE_CELLS] = "interface_cells",
	[OBJECT_CREDIT] = "credit",
	[OBJECT_PEER_STATES] = "peer_states",
	[OBJECT_PEER_POOLS] = "peer_pools",
	[OBJECT_META] = "meta",
	[OBJECT_OWNERS] = "owners",
	[OBJECT_EVENTS] = "events",
	[OBJECT_INGRESS] = "ingress",
	[OBJECT_EGRESS] = "egress",
	[OBJECT_INGRESS_LINK] = "ingress_link",
	[OBJECT_EGRESS_LINK] = "egress_link",
};

struct pin_path {
	char text[PATH_MAX];
};

/* FOLDER/STAGE, or FOLDER/STAGE/OBJECT. */
static int make_path(struct pin_path *path, const char *folder, const char *stage, const char *object)
{
	int length = snprintf(path->text, sizeof(path->text), "%s/%s%s%s", folder, stage, object ? "/" : "",
			      object ? object : "");

	return length < 0 || (size_t)length >= sizeof(path->text) ? -ENAMETOOLONG : 0;
}

static int lock_once(const char *folder, bool create, int *ret_lock)
{
	_cleanup_close_ int fd = -1;
	struct stat status;

	if (create && mkdir(folder, 0700) && errno != EEXIST)
		return -errno;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &status))
		return -errno;
	/* Removed by the holder of the lock between open and flock. */
	if (status.st_nlink == 0)
		return -EAGAIN;
	*ret_lock = TAKE_FD(fd);
	return 0;
}

int pins_lock(const char *folder, bool create, int *ret_lock)
{
	int r;

	do {
		r = lock_once(folder, create, ret_lock);
	} while (r == -EAGAIN);
	return r;
}

int pins_make(const char *folder, const char *stage)
{
	struct pin_path path;
	int r = make_path(&path, folder, stage, NULL);

	if (r < 0)
		return r;
	return mkdir(path.text, 0700) ? -errno : 0;
}

int pins_add(const char *folder, const char *stage, enum meter_object object, int fd)
{
	struct pin_path path;
	int r = make_path(&path, folder, stage, object_names[object]);

	if (r < 0)
		return r;
	return bpf_obj_pin(fd, path.text);
}

int pins_move(const char *folder, const char *from, const char *to)
{
	struct pin_path old_path, new_path;
	int r = make_path(&old_path, folder, from, NULL);

	if (r == 0)
		r = make_path(&new_path, folder, to, NULL);
	if (r < 0)
		return r;
	return rename(old_path.text, new_path.text) ? -errno : 0;
}

bool pins_exist(const char *folder, const char *stage)
{
	struct pin_path path;

	return make_path(&path, folder, stage, NULL) == 0 && access(path.text, F_OK) == 0;
}

int pins_open(const char *folder, const char *stage, int fds[static OBJECTS])
{
	struct pin_path path;
	int r;

	if (!pins_exist(folder, stage))
		return -ENOENT;
	for (int i = 0; i < OBJECTS; i++) {
		r = make_path(&path, folder, stage, object_names[i]);
		if (r < 0)
			return r;
		fds[i] = bpf_obj_get(path.text);
		if (fds[i] < 0 && fds[i] != -ENOENT)
			return fds[i];
		if (fds[i] < 0)
			fds[i] = -1;
	}
	return 0;
}

/* A filter is no pin: it outlives the process that attached it, and is found by the program it runs. */
static int clear_filters(const int fds[static OBJECTS])
{
	char name[IF_NAMESIZE];
	struct wt_meta meta;
	uint64_t cookie;
	uint32_t zero = 0;
	int r;

	if (fds[OBJECT_META] < 0 || fds[OBJECT_INGRESS] < 0 || fds[OBJECT_EGRESS] < 0)
		return 0;
	r = bpf_map_lookup_elem(fds[OBJECT_META], &zero, &meta);
	if (r < 0)
		return r;
	/* An interface that is gone has taken its filters with it. By whatever name it is found now. */
	if (identity_netns(&cookie) < 0 || cookie != meta.netns_cookie || !if_indextoname(meta.ifindex, name))
		return 0;
	return detach_tc(meta.ifindex, fds);
}

static int unlink_stage(const char *folder, const char *stage)
{
	struct pin_path path;
	int r;

	for (int i = 0; i < OBJECTS; i++) {
		r = make_path(&path, folder, stage, object_names[i]);
		if (r < 0)
			return r;
		if (unlink(path.text) && errno != ENOENT)
			return -errno;
	}
	r = make_path(&path, folder, stage, NULL);
	if (r < 0)
		return r;
	return rmdir(path.text) && errno != ENOENT ? -errno : 0;
}

int pins_clear(const char *folder, const char *stage)
{
	int fds[OBJECTS], r;

	for (int i = 0; i < OBJECTS; i++)
		fds[i] = -1;
	r = pins_open(folder, stage, fds);
	if (r == 0)
		r = clear_filters(fds);
	for (int i = 0; i < OBJECTS; i++)
		cleanup_close(&fds[i]);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : unlink_stage(folder, stage);
}
