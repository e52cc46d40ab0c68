// SPDX-License-Identifier: BSD-2-Clause
#include "wg/uapi_text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Decimal digits only; strtoull() would take signs and spaces. */
static int parse_number(const char *text, uint64_t max, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (*text == '\0')
		return -EPROTO;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || __builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
			return -EPROTO;
	}
	if (number > max)
		return -EPROTO;
	*ret_number = number;
	return 0;
}

static int parse_u16(const char *text, uint16_t *ret_number)
{
	uint64_t number;
	int r = parse_number(text, UINT16_MAX, &number);

	if (r == 0)
		*ret_number = (uint16_t)number;
	return r;
}

static int parse_u32(const char *text, uint32_t *ret_number)
{
	uint64_t number;
	int r = parse_number(text, UINT32_MAX, &number);

	if (r == 0)
		*ret_number = (uint32_t)number;
	return r;
}

static int parse_hex(const char *text, struct key *ret_key)
{
	return key_parse_hex(text, strlen(text), ret_key) < 0 ? -EPROTO : 0;
}

/* A link-local address names its interface behind a percent sign, by name or by index. */
static int parse_scope(const char *text, uint32_t *ret_scope)
{
	uint64_t index = if_nametoindex(text);

	if (index == 0 && parse_number(text, UINT32_MAX, &index) < 0)
		return -EPROTO;
	*ret_scope = (uint32_t)index;
	return 0;
}

static int parse_ipv6_endpoint(char *address, uint16_t port, struct sockaddr_storage *ret_endpoint)
{
	struct sockaddr_in6 endpoint = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	size_t length = strlen(address);
	char *scope;

	if (length < 2 || address[length - 1] != ']')
		return -EPROTO;
	address[length - 1] = '\0';
	scope = strchr(address, '%');
	if (scope) {
		*scope = '\0';
		if (parse_scope(scope + 1, &endpoint.sin6_scope_id) < 0)
			return -EPROTO;
	}
	if (inet_pton(AF_INET6, address + 1, &endpoint.sin6_addr) != 1)
		return -EPROTO;
	*ret_endpoint = (struct sockaddr_storage){0};
	memcpy(ret_endpoint, &endpoint, sizeof(endpoint));
	return 0;
}

/* "192.0.2.1:51820" or "[2001:db8::1]:51820". */
static int parse_endpoint(const char *text, struct sockaddr_storage *ret_endpoint)
{
	struct sockaddr_in endpoint = {.sin_family = AF_INET};
	char address[WG_UAPI_LINE_SIZE];
	char *colon;
	uint16_t port;

	if (strlen(text) >= sizeof(address))
		return -EPROTO;
	memcpy(address, text, strlen(text) + 1);
	colon = strrchr(address, ':');
	if (!colon || parse_u16(colon + 1, &port) < 0)
		return -EPROTO;
	*colon = '\0';
	if (address[0] == '[')
		return parse_ipv6_endpoint(address, port, ret_endpoint);
	endpoint.sin_port = htons(port);
	if (inet_pton(AF_INET, address, &endpoint.sin_addr) != 1)
		return -EPROTO;
	*ret_endpoint = (struct sockaddr_storage){0};
	memcpy(ret_endpoint, &endpoint, sizeof(endpoint));
	return 0;
}

/* Lines of the interface's part. */
static int read_private_key(struct wg_device *device, const char *value)
{
	struct key WT_CLEANUP(key_wipe) private_key;
	int r = parse_hex(value, &private_key);

	if (r < 0 || key_is_zero(&private_key))
		return r;
	return key_public(&private_key, &device->public_key) < 0 ? -EPROTO : 0;
}

static int read_interface_value(struct wg_device *device, const char *name, const char *value)
{
	if (strcmp(name, "private_key") == 0)
		return read_private_key(device, value);
	if (strcmp(name, "listen_port") == 0)
		return parse_u16(value, &device->listen_port);
	if (strcmp(name, "fwmark") == 0)
		return parse_u32(value, &device->mark);
	/* The protocol grows: what is not known is passed over. */
	return 0;
}

/* Lines of a peer's part. */
static int read_preshared_key(struct wg_peer *peer, const char *value)
{
	int r = parse_hex(value, &peer->preshared_key);

	if (r == 0)
		peer->has_preshared_key = !key_is_zero(&peer->preshared_key);
	return r;
}

static int read_allowed_ip(struct wg_peer *peer, const char *value)
{
	struct cidr prefix;

	if (!strchr(value, '/') || cidr_parse(value, &prefix) < 0)
		return -EPROTO;
	return wg_peer_add_allowed_ip(peer, &prefix);
}

/* Seconds come before nanoseconds; both are zero before the first handshake. */
static int read_handshake(struct wg_peer *peer, const char *value, bool seconds)
{
	uint64_t number;
	int r = parse_number(value, seconds ? (uint64_t)(INT64_MAX / NSEC_PER_SEC - 1) : NSEC_PER_SEC - 1,
			     &number);

	if (r == 0)
		peer->handshake_ns =
			seconds ? (int64_t)number * NSEC_PER_SEC
				: peer->handshake_ns / NSEC_PER_SEC * NSEC_PER_SEC + (int64_t)number;
	return r;
}

