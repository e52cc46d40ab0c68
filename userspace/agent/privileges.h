/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent gives up what it does not need; see docs/decisions/least-privilege.md. */
#ifndef WIRETOLL_AGENT_PRIVILEGES_H
#define WIRETOLL_AGENT_PRIVILEGES_H

#include "base/base.h"

/* Before anything is opened: three capabilities at most, for itself and for what it runs, for good. */
WT_MUST_CHECK int privileges_drop(void);

/*
 * Once its io_uring is set up, and before anything is read that came over the network: from here on only the
 * system calls that the agent needs. Others fail with EPERM; those that only an intruder makes kill the
 * process.
 */
WT_MUST_CHECK int privileges_filter(void);

#endif
