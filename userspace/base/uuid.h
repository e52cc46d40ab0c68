/* SPDX-License-Identifier: BSD-2-Clause */
/* UUIDs as 16 bytes and as lower-case text. */
#ifndef WIRETOLL_BASE_UUID_H
#define WIRETOLL_BASE_UUID_H

#include "base/base.h"

#define UUID_SIZE        16
#define UUID_TEXT_LENGTH 36
#define UUID_TEXT_SIZE   (UUID_TEXT_LENGTH + 1) /* with the NUL */

/* Parses the 36 characters of the canonical form, in either case. Returns -EINVAL. */
WT_MUST_CHECK int uuid_parse(const char *text, uint8_t ret_uuid[static UUID_SIZE]);
/* The same of a text that goes on behind them. */
WT_MUST_CHECK int uuid_parse_front(const char text[static UUID_TEXT_LENGTH],
				   uint8_t ret_uuid[static UUID_SIZE]);

/* Writes UUID_TEXT_SIZE bytes; returns the buffer. */
const char *uuid_format(const uint8_t uuid[static UUID_SIZE], char *buffer);

bool uuid_equal(const uint8_t a[static UUID_SIZE], const uint8_t b[static UUID_SIZE]);

#endif
