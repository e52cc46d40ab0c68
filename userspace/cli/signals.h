/* SPDX-License-Identifier: BSD-2-Clause */
/* The signals that end a command which runs for long. */
#ifndef WIRETOLL_CLI_SIGNALS_H
#define WIRETOLL_CLI_SIGNALS_H

#include "base/base.h"

#include <signal.h>

/* A terminal's Ctrl-C and its end, and a service manager's stop. */
sigset_t signals_that_end(void);

/*
 * These through one descriptor that does not block; the ends of child processes, too, if they are asked for.
 * They do nothing else from then on.
 */
WT_MUST_CHECK int signals_open(bool children, int *ret_fd);

#endif
