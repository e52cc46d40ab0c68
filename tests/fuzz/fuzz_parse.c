// SPDX-License-Identifier: BSD-2-Clause
/*
 * The parser of the BPF programs, compiled for user space (I2, I4): any bytes, any segment size, any length.
 */
#include "fuzz.h"
#include "segments.h"

#include "../../bpf/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	uint32_t gso_size = take_number(&input, 2), gso_segs = take_number(&input, 2),
		 beyond = take_number(&input, 3) % (1 << 19);
	uint8_t *bytes = copy_of(input.data, input.left);
	const uint32_t captured = (uint32_t)input.left;
	const struct wt_packet packet = {.data = bytes, .length = captured + beyond, .captured = captured};
	const struct wt_weight weight = wt_weigh(&packet, gso_size, gso_segs);
	const struct segments expected = cut(bytes, captured, packet.length, gso_size, gso_segs);

	CLAIM(weight.bytes >= packet.length);
	CLAIM(weight.bytes == expected.bytes);
	CLAIM(weight.packets == expected.packets);
	CLAIM(weight.unparsed == expected.unparsed);
	free(bytes);
	return 0;
}
