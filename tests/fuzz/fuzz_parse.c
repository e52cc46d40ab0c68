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
	const struct wt_gso gso = {take_number(&input, 2), take_number(&input, 2),
				   take_number(&input, 1) % 3};
	uint32_t beyond = take_number(&input, 3) % (1 << 19);
	uint8_t *bytes = copy_of(input.data, input.left);
	const uint32_t captured = (uint32_t)input.left;
	const struct wt_packet packet = {.data = bytes, .length = captured + beyond, .captured = captured};
	const struct aggregate aggregate = {bytes,    captured, packet.length,
					    gso.size, gso.segs, (enum cutting)gso.cut};
	const struct wt_weight weight = wt_weigh(&packet, &gso);
	const struct segments expected = cut(&aggregate);

	CLAIM(weight.bytes >= packet.length);
	CLAIM(weight.bytes == expected.bytes);
	CLAIM(weight.packets == expected.packets);
	CLAIM(weight.unparsed == expected.unparsed);
	free(bytes);
	return 0;
}
