// SPDX-License-Identifier: BSD-2-Clause
#include "certificate.h"

#include "base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DAY           (24 * 3600)
#define CA_LIFETIME   (3650 * DAY)
#define LEAF_LIFETIME (365 * DAY)
#define RENEW_BEFORE  (30 * DAY)
#define CLOCK_SLACK   DAY /* a gateway's clock may be behind */
#define MAX_ADDRESSES 64
#define MAX_PEM       65536
#define SERIAL_SIZE   16

/* A certificate with its private key. */
struct pair {
	gnutls_x509_crt_t certificate;
	gnutls_x509_privkey_t key;
};

struct identifier {
	uint8_t bytes[64];
	size_t size;
};

struct address {
	unsigned length; /* 4 or 16 */
	uint8_t bytes[16];
};

enum state { UNFIT, OF_OLD_FORM, GOOD };

struct addresses {
	size_t n;
	struct address items[MAX_ADDRESSES];
};

static int error_of(int gnutls_error)
{
	switch (gnutls_error) {
	case GNUTLS_E_SUCCESS:
		return 0;
	case GNUTLS_E_MEMORY_ERROR:
		return -ENOMEM;
	default:
		return -EBADMSG;
	}
}

static void pair_free(struct pair *pair)
{
	if (pair->certificate)
		gnutls_x509_crt_deinit(pair->certificate);
	if (pair->key)
		gnutls_x509_privkey_deinit(pair->key);
}

static int pair_init(struct pair *pair)
{
	int r = gnutls_x509_crt_init(&pair->certificate);

	if (r == 0)
		r = gnutls_x509_privkey_init(&pair->key);
	return error_of(r);
}

static int read_pem(const char *folder, const char *name, gnutls_datum_t *ret_text)
{
	char path[PATH_MAX], *text;
	size_t length;
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	r = file_read(path, MAX_PEM, &text, &length);
	if (r < 0)
		return r;
	ret_text->data = (unsigned char *)text;
	ret_text->size = (unsigned)length;
	return 0;
}

static void wipe_datum(gnutls_datum_t *text)
{
	if (text->data)
		sodium_memzero(text->data, text->size);
	free(text->data);
	memset(text, 0, sizeof(*text));
}

static int load_certificate(const char *folder, const char *name, gnutls_x509_crt_t certificate)
{
	gnutls_datum_t text = {0};
	int r;

	r = read_pem(folder, name, &text);
	if (r == 0)
		r = error_of(gnutls_x509_crt_import(certificate, &text, GNUTLS_X509_FMT_PEM));
	wipe_datum(&text);
	return r;
}

static int load_key(const char *folder, const char *name, gnutls_x509_privkey_t key)
{
	gnutls_datum_t text = {0};
	int r;

	r = read_pem(folder, name, &text);
	if (r == 0)
		r = error_of(gnutls_x509_privkey_import(key, &text, GNUTLS_X509_FMT_PEM));
	wipe_datum(&text);
	return r;
}

/* What both kinds of certificate have: a new key, serial, name and lifetime. */
static int fill_common(struct pair *pair, const char *common_name, time_t lifetime)
{
	uint8_t serial[SERIAL_SIZE];
	time_t now = time(NULL);
	int r;

	randombytes_buf(serial, sizeof(serial));
	serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of full length */
	r = gnutls_x509_privkey_generate(pair->key, GNUTLS_PK_ECDSA,
					 GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	if (r == 0)
		r = gnutls_x509_crt_set_version(pair->certificate, 3);
	if (r == 0)
		r = gnutls_x509_crt_set_serial(pair->certificate, serial, sizeof(serial));
	if (r == 0)
		r = gnutls_x509_crt_set_activation_time(pair->certificate, now - CLOCK_SLACK);
	if (r == 0)
		r = gnutls_x509_crt_set_expiration_time(pair->certificate, now + lifetime);
	if (r == 0)
		r = gnutls_x509_crt_set_dn_by_oid(pair->certificate, GNUTLS_OID_X520_COMMON_NAME, 0,
						  common_name, (unsigned)strlen(common_name));
	if (r == 0)
		r = gnutls_x509_crt_set_key(pair->certificate, pair->key);
	return r;
}

/* What a certificate says of its own key; of one that says nothing, the key's hash. */
static int key_identifier(gnutls_x509_crt_t certificate, struct identifier *ret)
{
	int r;

	ret->size = sizeof(ret->bytes);
	r = gnutls_x509_crt_get_subject_key_id(certificate, ret->bytes, &ret->size, NULL);
	if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
		ret->size = sizeof(ret->bytes);
		r = gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA1, ret->bytes, &ret->size);
	}
	return r;
}

