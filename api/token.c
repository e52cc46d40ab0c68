// SPDX-License-Identifier: BSD-2-Clause
#include "token.h"

#include <sodium.h>
#include <string.h>

void token_generate(char ret_text[static TOKEN_TEXT_SIZE])
{
	uint8_t random[32];

	randombytes_buf(random, sizeof(random));
	sodium_bin2base64(ret_text, TOKEN_TEXT_SIZE, random, sizeof(random),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(random, sizeof(random));
}

void token_hash(const char *text, char ret_hash[static TOKEN_HASH_SIZE])
{
	uint8_t hash[32];

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)text, strlen(text), NULL, 0);
	memcpy(ret_hash, "\\x", 2);
	sodium_bin2hex(ret_hash + 2, TOKEN_HASH_SIZE - 2, hash, sizeof(hash));
}
