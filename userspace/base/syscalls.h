/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Filters of system calls for a gateway's programs; see docs/decisions/least-privilege.md. What a filter does
 * not list fails with EPERM; what only an intruder calls kills the process. Both need no_new_privs, hold for
 * all threads and for every program that is executed later, and cannot be taken off. Negative errno as of
 * libseccomp.
 */
#ifndef WIRETOLL_BASE_SYSCALLS_H
#define WIRETOLL_BASE_SYSCALLS_H

#include "base/base.h"

WT_MUST_CHECK int syscalls_restrict_agent(void);
WT_MUST_CHECK int syscalls_restrict_wireguard(void);

#endif
