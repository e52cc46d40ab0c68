// SPDX-License-Identifier: BSD-2-Clause
#include "url.h"

#include <errno.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int url_decode(char *text)
{
	char *out = text;

	for (; *text; text++, out++) {
		int high, low;

		*out = *text;
		if (*text != '%')
			continue;
		high = hex_digit(text[1]);
		low = high < 0 ? -1 : hex_digit(text[2]);
		if (low < 0 || (high == 0 && low == 0))
			return -EINVAL;
		*out = (char)(high << 4 | low);
		text += 2;
	}
	*out = '\0';
	return 0;
}