/* RFC 5280 4.2.1.1 and 4.2.1.2: clients that check strictly want both in what a CA has signed. */
static int set_key_identifiers(gnutls_x509_crt_t certificate, gnutls_x509_crt_t issuer)
{
	struct identifier own, authority;
	int r = key_identifier(certificate, &own);

	if (r == 0)
		r = gnutls_x509_crt_set_subject_key_id(certificate, own.bytes, own.size);
	if (r == 0)
		r = key_identifier(issuer, &authority);
	if (r == 0)
		r = gnutls_x509_crt_set_authority_key_id(certificate, authority.bytes, authority.size);
	return r;
}

static bool has_key_identifiers(gnutls_x509_crt_t certificate, gnutls_x509_crt_t issuer)
{
	struct identifier own = {.size = sizeof(own.bytes)}, named = {.size = sizeof(named.bytes)}, authority;

	return gnutls_x509_crt_get_subject_key_id(certificate, own.bytes, &own.size, NULL) == 0 &&
	       gnutls_x509_crt_get_authority_key_id(certificate, named.bytes, &named.size, NULL) == 0 &&
	       key_identifier(issuer, &authority) == 0 && named.size == authority.size &&
	       memcmp(named.bytes, authority.bytes, named.size) == 0;
}

static int make_authority(struct pair *ca)
{
	int r = fill_common(ca, "Wiretoll CA", CA_LIFETIME);

	if (r == 0)
		r = gnutls_x509_crt_set_basic_constraints(ca->certificate, 1, 0);
	if (r == 0)
		r = gnutls_x509_crt_set_key_usage(ca->certificate,
						  GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
	if (r == 0)
		r = set_key_identifiers(ca->certificate, ca->certificate);
	if (r == 0)
		r = gnutls_x509_crt_sign2(ca->certificate, ca->certificate, ca->key, GNUTLS_DIG_SHA256, 0);
	return error_of(r);
}

static int write_certificate(const char *folder, const char *name, gnutls_x509_crt_t certificate)
{
	gnutls_datum_t text = {0};
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	r = error_of(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &text));
	if (r == 0)
		r = file_replace(path, text.data, text.size, 0644);
	gnutls_free(text.data);
	return r;
}

static int write_key(const char *folder, const char *name, gnutls_x509_privkey_t key)
{
	gnutls_datum_t text = {0};
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	r = error_of(
		gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &text));
	if (r == 0)
		r = file_replace(path, text.data, text.size, 0600);
	if (text.data)
		sodium_memzero(text.data, text.size);
	gnutls_free(text.data);
	return r;
}

/* The key first: a certificate in place says that both are there. */
static int create_authority(const char *folder, struct pair *ca)
{
	int r = make_authority(ca);

	if (r == 0)
		r = write_key(folder, CA_KEY_FILE, ca->key);
	if (r == 0)
		r = write_certificate(folder, CA_CERTIFICATE_FILE, ca->certificate);
	return r;
}

