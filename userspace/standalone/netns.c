// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/netns.h"

#include "base/namespace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NAMES "/run/netns"

/* ---- each process ----------------------------------------------------------------------------------------
 */

typedef bool (*process_fn)(pid_t pid, void *data);

/* Until one is it. */
static bool any_process(process_fn fn, void *data)
{
	DIR *folder = opendir("/proc");
	const struct dirent *entry;
	bool found = false;

	while (folder && !found && (entry = readdir(folder))) {
		char *end;
		long pid = strtol(entry->d_name, &end, 10);

		if (pid > 0 && *end == '\0')
			found = fn((pid_t)pid, data);
	}
	if (folder)
		closedir(folder);
	return found;
}

/* ---- the search ------------------------------------------------------------------------------------------
 */

struct search {
	bool (*is_wanted)(void *data);
	void *data;
	bool entered; /* any: the process is not where it was */
	ino_t *seen;
	size_t n_seen;
};

static bool is_seen(const struct search *search, ino_t inode)
{
	for (size_t i = 0; i < search->n_seen; i++) {
		if (search->seen[i] == inode)
			return true;
	}
	return false;
}

static bool note(struct search *search, ino_t inode)
{
	ino_t *larger = realloc(search->seen, (search->n_seen + 1) * sizeof(*larger));

	if (!larger)
		return false;
	search->seen = larger;
	larger[search->n_seen++] = inode;
	return true;
}

static bool try_path(struct search *search, const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0 || is_seen(search, status.st_ino) ||
	    !note(search, status.st_ino))
		return false;
	if (setns(fd, CLONE_NEWNET) < 0)
		return false;
	search->entered = true;
	return search->is_wanted(search->data);
}

static bool try_process(pid_t pid, void *data)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return try_path(data, path);
}

static bool try_names(struct search *search)
{
	DIR *folder = opendir(NAMES);
	const struct dirent *entry;
	char path[PATH_MAX];
	bool found = false;

	while (folder && !found && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), NAMES "/%s", entry->d_name);
		found = entry->d_name[0] != '.' && try_path(search, path);
	}
	if (folder)
		closedir(folder);
	return found;
}

bool netns_search(bool (*is_wanted)(void *data), void *data)
{
	struct search search = {.is_wanted = is_wanted, .data = data};
	_cleanup_close_ int own = -1;
	bool found;

	if (namespace_open_own("net", &own) < 0)
		return false;
	found = try_names(&search) || any_process(try_process, &search);
	free(search.seen);
	/* Nothing that follows would be done where it is meant. */
	if (!found && search.entered && setns(own, CLONE_NEWNET) < 0)
		abort();
	return found;
}

/* ---- the watch -------------------------------------------------------------------------------------------
 */

/* "… net:[4026532396] /run/netns/NAME … - nsfs nsfs rw": a name is a mount of the namespace's file. */
static bool has_name(uint64_t inode)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	char root[48];
	bool found = false;

	snprintf(root, sizeof(root), " net:[%" PRIu64 "] ", inode);
	while (mounts && !found && getline(&line, &size, mounts) > 0)
		found = strstr(line, root) && strstr(line, " - nsfs ");
	if (mounts)
		fclose(mounts);
	return found;
}

void netns_watch_begin(struct netns_watch *watch)
{
	struct stat status = {0};
	bool known = stat("/proc/thread-self/ns/net", &status) == 0;

	*watch = (struct netns_watch){.inode = known ? status.st_ino : 0, .mounts = -1};
	if (!known)
		return;
	/* Opened before it is read: what changes from now on is told. */
	watch->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	watch->is_named = watch->was_named = has_name(watch->inode);
}

void netns_watch_end(struct netns_watch *watch)
{
	cleanup_close(&watch->mounts);
	watch->mounts = -1;
}

static bool has_changed(const struct netns_watch *watch)
{
	struct pollfd mounts = {.fd = watch->mounts, .events = POLLPRI};

	return poll(&mounts, 1, 0) > 0 && mounts.revents & (POLLPRI | POLLERR);
}

bool netns_is_deleted(struct netns_watch *watch)
{
	if (watch->mounts >= 0 && has_changed(watch)) {
		watch->is_named = has_name(watch->inode);
		watch->was_named |= watch->is_named;
	}
	return watch->was_named && !watch->is_named;
}

struct hold {
	uint64_t inode;
	dev_t device;        /* of the kernel's file system of namespaces */
	struct stat program; /* ours */
	pid_t holder;
};

/* 1, 0, or -errno: -EACCES where only another right lets us see. */
static int is_namespace(const char *path, uint64_t inode)
{
	char text[64], wanted[48];
	ssize_t length = readlink(path, text, sizeof(text) - 1);

	if (length < 0)
		return -errno;
	text[length] = '\0';
	snprintf(wanted, sizeof(wanted), "net:[%" PRIu64 "]", inode);
	return strcmp(text, wanted) == 0;
}

/*
 * The link of a descriptor tells the path by which it was opened, which may be a name that is gone: the file
 * itself is asked, by what is known of it, so that no server of other descriptors' files is waited for.
 */
static bool is_open_namespace(const char *path, const struct hold *hold)
{
	struct statx status;

	return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &status) == 0 &&
	       status.stx_ino == hold->inode &&
	       makedev(status.stx_dev_major, status.stx_dev_minor) == hold->device;
}

static bool has_descriptor(pid_t pid, const struct hold *hold)
{
	char path[PATH_MAX];
	const struct dirent *entry;
	bool found = false;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	folder = opendir(path);
	while (folder && !found && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
		found = is_open_namespace(path, hold);
	}
	if (folder)
		closedir(folder);
	return found;
}

/* Another process of this program waits for the same: each would hold the namespace for the other. */
static bool holds(pid_t pid, void *data)
{
	struct hold *hold = data;
	struct stat program;
	char path[64];
	int is_in;

	if (pid == getpid())
		return false;
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	if (stat(path, &program) == 0 && program.st_dev == hold->program.st_dev &&
	    program.st_ino == hold->program.st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	is_in = is_namespace(path, hold->inode);
	/* Who cannot be seen may hold it. */
	if (is_in == 1 || is_in == -EACCES || is_in == -EPERM || has_descriptor(pid, hold))
		hold->holder = pid;
	return hold->holder != 0;
}

pid_t netns_holder(const struct netns_watch *watch)
{
	struct hold hold = {.inode = watch->inode};
	struct stat own;

	if (stat("/proc/self/exe", &hold.program) < 0 || stat("/proc/self/ns/net", &own) < 0)
		return 0;
	hold.device = own.st_dev;
	return any_process(holds, &hold) ? hold.holder : 0;
}
