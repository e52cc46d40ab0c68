// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/namespace.h"
#include "base/file.h"
#include "deploy/pins.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define WIREGUARD_FOLDER "/run/wireguard"
#define TUN_FOLDER       "/dev/net"

int namespace_mount_bpf(const char *path, uid_t uid)
{
	int r;

	if (namespace_is_mounted(path))
		return 0;
	r = file_make_folder(path, 0700);
	if (r < 0)
		return r;
	if (mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		return -errno;
	return chown(path, uid, uid) < 0 ? -errno : 0;
}

static int mount_tmpfs(const char *path, uid_t uid, const char *mode)
{
	char options[64];

	snprintf(options, sizeof(options), "mode=%s,uid=%u,gid=%u,size=64k", mode, uid, uid);
	return mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NOEXEC, options) < 0 ? -errno : 0;
}

/* A device node of our own: the host's is root's, and stays so. */
static int make_tun(uid_t uid)
{
	const char *device = TUN_FOLDER "/tun";
	int r = mount_tmpfs(TUN_FOLDER, 0, "0755");

	if (r < 0)
		return r;
	if (mknod(device, S_IFCHR | 0600, makedev(10, 200)) < 0 || chown(device, uid, uid) < 0)
		return -errno;
	return 0;
}

static int furnish(const char *bpf, uid_t uid)
{
	char resolved[PATH_MAX];
	int r;

	/* Slave: what the host unmounts later goes here, too; nothing comes back. */
	if (!realpath(bpf, resolved) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return -errno;
	r = pins_detach(resolved);
	if (r == 0)
		r = mount_tmpfs(WIREGUARD_FOLDER, uid, "0700");
	return r == 0 ? make_tun(uid) : r;
}

static int make_and_pin_mount(const char *path, const char *bpf, uid_t uid)
{
	_cleanup_close_ int own = -1;
	_cleanup_close_ int made = -1;
	int r = namespace_open_own("mnt", &own);

	if (r < 0)
		return r;
	if (unshare(CLONE_NEWNS) < 0)
		return -errno;
	r = furnish(bpf, uid);
	if (r == 0)
		r = namespace_open_own("mnt", &made);
	if (setns(own, CLONE_NEWNS) < 0)
		return -errno;
	return r == 0 ? namespace_pin(made, path) : r;
}

/*
 * A mount namespace can be pinned only in one with a smaller number, so that there are no loops: EINVAL
 * otherwise. Linux 6.18 hands the numbers out in batches, one a CPU, so that a younger namespace may have the
 * smaller one (seen on two CPUs). Made on the CPU where ours was made, it always has the larger one: so try
 * them all.
 */
static int try_each_cpu(const char *path, const char *bpf, uid_t uid)
{
	cpu_set_t allowed, one;
	int r = -EINVAL;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return -errno;
	for (int cpu = 0; cpu < CPU_SETSIZE && r == -EINVAL; cpu++) {
		if (!CPU_ISSET(cpu, &allowed))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one) == 0)
			r = make_and_pin_mount(path, bpf, uid);
	}
	return sched_setaffinity(0, sizeof(allowed), &allowed) < 0 && r == 0 ? -errno : r;
}

int namespace_make_mount(const char *path, const char *bpf, uid_t uid)
{
	int r;

	if (namespace_is_mounted(path))
		return 0;
	r = file_make_folder(WIREGUARD_FOLDER, 0755);
	if (r == 0)
		r = file_make_folder(TUN_FOLDER, 0755);
	if (r == 0)
		r = make_and_pin_mount(path, bpf, uid);
	return r == -EINVAL ? try_each_cpu(path, bpf, uid) : r;
}

int namespace_make_private(const char *path)
{
	if (!namespace_is_mounted(path) && mount(path, path, NULL, MS_BIND, NULL) < 0)
		return -errno;
	return mount(NULL, path, NULL, MS_PRIVATE, NULL) < 0 ? -errno : 0;
}