static int read_peer_value(struct wg_peer *peer, const char *name, const char *value)
{
	if (strcmp(name, "preshared_key") == 0)
		return read_preshared_key(peer, value);
	if (strcmp(name, "endpoint") == 0)
		return parse_endpoint(value, &peer->endpoint);
	if (strcmp(name, "persistent_keepalive_interval") == 0)
		return parse_u16(value, &peer->keepalive);
	if (strcmp(name, "last_handshake_time_sec") == 0)
		return read_handshake(peer, value, true);
	if (strcmp(name, "last_handshake_time_nsec") == 0)
		return read_handshake(peer, value, false);
	if (strcmp(name, "rx_bytes") == 0)
		return parse_number(value, UINT64_MAX, &peer->rx_bytes);
	if (strcmp(name, "tx_bytes") == 0)
		return parse_number(value, UINT64_MAX, &peer->tx_bytes);
	if (strcmp(name, "allowed_ip") == 0)
		return read_allowed_ip(peer, value);
	return 0;
}

static int begin_peer(struct wg_uapi_reader *reader, const char *value)
{
	struct key public_key;
	int r = parse_hex(value, &public_key);

	if (r < 0)
		return r;
	reader->peer = wg_device_add_peer(reader->device);
	if (!reader->peer)
		return -ENOMEM;
	reader->peer->public_key = public_key;
	return 0;
}

/* wireguard-go writes errno with a minus sign, other implementations without. */
static int read_result(struct wg_uapi_reader *reader, const char *value)
{
	uint64_t number;
	int r = parse_number(*value == '-' ? value + 1 : value, 4095, &number);

	if (r < 0)
		return r;
	reader->has_result = true;
	reader->result = -(int)number;
	return 0;
}

int wg_uapi_read_line(struct wg_uapi_reader *reader, const char *line)
{
	const char *equals = strchr(line, '=');
	char name[64];

	if (reader->has_result) {
		reader->done = true;
		return *line == '\0' ? 0 : -EPROTO;
	}
	if (!equals || equals == line || (size_t)(equals - line) >= sizeof(name))
		return -EPROTO;
	memcpy(name, line, (size_t)(equals - line));
	name[equals - line] = '\0';
	if (strcmp(name, "errno") == 0)
		return read_result(reader, equals + 1);
	if (!reader->device)
		return -EPROTO;
	if (strcmp(name, "public_key") == 0)
		return begin_peer(reader, equals + 1);
	if (reader->peer)
		return read_peer_value(reader->peer, name, equals + 1);
	return read_interface_value(reader->device, name, equals + 1);
}

static int write_line(wg_uapi_line_fn fn, void *data, const char *format, ...) WT_PRINTF(3, 4);

static int write_line(wg_uapi_line_fn fn, void *data, const char *format, ...)
{
	char line[WG_UAPI_LINE_SIZE];
	va_list args;
	int r;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	r = fn(line, data);
	sodium_memzero(line, sizeof(line));
	return r;
}

static int write_key(wg_uapi_line_fn fn, void *data, const char *name, const struct key *key)
{
	char text[2 * KEY_SIZE + 1];
	int r;

	key_format_hex(key, text);
	r = write_line(fn, data, "%s=%s", name, text);
	sodium_memzero(text, sizeof(text));
	return r;
}

int wg_uapi_write_interface(const struct wg_request *request, wg_uapi_line_fn fn, void *data)
{
	int r = 0;

	if (request->private_key)
		r = write_key(fn, data, "private_key", request->private_key);
	if (r == 0 && request->set_listen_port)
		r = write_line(fn, data, "listen_port=%u", request->listen_port);
	if (r == 0 && request->set_mark)
		r = write_line(fn, data, "fwmark=%u", request->mark);
	return r;
}

static int write_endpoint(const struct sockaddr_storage *endpoint, wg_uapi_line_fn fn, void *data)
{
	char address[INET6_ADDRSTRLEN], scope[12] = "";

	if (endpoint->ss_family == AF_INET) {
		const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)endpoint;

		inet_ntop(AF_INET, &ipv4->sin_addr, address, sizeof(address));
		return write_line(fn, data, "endpoint=%s:%u", address, ntohs(ipv4->sin_port));
	}

	const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)endpoint;

	inet_ntop(AF_INET6, &ipv6->sin6_addr, address, sizeof(address));
	if (ipv6->sin6_scope_id != 0)
		snprintf(scope, sizeof(scope), "%%%" PRIu32, ipv6->sin6_scope_id);
	return write_line(fn, data, "endpoint=[%s%s]:%u", address, scope, ntohs(ipv6->sin6_port));
}

static int write_values(const struct wg_peer_change *change, wg_uapi_line_fn fn, void *data)
{
	int r = 0;

	if (change->set_preshared_key)
		r = write_key(fn, data, "preshared_key", &change->preshared_key);
	if (r == 0 && change->set_endpoint)
		r = write_endpoint(&change->endpoint, fn, data);
	if (r == 0 && change->set_keepalive)
		r = write_line(fn, data, "persistent_keepalive_interval=%u", change->keepalive);
	if (r == 0 && change->replace_allowed_ips)
		r = write_line(fn, data, "replace_allowed_ips=true");
	return r;
}

int wg_uapi_write_peer(const struct wg_peer_change *change, wg_uapi_line_fn fn, void *data)
{
	char text[CIDR_TEXT_SIZE];
	int r = write_key(fn, data, "public_key", &change->public_key);

	if (r == 0 && change->remove)
		return write_line(fn, data, "remove=true");
	/* It must come first: the lines before it would make the peer. */
	if (r == 0 && change->update_only)
		r = write_line(fn, data, "update_only=true");
	if (r == 0)
		r = write_values(change, fn, data);
	for (size_t i = 0; r == 0 && i < change->n_allowed_ips; i++)
		r = write_line(fn, data, "allowed_ip=%s", cidr_format(&change->allowed_ips[i], text));
	return r;
}
