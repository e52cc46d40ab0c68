// SPDX-License-Identifier: BSD-2-Clause
#include "seal.h"

#include "base/file.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NONCE_SIZE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_SIZE   crypto_aead_xchacha20poly1305_ietf_ABYTES
#define BLOB_SIZE  (1 + NONCE_SIZE + KEY_SIZE + TAG_SIZE)

_Static_assert(SEALED_TEXT_SIZE == 2 + 2 * BLOB_SIZE + 1, "the header's sizes are libsodium's");

int sealing_key_load(const char *path, struct sealing_key *ret_key)
{
	char *text;
	size_t length;
	int r;

	r = file_read(path, 4096, &text, &length);
	if (r < 0)
		return r;
	if (length == sizeof(ret_key->bytes)) {
		memcpy(ret_key->bytes, text, length);
		ret_key->id = 1;
	} else {
		r = -EINVAL;
	}
	sodium_memzero(text, length);
	free(text);
	return r;
}

int sealing_key_create(const char *path)
{
	uint8_t key[32];
	int r;

	if (access(path, F_OK) == 0)
		return 0;
	randombytes_buf(key, sizeof(key));
	r = file_replace(path, key, sizeof(key), 0600);
	sodium_memzero(key, sizeof(key));
	return r;
}

static int associated_data(char *buffer, size_t size, const char *owner, const char *gateway,
			   const char *peer)
{
	return snprintf(buffer, size, "peer:%s:%s:%s", owner, gateway, peer);
}

void seal_preshared_key(const struct sealing_key *sealing, const char *owner, const char *gateway,
			const char *peer, const struct key *key, char ret_bytea[static SEALED_TEXT_SIZE])
{
	uint8_t blob[BLOB_SIZE];
	char data[160];
	int length = associated_data(data, sizeof(data), owner, gateway, peer);

	blob[0] = sealing->id;
	randombytes_buf(blob + 1, NONCE_SIZE);
	crypto_aead_xchacha20poly1305_ietf_encrypt(blob + 1 + NONCE_SIZE, NULL, key->bytes, KEY_SIZE,
						   (const uint8_t *)data, (unsigned)length, NULL, blob + 1,
						   sealing->bytes);
	memcpy(ret_bytea, "\\x", 2);
	sodium_bin2hex(ret_bytea + 2, SEALED_TEXT_SIZE - 2, blob, sizeof(blob));
}

int unseal_preshared_key(const struct sealing_key *sealing, const char *owner, const char *gateway,
			 const char *peer, const char *bytea, struct key *ret_key)
{
	uint8_t blob[BLOB_SIZE];
	struct key key;
	size_t size;
	char data[160];
	int length = associated_data(data, sizeof(data), owner, gateway, peer);

	if (strncmp(bytea, "\\x", 2) != 0 ||
	    sodium_hex2bin(blob, sizeof(blob), bytea + 2, strlen(bytea + 2), NULL, &size, NULL) != 0 ||
	    size != sizeof(blob) || blob[0] != sealing->id)
		return -EBADMSG;
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(key.bytes, NULL, NULL, blob + 1 + NONCE_SIZE,
						       KEY_SIZE + TAG_SIZE, (const uint8_t *)data,
						       (unsigned)length, blob + 1, sealing->bytes) != 0)
		return -EBADMSG;
	*ret_key = key;
	key_wipe(&key);
	return 0;
}
