/* SPDX-License-Identifier: BSD-2-Clause */
/* Bearer tokens: 32 random bytes as base64url. The database knows only their hash. */
#ifndef WIRETOLL_API_TOKEN_H
#define WIRETOLL_API_TOKEN_H

#include "base/base.h"

#define TOKEN_TEXT_SIZE 44 /* with the NUL */
#define TOKEN_HASH_SIZE 67 /* "\x" and 64 hexadecimal digits, as PostgreSQL reads bytea, and the NUL */

/* Makes a token; wipe the buffer with sodium_memzero() when it has been handed over. */
void token_generate(char ret_text[static TOKEN_TEXT_SIZE]);

/* BLAKE2b-256 of the token's text. */
void token_hash(const char *text, char ret_hash[static TOKEN_HASH_SIZE]);

#endif
