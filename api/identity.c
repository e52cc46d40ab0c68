// SPDX-License-Identifier: BSD-2-Clause
#include "identity.h"

#include "base/file.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHAIN 4
#define MAX_PEM   65536

struct identity {
	gnutls_pcert_st chain[MAX_CHAIN];
	unsigned length;
	gnutls_privkey_t key;
	struct identity *older; /* a handshake may still be at it; there is one a year */
};

static _Atomic(struct identity *) newest;

static void release(struct identity *identity)
{
	for (unsigned i = 0; i < identity->length; i++)
		gnutls_pcert_deinit(&identity->chain[i]);
	if (identity->key)
		gnutls_privkey_deinit(identity->key);
	free(identity);
}

static int parse(struct identity *identity, const gnutls_datum_t *pem)
{
	unsigned length = MAX_CHAIN;
	int r = gnutls_pcert_list_import_x509_raw(identity->chain, &length, pem, GNUTLS_X509_FMT_PEM, 0);

	if (r < 0)
		return -EBADMSG;
	identity->length = length;
	r = gnutls_privkey_init(&identity->key);
	if (r == 0)
		r = gnutls_privkey_import_x509_raw(identity->key, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
	return r == 0 ? 0 : -EBADMSG;
}

static bool shows_the_same(const struct identity *a, const struct identity *b)
{
	const gnutls_datum_t *left = &a->chain[0].cert, *right = &b->chain[0].cert;

	return left->size == right->size && memcmp(left->data, right->data, left->size) == 0;
}

int identity_load(const char *pem_file)
{
	struct identity *identity, *before = atomic_load(&newest);
	gnutls_datum_t pem;
	size_t length;
	char *text;
	int r;

	r = file_read(pem_file, MAX_PEM, &text, &length);
	if (r < 0)
		return r;
	identity = calloc(1, sizeof(*identity));
	pem = (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned)length};
	r = identity ? parse(identity, &pem) : -ENOMEM;
	sodium_memzero(text, length);
	free(text);
	if (r == 0 && !(before && shows_the_same(before, identity))) {
		identity->older = before;
		atomic_store(&newest, identity);
		return 1;
	}
	if (identity)
		release(identity);
	return r;
}

int identity_show(gnutls_session_t session, const gnutls_datum_t *authorities, int n_authorities,
		  const gnutls_pk_algorithm_t *algorithms, int n_algorithms, gnutls_pcert_st **ret_chain,
		  unsigned *ret_length, gnutls_privkey_t *ret_key)
{
	struct identity *identity = atomic_load(&newest);

	(void)session;
	(void)authorities;
	(void)n_authorities;
	(void)algorithms;
	(void)n_algorithms;
	if (!identity)
		return -1;
	*ret_chain = identity->chain;
	*ret_length = identity->length;
	*ret_key = identity->key;
	return 0;
}

void identity_free(void)
{
	struct identity *identity = atomic_exchange(&newest, NULL);

	while (identity) {
		struct identity *older = identity->older;

		release(identity);
		identity = older;
	}
}
