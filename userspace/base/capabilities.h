/* SPDX-License-Identifier: BSD-2-Clause */
/* The capabilities of this thread, as sets of bits 1 << CAP_…. */
#ifndef WIRETOLL_BASE_CAPABILITIES_H
#define WIRETOLL_BASE_CAPABILITIES_H

#include "base/base.h"

/* Those in force now. */
WT_MUST_CHECK int capabilities_get(uint64_t *ret_capabilities);

/* Exactly these, of those in force: permitted, effective and inheritable, and ambient for programs it runs.
 */
WT_MUST_CHECK int capabilities_set(uint64_t capabilities);

/* No program run from here can have others. -EPERM without CAP_SETPCAP, unless there is nothing to cut. */
WT_MUST_CHECK int capabilities_bound(uint64_t capabilities);

#endif
