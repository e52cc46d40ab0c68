// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/bootstrap.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CA_SIZE   (256 * 1024)
#define MAX_NOTE_SIZE 4096

void bootstrap_make_token(char token[static BOOTSTRAP_TOKEN_SIZE],
			  unsigned char hash[static BOOTSTRAP_HASH_SIZE])
{
	unsigned char bytes[32];

	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2base64(token, BOOTSTRAP_TOKEN_SIZE, bytes, sizeof(bytes),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	crypto_generichash(hash, BOOTSTRAP_HASH_SIZE, (const unsigned char *)token, strlen(token), NULL, 0);
	sodium_memzero(bytes, sizeof(bytes));
}

bool bootstrap_is_valid(const char *note, unsigned attempt)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *json = NULL;
	const char *expires;
	int64_t at;

	if (file_read(note, MAX_NOTE_SIZE, &text, NULL) < 0)
		return false;
	json = json_loads(text, 0, NULL);
	expires = json_string_value(json_object_get(json, "expires"));
	return expires && clock_parse(expires, &at) == 0 && at > clock_utc_ns() &&
	       json_integer_value(json_object_get(json, "attempt")) == (json_int_t)attempt;
}

static int address_of(const struct ifaddrs *entry, struct cidr *ret_address)
{
	if (entry->ifa_addr->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)entry->ifa_addr;

		*ret_address = (struct cidr){.family = AF_INET, .prefix_length = 32};
		memcpy(ret_address->bytes, &in->sin_addr, 4);
		return 0;
	}
	if (entry->ifa_addr->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)entry->ifa_addr;

		*ret_address = (struct cidr){.family = AF_INET6, .prefix_length = 128};
		memcpy(ret_address->bytes, &in6->sin6_addr, 16);
		return 0;
	}
	return -EAFNOSUPPORT;
}

/* The host's addresses on the bridge that lie in the gateway's own subnet: reached without any router. */
static json_t *api_addresses(const struct deploy_host *host, const struct deploy_link *link)
{
	struct cidr subnet = cidr_network(&link->address), address;
	json_t *list = json_array();
	struct ifaddrs *all;
	char text[CIDR_TEXT_SIZE];

	if (getifaddrs(&all) < 0)
		return list;
	for (const struct ifaddrs *entry = all; entry; entry = entry->ifa_next) {
		if (!entry->ifa_addr || strcmp(entry->ifa_name, link->bridge) != 0)
			continue;
		if (address_of(entry, &address) < 0 || !cidr_contains(&subnet, &address))
			continue;
		json_array_append_new(list,
				      json_pack("{s:s, s:i}", "address", cidr_format_address(&address, text),
						"port", host->api_port));
	}
	freeifaddrs(all);
	return list;
}

static int render(const struct deploy_host *host, const struct deploy_spec *spec, const char *token,
		  const char *expires, char **ret_text)
{
	_cleanup_json_ json_t *addresses = api_addresses(host, &spec->public_link);
	_cleanup_json_ json_t *json = NULL;
	_cleanup_free_ char *ca = NULL;
	int r;

	if (json_array_size(addresses) == 0)
		return -EADDRNOTAVAIL;
	r = file_read(host->ca_file, MAX_CA_SIZE, &ca, NULL);
	if (r < 0)
		return r;
	json = json_pack("{s:s, s:i, s:s, s:O, s:s, s:s, s:s}", "gateway", spec->gateway, "attempt",
			 (int)spec->attempt, "interface", spec->interface, "api", addresses, "ca_pem", ca,
			 "one_time_token", token, "expires", expires);
	*ret_text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	return *ret_text ? 0 : -ENOMEM;
}

static int write_as(uid_t uid, const char *path, const char *text)
{
	int r;

	/* With the gateway's rights: the folder is its own, and what lies there may be anything. */
	if (setegid(uid) < 0 || seteuid(uid) < 0)
		r = -errno;
	else
		r = file_replace(path, text, strlen(text), 0600);
	if (seteuid(0) < 0 || setegid(0) < 0)
		r = -errno;
	return r;
}

static int write_note(const char *path, unsigned attempt, const char *expires)
{
	_cleanup_json_ json_t *json = json_pack("{s:i, s:s}", "attempt", (int)attempt, "expires", expires);
	_cleanup_free_ char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	return text ? file_replace(path, text, strlen(text), 0600) : -ENOMEM;
}

int bootstrap_write(const struct deploy_host *host, const struct deploy_spec *spec, const char *path,
		    const char *note, const char *token)
{
	char expires[CLOCK_TEXT_SIZE];
	char *text;
	int r;

	clock_format(clock_utc_ns() + BOOTSTRAP_TOKEN_LIFETIME, expires);
	r = render(host, spec, token, expires, &text);
	if (r < 0)
		return r;
	r = write_as(host->first_uid + spec->uid_number, path, text);
	sodium_memzero(text, strlen(text));
	free(text);
	return r == 0 ? write_note(note, spec->attempt, expires) : r;
}
