// SPDX-License-Identifier: BSD-2-Clause
#include "base/key.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

void key_generate_preshared(struct key *ret_key)
{
	randombytes_buf(ret_key->bytes, KEY_SIZE);
}

void key_generate_private(struct key *ret_key)
{
	randombytes_buf(ret_key->bytes, KEY_SIZE);
	/* The clamping of RFC 7748, section 5, as `wg genkey` stores it. */
	ret_key->bytes[0] &= 248;
	ret_key->bytes[31] = (uint8_t)((ret_key->bytes[31] & 127) | 64);
}

int key_public(const struct key *private_key, struct key *ret_public)
{
	return crypto_scalarmult_base(ret_public->bytes, private_key->bytes) == 0 ? 0 : -EINVAL;
}

int key_parse(const char *text, struct key *ret_key)
{
	struct key WT_CLEANUP(key_wipe) key;
	char canonical[KEY_TEXT_SIZE];
	const char *end = NULL;
	size_t length = 0;
	int r = -EINVAL;

	if (strlen(text) != KEY_TEXT_SIZE - 1)
		return -EINVAL;
	if (sodium_base642bin(key.bytes, KEY_SIZE, text, KEY_TEXT_SIZE - 1, NULL, &length, &end,
			      sodium_base64_VARIANT_ORIGINAL) != 0 ||
	    length != KEY_SIZE || *end != '\0')
		return -EINVAL;
	/* The last character carries four unused bits; only zeros there are accepted. */
	if (sodium_memcmp(key_format(&key, canonical), text, KEY_TEXT_SIZE - 1) == 0) {
		*ret_key = key;
		r = 0;
	}
	sodium_memzero(canonical, sizeof(canonical));
	return r;
}

const char *key_format(const struct key *key, char *buffer)
{
	return sodium_bin2base64(buffer, KEY_TEXT_SIZE, key->bytes, KEY_SIZE, sodium_base64_VARIANT_ORIGINAL);
}

int key_parse_hex(const char *text, size_t length, struct key *ret_key)
{
	struct key WT_CLEANUP(key_wipe) key;
	size_t parsed = 0;

	if (length != 2 * KEY_SIZE ||
	    sodium_hex2bin(key.bytes, KEY_SIZE, text, length, NULL, &parsed, NULL) != 0 || parsed != KEY_SIZE)
		return -EINVAL;
	*ret_key = key;
	return 0;
}

void key_format_hex(const struct key *key, char buffer[static 65])
{
	sodium_bin2hex(buffer, 65, key->bytes, KEY_SIZE);
}

bool key_equal(const struct key *a, const struct key *b)
{
	return sodium_memcmp(a->bytes, b->bytes, KEY_SIZE) == 0;
}

bool key_is_zero(const struct key *key)
{
	return sodium_is_zero(key->bytes, KEY_SIZE);
}

/* Less than 2^255 - 19, the least significant byte first. */
static bool is_reduced(const struct key *public_key)
{
	const uint8_t *bytes = public_key->bytes;

	if (bytes[31] != 0x7f)
		return bytes[31] < 0x7f;
	for (size_t i = 30; i > 0; i--) {
		if (bytes[i] != 0xff)
			return true;
	}
	return bytes[0] < 0xed;
}

bool key_can_agree(const struct key *public_key)
{
	static const struct key any_private = {{1}};
	struct key shared;

	/* Clamped, every private key is a multiple of 8, which all of the small orders divide. */
	return is_reduced(public_key) &&
	       crypto_scalarmult(shared.bytes, any_private.bytes, public_key->bytes) == 0;
}

void key_wipe(struct key *key)
{
	sodium_memzero(key, sizeof(*key));
}
