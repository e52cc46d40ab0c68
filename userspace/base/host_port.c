// SPDX-License-Identifier: BSD-2-Clause
#include "base/host_port.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_NAME  253
#define MAX_LABEL 63
#define LETTERS   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS    "0123456789"

static bool is_label(const char *text, size_t length)
{
	return length >= 1 && length <= MAX_LABEL && text[0] != '-' && text[length - 1] != '-' &&
	       strspn(text, LETTERS DIGITS "-") >= length;
}

/* What inet_aton() would read as a number. */
static bool is_number(const char *text, size_t length)
{
	if (length >= 2 && text[0] == '0' && (text[1] | 0x20) == 'x')
		return strspn(text + 2, DIGITS "abcdefABCDEF") >= length - 2;
	return strspn(text, DIGITS) >= length;
}

bool is_host_name(const char *text, size_t length)
{
	size_t begin = 0;

	if (length == 0 || length > MAX_NAME)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] != '.')
			continue;
		if (!is_label(text + begin, i - begin))
			return false;
		begin = i + 1;
	}
	return is_label(text + begin, length - begin) && !is_number(text + begin, length - begin);
}

static int parse_port(const char *text, unsigned *ret_port)
{
	size_t digits = strspn(text, DIGITS);
	unsigned port = 0;

	if (digits == 0 || digits > 5 || text[digits] || text[0] == '0')
		return -EINVAL;
	for (size_t i = 0; i < digits; i++)
		port = port * 10 + (unsigned)(text[i] - '0');
	*ret_port = port;
	return port <= 65535 ? 0 : -EINVAL;
}

/* An address of this family, without a prefix's length. */
static int parse_address(const char *text, size_t length, int family, struct cidr *ret_address)
{
	char copy[CIDR_TEXT_SIZE];

	if (length >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return cidr_parse_address(copy, ret_address) == 0 && ret_address->family == family ? 0 : -EINVAL;
}

int host_port_parse(const char *text, struct host_port *ret_host_port)
{
	const char *colon = strrchr(text, ':');
	struct host_port parsed = {0};
	size_t length;
	int r = -EINVAL;

	if (!colon || parse_port(colon + 1, &parsed.port) < 0)
		return -EINVAL;
	length = (size_t)(colon - text);
	if (text[0] == '[' && length > 2 && text[length - 1] == ']') {
		r = parse_address(text + 1, length - 2, AF_INET6, &parsed.address);
	} else if (parse_address(text, length, AF_INET, &parsed.address) == 0) {
		r = 0;
	} else if (is_host_name(text, length)) {
		parsed.is_name = true;
		r = 0;
	}
	if (r == 0)
		*ret_host_port = parsed;
	return r;
}