static int fingerprint(gnutls_x509_crt_t certificate, char ret_text[static FINGERPRINT_SIZE])
{
	uint8_t hash[32];
	size_t size = sizeof(hash);
	int r = gnutls_x509_crt_get_fingerprint(certificate, GNUTLS_DIG_SHA256, hash, &size);

	if (r == 0)
		sodium_bin2hex(ret_text, FINGERPRINT_SIZE, hash, sizeof(hash));
	return error_of(r);
}

int certificate_authority(const char *folder, char ret_fingerprint[static FINGERPRINT_SIZE])
{
	struct pair ca = {0};
	int r;

	r = pair_init(&ca);
	if (r == 0)
		r = load_certificate(folder, CA_CERTIFICATE_FILE, ca.certificate);
	if (r == -ENOENT)
		r = create_authority(folder, &ca);
	if (r == 0)
		r = fingerprint(ca.certificate, ret_fingerprint);
	pair_free(&ca);
	return r;
}

static bool has_address(const struct addresses *set, const uint8_t *bytes, unsigned length)
{
	for (size_t i = 0; i < set->n; i++) {
		if (set->items[i].length == length && memcmp(set->items[i].bytes, bytes, length) == 0)
			return true;
	}
	return false;
}

static void add_address(struct addresses *set, const void *bytes, unsigned length)
{
	if (set->n == MAX_ADDRESSES || has_address(set, bytes, length))
		return;
	memcpy(set->items[set->n].bytes, bytes, length);
	set->items[set->n++].length = length;
}

/* Link-local addresses need a zone, which no certificate can hold. */
static int host_addresses(struct addresses *set)
{
	struct ifaddrs *all;

	add_address(set, &(struct in_addr){htonl(INADDR_LOOPBACK)}, 4);
	add_address(set, &in6addr_loopback, 16);
	if (getifaddrs(&all) < 0)
		return -errno;
	for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
		int family = one->ifa_addr ? one->ifa_addr->sa_family : AF_UNSPEC;
		const struct in6_addr *six = &((const struct sockaddr_in6 *)one->ifa_addr)->sin6_addr;

		if (family == AF_INET)
			add_address(set, &((const struct sockaddr_in *)one->ifa_addr)->sin_addr, 4);
		else if (family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(six))
			add_address(set, six, 16);
	}
	freeifaddrs(all);
	return 0;
}

static bool names_all(gnutls_x509_crt_t leaf, const struct addresses *wanted)
{
	struct addresses named = {0};
	uint8_t name[256];

	for (unsigned i = 0;; i++) {
		size_t size = sizeof(name);
		int type = gnutls_x509_crt_get_subject_alt_name(leaf, i, name, &size, NULL);

		if (type < 0)
			break;
		if (type == GNUTLS_SAN_IPADDRESS)
			add_address(&named, name, (unsigned)size);
	}
	for (size_t i = 0; i < wanted->n; i++) {
		if (!has_address(&named, wanted->items[i].bytes, wanted->items[i].length))
			return false;
	}
	return true;
}

/*
 * What to do with the server's certificate: it must be of this CA, name all the addresses and be good for a
 * while. One without the identifiers that newer clients want is made anew, too, but goes on where the CA's
 * key is kept elsewhere.
 */
static enum state state_of(const char *folder, gnutls_x509_crt_t authority, const struct addresses *wanted)
{
	struct pair leaf = {0};
	enum state state = UNFIT;

	if (pair_init(&leaf) == 0 && load_certificate(folder, SERVER_PEM_FILE, leaf.certificate) == 0 &&
	    gnutls_x509_crt_check_issuer(leaf.certificate, authority) == 1 &&
	    gnutls_x509_crt_get_expiration_time(leaf.certificate) > time(NULL) + RENEW_BEFORE &&
	    names_all(leaf.certificate, wanted))
		state = has_key_identifiers(leaf.certificate, authority) ? GOOD : OF_OLD_FORM;
	pair_free(&leaf);
	return state;
}

