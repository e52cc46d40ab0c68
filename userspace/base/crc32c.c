// SPDX-License-Identifier: BSD-2-Clause
#include "base/crc32c.h"

#include <string.h>

/* The reflected Castagnoli polynomial, RFC 3720 appendix B.4, for each value of four bits. */
static const uint32_t nibbles[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
	0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t by_table(uint32_t crc, const uint8_t *byte, size_t length)
{
	while (length--) {
		crc ^= *byte++;
		crc = crc >> 4 ^ nibbles[crc & 15];
		crc = crc >> 4 ^ nibbles[crc & 15];
	}
	return crc;
}

#ifdef __x86_64__
/* A sample of a thousand peers has 70 KB, each second: worth the processor's own instruction. */
__attribute__((target("sse4.2"))) static uint32_t by_processor(uint32_t crc, const uint8_t *byte,
							       size_t length)
{
	uint64_t wide = crc;

	for (; length >= sizeof(wide); byte += sizeof(wide), length -= sizeof(wide)) {
		uint64_t word;

		memcpy(&word, byte, sizeof(word));
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	while (length--)
		crc = __builtin_ia32_crc32qi(crc, *byte++);
	return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~by_processor(~crc, data, length);
#endif
	return ~by_table(~crc, data, length);
}
