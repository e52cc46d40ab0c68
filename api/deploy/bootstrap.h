/* SPDX-License-Identifier: BSD-2-Clause */
/* The file with which an agent introduces itself; see docs/agent-protocol.md. */
#ifndef WIRETOLL_DEPLOY_BOOTSTRAP_H
#define WIRETOLL_DEPLOY_BOOTSTRAP_H

#include "deploy/driver.h"

#define BOOTSTRAP_TOKEN_SIZE     44 /* 32 random bytes in unpadded base64url, and the NUL */
#define BOOTSTRAP_HASH_SIZE      32 /* BLAKE2b-256 of the token's text: all that the database knows */
#define BOOTSTRAP_TOKEN_LIFETIME (15 * 60 * NSEC_PER_SEC)

/* A new one-time token. The caller wipes it. */
void bootstrap_make_token(char token[static BOOTSTRAP_TOKEN_SIZE],
			  unsigned char hash[static BOOTSTRAP_HASH_SIZE]);

/* Whether this attempt has a token that has not expired, by root's own note of it. */
bool bootstrap_is_valid(const char *note, unsigned attempt);

/*
 * Writes the file as the gateway's uid, in its own folder, and then the note. -EADDRNOTAVAIL when the host
 * has no address on the public bridge that the gateway could reach the API at.
 */
WT_MUST_CHECK int bootstrap_write(const struct deploy_host *host, const struct deploy_spec *spec,
				  const char *path, const char *note, const char *token);

#endif