static int set_names(gnutls_x509_crt_t leaf, const struct addresses *addresses)
{
	static const char *const names[] = {"wiretoll-api", "localhost"};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++)
		r = gnutls_x509_crt_set_subject_alt_name(leaf, GNUTLS_SAN_DNSNAME, names[i],
							 (unsigned)strlen(names[i]), GNUTLS_FSAN_APPEND);
	for (size_t i = 0; i < addresses->n && r == 0; i++)
		r = gnutls_x509_crt_set_subject_alt_name(leaf, GNUTLS_SAN_IPADDRESS,
							 addresses->items[i].bytes,
							 addresses->items[i].length, GNUTLS_FSAN_APPEND);
	return r;
}

static int make_leaf(struct pair *leaf, const struct pair *ca, const struct addresses *addresses)
{
	int r = fill_common(leaf, "wiretoll-api", LEAF_LIFETIME);

	if (r == 0)
		r = set_names(leaf->certificate, addresses);
	if (r == 0)
		r = gnutls_x509_crt_set_basic_constraints(leaf->certificate, 0, -1);
	if (r == 0)
		r = gnutls_x509_crt_set_key_usage(leaf->certificate, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (r == 0)
		r = gnutls_x509_crt_set_key_purpose_oid(leaf->certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (r == 0)
		r = set_key_identifiers(leaf->certificate, ca->certificate);
	if (r == 0)
		r = gnutls_x509_crt_sign2(leaf->certificate, ca->certificate, ca->key, GNUTLS_DIG_SHA256, 0);
	return error_of(r);
}

/* Clients pin the CA by what the server presents, so that the chain holds it too. */
static int write_server(const char *folder, const struct pair *leaf, const struct pair *ca)
{
	gnutls_datum_t key = {0}, certificate = {0}, authority = {0};
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX];
	int length, r;

	r = gnutls_x509_privkey_export2_pkcs8(leaf->key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &key);
	if (r == 0)
		r = gnutls_x509_crt_export2(leaf->certificate, GNUTLS_X509_FMT_PEM, &certificate);
	if (r == 0)
		r = gnutls_x509_crt_export2(ca->certificate, GNUTLS_X509_FMT_PEM, &authority);
	r = error_of(r);
	length = r < 0 ? 0 : asprintf(&text, "%s%s%s", key.data, certificate.data, authority.data);
	if (length < 0)
		r = -ENOMEM;
	if (r == 0) {
		snprintf(path, sizeof(path), "%s/" SERVER_PEM_FILE, folder);
		r = file_replace(path, text, (size_t)length, 0600);
		sodium_memzero(text, (size_t)length);
	}
	if (key.data)
		sodium_memzero(key.data, key.size);
	gnutls_free(key.data);
	gnutls_free(certificate.data);
	gnutls_free(authority.data);
	return r;
}

static int renew(const char *folder, struct pair *ca, const struct addresses *addresses)
{
	struct pair leaf = {0};
	int r;

	r = load_key(folder, CA_KEY_FILE, ca->key);
	if (r == 0)
		r = pair_init(&leaf);
	if (r == 0)
		r = make_leaf(&leaf, ca, addresses);
	if (r == 0)
		r = write_server(folder, &leaf, ca);
	pair_free(&leaf);
	return r;
}

int certificate_renew(const char *folder)
{
	struct addresses addresses = {0};
	enum state state = UNFIT;
	struct pair ca = {0};
	int r;

	r = host_addresses(&addresses);
	if (r == 0)
		r = pair_init(&ca);
	if (r == 0)
		r = load_certificate(folder, CA_CERTIFICATE_FILE, ca.certificate);
	if (r == 0)
		state = state_of(folder, ca.certificate, &addresses);
	if (r == 0 && state != GOOD)
		r = renew(folder, &ca, &addresses);
	if (r == -ENOENT && state == OF_OLD_FORM)
		r = 0;
	pair_free(&ca);
	return r;
}
