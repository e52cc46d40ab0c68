// SPDX-License-Identifier: BSD-2-Clause
#include "base/uuid.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int digit_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

static bool is_dash_place(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

int uuid_parse_front(const char text[static UUID_TEXT_LENGTH], uint8_t ret_uuid[static UUID_SIZE])
{
	uint8_t uuid[UUID_SIZE];
	size_t n = 0;

	for (size_t i = 0; i < UUID_TEXT_LENGTH; i += 2) {
		int high, low;

		if (is_dash_place(i) && text[i++] != '-')
			return -EINVAL;
		high = digit_value(text[i]);
		low = digit_value(text[i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		uuid[n++] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret_uuid, uuid, UUID_SIZE);
	return 0;
}

int uuid_parse(const char *text, uint8_t ret_uuid[static UUID_SIZE])
{
	return strlen(text) == UUID_TEXT_LENGTH ? uuid_parse_front(text, ret_uuid) : -EINVAL;
}

const char *uuid_format(const uint8_t uuid[static UUID_SIZE], char *buffer)
{
	snprintf(buffer, UUID_TEXT_SIZE,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", uuid[0], uuid[1],
		 uuid[2], uuid[3], uuid[4], uuid[5], uuid[6], uuid[7], uuid[8], uuid[9], uuid[10], uuid[11],
		 uuid[12], uuid[13], uuid[14], uuid[15]);
	return buffer;
}

bool uuid_equal(const uint8_t a[static UUID_SIZE], const uint8_t b[static UUID_SIZE])
{
	return memcmp(a, b, UUID_SIZE) == 0;
}
