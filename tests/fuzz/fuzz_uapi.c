// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a userspace WireGuard answers on its socket. Whatever is read whole can be written again, line by
 * line, and reads the same.
 */
#include "fuzz.h"

#include "../../userspace/wg/uapi_text.c"

static void claim_well_formed(const struct wg_peer *peer)
{
	for (size_t i = 0; i < peer->n_allowed_ips; i++) {
		const struct cidr *prefix = &peer->allowed_ips[i];

		CLAIM(prefix->family == AF_INET || prefix->family == AF_INET6);
		CLAIM(prefix->prefix_length <= (prefix->family == AF_INET ? 32 : 128));
	}
	CLAIM(peer->handshake_ns >= 0);
}

static int read_back(const char *line, void *data)
{
	struct wg_uapi_reader *reader = data;

	CLAIM(wg_uapi_read_line(reader, line) == 0);
	return 0;
}

static void claim_round_trip(const struct wg_peer *peer)
{
	struct wg_device again = {0};
	struct wg_uapi_reader reader = {.device = &again};
	const struct wg_peer_change change = {
		.public_key = peer->public_key,
		.set_preshared_key = true,
		.preshared_key = peer->preshared_key,
		.set_endpoint = peer->endpoint.ss_family != AF_UNSPEC,
		.endpoint = peer->endpoint,
		.set_keepalive = true,
		.keepalive = peer->keepalive,
		.allowed_ips = peer->allowed_ips,
		.n_allowed_ips = peer->n_allowed_ips,
	};

	CLAIM(wg_uapi_write_peer(&change, read_back, &reader) == 0);
	CLAIM(again.n_peers == 1);
	CLAIM(key_equal(&again.peers[0].public_key, &peer->public_key));
	CLAIM(key_equal(&again.peers[0].preshared_key, &peer->preshared_key));
	CLAIM(again.peers[0].has_preshared_key == peer->has_preshared_key);
	CLAIM(again.peers[0].keepalive == peer->keepalive);
	CLAIM(memcmp(&again.peers[0].endpoint, &peer->endpoint, sizeof(peer->endpoint)) == 0);
	CLAIM(again.peers[0].n_allowed_ips == peer->n_allowed_ips);
	for (size_t i = 0; i < peer->n_allowed_ips; i++)
		CLAIM(cidr_equal(&again.peers[0].allowed_ips[i], &peer->allowed_ips[i]));
	wg_device_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wg_device device = {0};
	struct wg_uapi_reader reader = {.device = size % 8 ? &device : NULL};
	char *text = text_of(data, size), *rest = text, *line;
	int r = 0;

	while (r == 0 && (line = strsep(&rest, "\n"))) {
		char *exact = text_of(line, strlen(line));

		if (strlen(line) < WG_UAPI_LINE_SIZE)
			r = wg_uapi_read_line(&reader, exact);
		free(exact);
	}
	CLAIM(r == 0 || r == -EPROTO);
	CLAIM(reader.result <= 0 && reader.result >= -4095);
	for (size_t i = 0; i < device.n_peers; i++) {
		claim_well_formed(&device.peers[i]);
		if (i < 4)
			claim_round_trip(&device.peers[i]);
	}
	wg_device_clear(&device);
	free(text);
	return 0;
}
