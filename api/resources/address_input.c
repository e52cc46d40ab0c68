// SPDX-License-Identifier: BSD-2-Clause
#include "resources/address_input.h"

#include <sys/socket.h>

static const char *text_of(const struct cidr *network, char *buffer)
{
	return network->prefix_length == cidr_max_length(network) ? cidr_format_address(network, buffer)
								  : cidr_format(network, buffer);
}

bool check_network(struct form *form, const char *field, const char *label, const struct cidr *network,
		   unsigned special_uses, const char *accepted)
{
	const struct special_range *special = special_range_find(network, special_uses);
	unsigned least = network->family == AF_INET ? MIN_LENGTH4 : MIN_LENGTH6;
	char given[CIDR_TEXT_SIZE], range[CIDR_TEXT_SIZE];

	if (network->prefix_length < least) {
		form_refuse(form, field,
			    "%s is \"%s\", which is too large; accepted is %s, of length %u or more", label,
			    text_of(network, given), accepted, least);
		return false;
	}
	if (special) {
		form_refuse(form, field, "%s is \"%s\", which overlaps %s (%s); accepted is %s", label,
			    text_of(network, given), cidr_format(&special->prefix, range), special->name,
			    accepted);
		return false;
	}
	return true;
}
