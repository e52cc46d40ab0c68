/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Preshared keys at rest: XChaCha20-Poly1305 under a key that lives in a file apart from the database. The
 * associated data names owner, gateway and peer, so that a ciphertext moved to another row does not open.
 */
#ifndef WIRETOLL_API_SEAL_H
#define WIRETOLL_API_SEAL_H

#include "base/base.h"
#include "base/key.h"

/* Key id, nonce, ciphertext and tag as "\x…" and its NUL. */
#define SEALED_TEXT_SIZE (2 + 2 * (1 + 24 + KEY_SIZE + 16) + 1)

struct sealing_key {
	uint8_t id; /* stands in each ciphertext, so that keys can be changed */
	uint8_t bytes[32];
};

/* Reads the key of 32 bytes from its file. -EINVAL when the file has another size. */
WT_MUST_CHECK int sealing_key_load(const char *path, struct sealing_key *ret_key);

/* Writes a new key to the file (0600) unless it exists. */
WT_MUST_CHECK int sealing_key_create(const char *path);

void seal_preshared_key(const struct sealing_key *sealing, const char *owner, const char *gateway,
			const char *peer, const struct key *key, char ret_bytea[static SEALED_TEXT_SIZE]);

/* Opens what the database holds ("\x…"). -EBADMSG when it is not sealed for this row by this key. */
WT_MUST_CHECK int unseal_preshared_key(const struct sealing_key *sealing, const char *owner,
				       const char *gateway, const char *peer, const char *bytea,
				       struct key *ret_key);

#endif
