/* SPDX-License-Identifier: BSD-2-Clause */
/* Pinned namespaces and BPF file systems in a mount namespace that was copied from another one. */
#ifndef WIRETOLL_DEPLOY_PINS_H
#define WIRETOLL_DEPLOY_PINS_H

#include "base/base.h"

/*
 * Takes all of them but the one at `keep`, a resolved path, off the calling thread's mount namespace, those
 * too that lie beneath other mounts, which are put back. -EBUSY when one cannot be taken off: there is none
 * left when it returns 0.
 */
WT_MUST_CHECK int pins_detach(const char *keep);

#endif
