// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/place.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <mntent.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static struct place make_place(uint64_t cookie, uint32_t ifindex)
{
	struct place place = {.netns_cookie = cookie, .ifindex = ifindex};

	snprintf(place.id, sizeof(place.id), "%" PRIu64 "-%" PRIu32, cookie, ifindex);
	snprintf(place.pins, sizeof(place.pins), "%s/%s", PLACE_BPF, place.id);
	snprintf(place.pointer, sizeof(place.pointer), "%s/%s.path", PLACE_HISTORY, place.id);
	return place;
}

int place_netns_cookie(uint64_t *ret_cookie)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(*ret_cookie);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret_cookie, &size))
		return -errno;
	return 0;
}

int place_find(const char *interface, struct place *ret_place, struct json_problem *problem)
{
	unsigned ifindex = if_nametoindex(interface);
	uint64_t cookie;
	int r;

	if (ifindex == 0) {
		json_problem_set(problem, "interface", "there is no interface \"%.40s\"", interface);
		return -ENODEV;
	}
	r = place_netns_cookie(&cookie);
	if (r < 0) {
		json_problem_set(problem, "", "could not read the network namespace's cookie: %s",
				 strerror(-r));
		return r;
	}
	*ret_place = make_place(cookie, ifindex);
	return 0;
}

int place_default_history(const char *interface, char ret_path[static PATH_MAX])
{
	uint64_t cookie;
	int r = place_netns_cookie(&cookie);

	if (r == 0)
		snprintf(ret_path, PATH_MAX, "%s/%" PRIu64 "-%s.json", PLACE_HISTORY, cookie, interface);
	return r;
}

bool place_is_default_history(const char *path)
{
	return strncmp(path, PLACE_HISTORY "/", strlen(PLACE_HISTORY "/")) == 0;
}

int place_from_id(const char *id, struct place *ret_place)
{
	uint64_t cookie;
	uint32_t ifindex;
	int used = 0;

	if (sscanf(id, "%" SCNu64 "-%" SCNu32 "%n", &cookie, &ifindex, &used) != 2 || id[used] != '\0')
		return -EINVAL;
	*ret_place = make_place(cookie, ifindex);
	return 0;
}

int place_lock(int *ret_lock)
{
	_cleanup_close_ int fd = -1;

	if (mkdir(PLACE_RUN, 0755) && errno != EEXIST)
		return -errno;
	fd = open(PLACE_RUN, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX))
		return -errno;
	*ret_lock = TAKE_FD(fd);
	return 0;
}

/* What is mounted by us says so: another's is not ours to take away. */
#define MOUNT_SOURCE "wiretoll"

/* Of what is mounted on top of the path. */
static bool is_ours(const char *path)
{
	FILE *mounts = setmntent("/proc/thread-self/mounts", "r");
	struct mntent *entry;
	bool ours = false;

	while (mounts && (entry = getmntent(mounts))) {
		if (strcmp(entry->mnt_dir, path) == 0)
			ours = strcmp(entry->mnt_fsname, MOUNT_SOURCE) == 0;
	}
	if (mounts)
		endmntent(mounts);
	return ours;
}

static bool is_bpf(const char *path)
{
	struct statfs status;

	return statfs(path, &status) == 0 && (uint64_t)status.f_type == BPF_FS_MAGIC;
}

/* Whether what is mounted here is seen by everybody: not in the mounts of one command or container alone. */
static bool mounts_last(void)
{
	struct stat ours, first;

	return stat("/proc/self/ns/mnt", &ours) == 0 && stat("/proc/1/ns/mnt", &first) == 0 &&
	       ours.st_ino == first.st_ino && ours.st_dev == first.st_dev;
}

int place_mount(struct json_problem *problem)
{
	if (is_bpf(PLACE_BPF))
		return 0;
	if (!mounts_last()) {
		json_problem_set(
			problem, "",
			"no BPF file system is mounted at " PLACE_BPF
			", and one mounted here would vanish with this command's own mounts. Mount it "
			"outside first: mkdir -p " PLACE_BPF " && mount -t bpf bpf " PLACE_BPF
			"; or enter with nsenter --net=/run/netns/NAME instead of ip netns exec");
		return -ENOENT;
	}
	if ((mkdir(PLACE_BPF, 0700) && errno != EEXIST) ||
	    mount(MOUNT_SOURCE, PLACE_BPF, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700")) {
		int r = -errno;

		json_problem_set(problem, "", "could not mount a BPF file system at " PLACE_BPF ": %s",
				 strerror(-r));
		return r;
	}
	return 0;
}

int place_hold(int *ret_hold)
{
	int fd = open(PLACE_BPF, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*ret_hold = fd;
	return 0;
}

/*
 * Each step fails where something else still is, and that ends it. A command with mounts of its own takes
 * nothing away: to remove the mount point of another mount namespace's file system detaches it there.
 */
void place_clear(void)
{
	rmdir(PLACE_HISTORY);
	/* A mount point cannot be removed: the mount goes first, but only when it is empty. */
	if (is_bpf(PLACE_BPF)) {
		struct stat status;

		if (!mounts_last() || !is_ours(PLACE_BPF) || stat(PLACE_BPF, &status) ||
		    status.st_nlink > 2 || umount(PLACE_BPF))
			return;
	}
	rmdir(PLACE_BPF);
	rmdir(PLACE_RUN);
}

int place_read_pointer(const struct place *place, char ret_path[static PATH_MAX])
{
	_cleanup_free_ char *text = NULL;
	int r = file_read(place->pointer, PATH_MAX - 1, &text, NULL);

	if (r < 0)
		return r;
	snprintf(ret_path, PATH_MAX, "%s", text);
	return 0;
}

int place_write_pointer(const struct place *place, const char *path)
{
	int r = file_make_folder(PLACE_HISTORY, 0700);

	return r < 0 ? r : file_replace(place->pointer, path, strlen(path), 0600);
}
