/* SPDX-License-Identifier: BSD-2-Clause */
/* What the commands about peers share. */
#ifndef WIRETOLL_CLI_PEER_H
#define WIRETOLL_CLI_PEER_H

#include "base/base.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/values.h"

/* The argument GATEWAY/PEER. Returns WRONG_USAGE with a problem. */
WT_MUST_CHECK int peer_argument(struct session *session, const struct arguments *arguments,
				struct peer_name *ret_name);

/* The peer's path in the API. The caller frees it; NULL without memory. */
char *peer_path(const struct peer_name *name);

/* Downloads the peer's configuration. The caller wipes and frees it. Returns -errno with a problem. */
WT_MUST_CHECK int peer_config(struct session *session, const struct peer_name *name, char **ret_text);

/*
 * Adds `preshared_key` to a request as --preshared-key-file or --generate-preshared-key ask. Returns -errno
 * or WRONG_USAGE with a problem.
 */
WT_MUST_CHECK int peer_preshared_key(struct session *session, const struct arguments *arguments,
				     json_t *body);

/* Says on standard error when a secret is about to go to a file that everybody may read. */
void warn_of_readers(void);

#endif
