/* SPDX-License-Identifier: BSD-2-Clause */
/* WireGuard keys: 32 bytes, written as 44 characters of base64. */
#ifndef WIRETOLL_BASE_KEY_H
#define WIRETOLL_BASE_KEY_H

#include "base/base.h"

#define KEY_SIZE      32
#define KEY_TEXT_SIZE 45 /* with the NUL */

struct key {
	uint8_t bytes[KEY_SIZE];
};

/* A new private key (clamped, from the kernel's generator) or, unclamped, a preshared key. */
void key_generate_private(struct key *ret_key);
void key_generate_preshared(struct key *ret_key);

/* The public key of a private one. Returns -EINVAL for a key that has none. */
WT_MUST_CHECK int key_public(const struct key *private_key, struct key *ret_public);

/*
 * Parses exactly 44 characters of canonical base64, in constant time as `wg` does. Returns -EINVAL. Callers
 * name the field in their message and never quote the text: it may be a private key.
 */
WT_MUST_CHECK int key_parse(const char *text, struct key *ret_key);

/* Writes KEY_TEXT_SIZE bytes; returns the buffer. */
const char *key_format(const struct key *key, char *buffer);

/* UAPI writes keys as 64 lower-case hexadecimal digits. */
WT_MUST_CHECK int key_parse_hex(const char *text, size_t length, struct key *ret_key);
void key_format_hex(const struct key *key, char buffer[static 65]);

bool key_equal(const struct key *a, const struct key *b);
bool key_is_zero(const struct key *key);

/*
 * Whether a handshake with the owner of this public key can ever succeed: false for the points of small order
 * (zero is one of them), with which every private key agrees on zero (RFC 7748, section 6.1), and for what is
 * no key of anybody: computed ones are less than 2^255 - 19, and WireGuard finds a peer by the very bytes.
 */
bool key_can_agree(const struct key *public_key);

/* Overwrites the key in a way that no optimiser removes. For WT_CLEANUP, too. */
void key_wipe(struct key *key);

#endif
