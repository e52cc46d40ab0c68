/* SPDX-License-Identifier: BSD-2-Clause */
/* Tells the service manager how far this process is: systemd's protocol of sd_notify(3). */
#ifndef WIRETOLL_BASE_NOTIFY_H
#define WIRETOLL_BASE_NOTIFY_H

#include "base/base.h"

/* `state` is like "READY=1". Does nothing, successfully, when no manager asked to be told. */
WT_MUST_CHECK int notify_manager(const char *state);

#endif
