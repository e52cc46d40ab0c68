/* SPDX-License-Identifier: BSD-2-Clause */
/* What an installation begins with: CA, certificate, sealing key, and the first admin. */
#ifndef WIRETOLL_API_INIT_H
#define WIRETOLL_API_INIT_H

#include "base/base.h"

/*
 * `wiretoll-api init`: prints {"ca_fingerprint", "admin_token"}. With a database (or NULL) it makes the user
 * `admin` and a one-time token for it, the first time only. When asked for a new token, that is for `admin`,
 * else the oldest admin; `admin` becomes one again when there is none. Logs what fails.
 */
WT_MUST_CHECK int init_run(const char *state_folder, const char *database_file, bool new_admin_token);

#endif
