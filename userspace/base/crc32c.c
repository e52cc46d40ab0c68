// SPDX-License-Identifier: BSD-2-Clause
#include "base/crc32c.h"

/* The reflected Castagnoli polynomial, RFC 3720 appendix B.4. */
#define POLYNOMIAL 0x82f63b78u

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
	const uint8_t *byte = data;

	/* Bit by bit: a report has kilobytes, once in seconds; a table would cost more cache than it saves.
	 */
	crc = ~crc;
	while (length--) {
		crc ^= *byte++;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (POLYNOMIAL & (0u - (crc & 1)));
	}
	return ~crc;
}
