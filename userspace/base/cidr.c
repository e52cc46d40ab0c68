// SPDX-License-Identifier: BSD-2-Clause
#include "base/cidr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cidr_parse_address(const char *text, struct cidr *ret_cidr)
{
	struct cidr cidr = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};

	if (inet_pton(cidr.family, text, cidr.bytes) != 1)
		return -EINVAL;
	cidr.prefix_length = cidr_max_length(&cidr);
	*ret_cidr = cidr;
	return 0;
}

int cidr_parse(const char *text, struct cidr *ret_cidr)
{
	const char *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	struct cidr cidr;
	unsigned length = 0;
	int r;

	if (!slash)
		return cidr_parse_address(text, ret_cidr);
	if ((size_t)(slash - text) >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	r = cidr_parse_address(address, &cidr);
	if (r < 0)
		return r;

	/* Digits only, at most three and no leading zero: strtoul would take " +24". */
	const char *digit = slash + 1;

	if (*digit == '\0' || (digit[0] == '0' && digit[1] != '\0') || strlen(digit) > 3)
		return -EINVAL;
	for (; *digit; digit++) {
		if (*digit < '0' || *digit > '9')
			return -EINVAL;
		length = length * 10 + (unsigned)(*digit - '0');
	}
	if (length > cidr_max_length(&cidr))
		return -EINVAL;
	cidr.prefix_length = length;
	*ret_cidr = cidr;
	return 0;
}

const char *cidr_format_address(const struct cidr *cidr, char *buffer)
{
	if (!inet_ntop(cidr->family, cidr->bytes, buffer, CIDR_TEXT_SIZE))
		buffer[0] = '\0';
	return buffer;
}

const char *cidr_format(const struct cidr *cidr, char *buffer)
{
	cidr_format_address(cidr, buffer);

	size_t used = strlen(buffer);

	snprintf(buffer + used, CIDR_TEXT_SIZE - used, "/%u", cidr->prefix_length);
	return buffer;
}

unsigned cidr_max_length(const struct cidr *cidr)
{
	return cidr->family == AF_INET ? 32 : 128;
}

struct cidr cidr_network(const struct cidr *cidr)
{
	struct cidr network = *cidr;

	for (unsigned i = 0; i < sizeof(network.bytes); i++) {
		unsigned kept = network.prefix_length > i * 8 ? network.prefix_length - i * 8 : 0;

		if (kept < 8)
			network.bytes[i] &= (uint8_t)(0xff00 >> kept);
	}
	return network;
}

bool cidr_is_network(const struct cidr *cidr)
{
	struct cidr network = cidr_network(cidr);

	return memcmp(network.bytes, cidr->bytes, sizeof(network.bytes)) == 0;
}

bool cidr_contains(const struct cidr *outer, const struct cidr *inner)
{
	struct cidr widened = *inner;

	if (outer->family != inner->family || outer->prefix_length > inner->prefix_length)
		return false;
	widened.prefix_length = outer->prefix_length;

	struct cidr a = cidr_network(outer), b = cidr_network(&widened);

	return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

bool cidr_overlaps(const struct cidr *a, const struct cidr *b)
{
	return cidr_contains(a, b) || cidr_contains(b, a);
}

bool cidr_equal(const struct cidr *a, const struct cidr *b)
{
	return cidr_compare(a, b) == 0;
}

int cidr_compare(const void *left, const void *right)
{
	const struct cidr *a = left, *b = right;
	int order;

	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	order = memcmp(a->bytes, b->bytes, sizeof(a->bytes));
	if (order != 0)
		return order;
	return (a->prefix_length > b->prefix_length) - (a->prefix_length < b->prefix_length);
}
