// SPDX-License-Identifier: BSD-2-Clause
#include "agent/endpoints.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

#define FILE_MAX (16u << 20)

static int parse_port(const char *text, uint16_t *ret_port)
{
	char *end;
	unsigned long port;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	port = strtoul(text, &end, 10);
	if (*end != '\0' || port < 1 || port > UINT16_MAX)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

int endpoint_parse(const char *text, struct sockaddr_storage *ret_address)
{
	struct sockaddr_storage address = {0};
	struct sockaddr_in *four = (struct sockaddr_in *)&address;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN] = "";
	uint16_t port = 0;
	bool brackets = colon && text[0] == '[' && colon > text + 1 && colon[-1] == ']';
	size_t length;

	if (!colon || parse_port(colon + 1, &port) < 0)
		return -EINVAL;
	length = (size_t)(colon - text) - (brackets ? 2 : 0);
	if (length >= sizeof(host))
		return -EINVAL;
	memcpy(host, text + brackets, length);
	if (!brackets && inet_pton(AF_INET, host, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
	} else if (brackets && inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
	} else {
		return -EINVAL;
	}
	*ret_address = address;
	return 0;
}

const char *endpoint_format(const struct sockaddr_storage *address, char *buffer)
{
	const struct sockaddr_in *four = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
	char host[INET6_ADDRSTRLEN] = "";

	if (address->ss_family == AF_INET)
		snprintf(buffer, ENDPOINT_NUMERIC_SIZE, "%s:%u",
			 inet_ntop(AF_INET, &four->sin_addr, host, sizeof(host)), ntohs(four->sin_port));
	else if (address->ss_family == AF_INET6)
		snprintf(buffer, ENDPOINT_NUMERIC_SIZE, "[%s]:%u",
			 inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof(host)), ntohs(six->sin6_port));
	else
		buffer[0] = '\0';
	return buffer;
}

/* Where the peer is, or would be put: the book is sorted by id. */
static size_t place_of(const struct endpoints *endpoints, const uint8_t *peer_id)
{
	size_t low = 0, high = endpoints->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (memcmp(endpoints->items[middle].peer_id, peer_id, UUID_SIZE) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct endpoint *find(const struct endpoints *endpoints, const uint8_t *peer_id)
{
	size_t place = place_of(endpoints, peer_id);

	if (place == endpoints->count || !uuid_equal(endpoints->items[place].peer_id, peer_id))
		return NULL;
	return &endpoints->items[place];
}

const struct endpoint *endpoints_find(const struct endpoints *endpoints,
				      const uint8_t peer_id[static UUID_SIZE])
{
	return find(endpoints, peer_id);
}

static int add(struct endpoints *endpoints, const uint8_t *peer_id, struct endpoint **ret_endpoint)
{
	struct endpoint *larger = endpoints->items;
	size_t place = place_of(endpoints, peer_id);

	if (endpoints->count == endpoints->size) {
		size_t size = endpoints->size ? endpoints->size * 2 : 16;

		larger = realloc(endpoints->items, size * sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		endpoints->items = larger;
		endpoints->size = size;
	}
	memmove(larger + place + 1, larger + place, (endpoints->count - place) * sizeof(*larger));
	endpoints->count++;
	*ret_endpoint = &larger[place];
	**ret_endpoint = (struct endpoint){0};
	memcpy((*ret_endpoint)->peer_id, peer_id, UUID_SIZE);
	return 0;
}

int endpoints_put(struct endpoints *endpoints, const uint8_t peer_id[static UUID_SIZE],
		  const struct sockaddr_storage *address)
{
	struct endpoint *endpoint = find(endpoints, peer_id);
	char before[ENDPOINT_NUMERIC_SIZE] = "", after[ENDPOINT_NUMERIC_SIZE];
	int r = 0;

	if (address->ss_family == AF_UNSPEC)
		return 0;
	if (!endpoint)
		r = add(endpoints, peer_id, &endpoint);
	if (r < 0)
		return r;
	if (strcmp(endpoint_format(&endpoint->address, before), endpoint_format(address, after)) != 0) {
		endpoint->address = *address;
		endpoints->changed = true;
	}
	return 0;
}

void endpoints_forget(struct endpoints *endpoints, const uint8_t peer_id[static UUID_SIZE])
{
	struct endpoint *endpoint = find(endpoints, peer_id);

	if (!endpoint)
		return;
	endpoints->count--;
	memmove(endpoint, endpoint + 1,
		(size_t)(endpoints->items + endpoints->count - endpoint) * sizeof(*endpoint));
	endpoints->changed = true;
}

int endpoints_load(const char *base, struct endpoints *ret_endpoints)
{
	json_t *object _cleanup_json_ = NULL;
	char path[PATH_MAX], *text _cleanup_free_ = NULL;
	struct endpoints endpoints = {0};
	const char *key;
	json_t *value;
	size_t length = 0;
	int r = 0;

	snprintf(path, sizeof(path), "%s/endpoints.json", base);
	if (file_read(path, FILE_MAX, &text, &length) == 0)
		object = json_loadb(text, length, 0, NULL);
	json_object_foreach (object, key, value) {
		struct sockaddr_storage address;
		uint8_t peer_id[UUID_SIZE];

		if (r == 0 && uuid_parse(key, peer_id) == 0 && json_is_string(value) &&
		    endpoint_parse(json_string_value(value), &address) == 0)
			r = endpoints_put(&endpoints, peer_id, &address);
	}
	if (r < 0) {
		endpoints_free(&endpoints);
		return r;
	}
	endpoints.changed = false;
	*ret_endpoints = endpoints;
	return 0;
}

int endpoints_save(const char *base, struct endpoints *endpoints)
{
	json_t *object _cleanup_json_ = NULL;
	char path[PATH_MAX], *text _cleanup_free_ = NULL;
	int r;

	if (!endpoints->changed)
		return 0;
	object = json_object();
	for (size_t i = 0; i < endpoints->count; i++) {
		char id[UUID_TEXT_SIZE], address[ENDPOINT_NUMERIC_SIZE];

		if (json_object_set_new(object, uuid_format(endpoints->items[i].peer_id, id),
					json_string(endpoint_format(&endpoints->items[i].address, address))) <
		    0)
			return -ENOMEM;
	}
	text = json_dumps(object, JSON_INDENT(1));
	if (!text)
		return -ENOMEM;
	snprintf(path, sizeof(path), "%s/endpoints.json", base);
	r = file_replace(path, text, strlen(text), 0600);
	if (r == 0)
		endpoints->changed = false;
	return r;
}

void endpoints_free(struct endpoints *endpoints)
{
	free(endpoints->items);
	*endpoints = (struct endpoints){0};
}
