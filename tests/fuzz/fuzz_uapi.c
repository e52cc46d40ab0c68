// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a userspace WireGuard answers on its socket. Whatever is read whole can be written again, line by
 * line, and reads the same.
 */
#include "fuzz.h"
#include "peer.h"

#include "../../userspace/wg/uapi_text.c"

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
	const struct wg_peer_change change = change_to(peer);

	CLAIM(wg_uapi_write_peer(&change, read_back, &reader) == 0);
	claim_has(&again, peer);
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
