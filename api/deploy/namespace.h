/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two namespaces of a gateway, held by bind mounts so that they outlive every process in them. The
 * calling process must have one thread; it is back in its own namespaces when a call returns, unless that
 * failed.
 */
#ifndef WIRETOLL_DEPLOY_NAMESPACE_H
#define WIRETOLL_DEPLOY_NAMESPACE_H

#include "base/base.h"
#include "base/namespace.h"

#include <sys/types.h>

/*
 * Makes a mount namespace and pins it at `path`, which must lie on a private mount. In it: the BPF file
 * system at `bpf`, an empty /run/wireguard and a /dev/net/tun for the uid, and no pin of anybody else, as a
 * copied mount would keep what it holds alive.
 */
WT_MUST_CHECK int namespace_make_mount(const char *path, const char *bpf, uid_t uid);

/* Mounts a BPF file system of the uid's own. One that is mounted there already is kept. */
WT_MUST_CHECK int namespace_mount_bpf(const char *path, uid_t uid);

/* Makes a folder a mount of its own that shares nothing with other namespaces. */
WT_MUST_CHECK int namespace_make_private(const char *path);

#endif
