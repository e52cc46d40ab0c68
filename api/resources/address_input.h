/* SPDX-License-Identifier: BSD-2-Clause */
/* What all addresses and networks of a request have to be, whatever they are for. */
#ifndef WIRETOLL_API_ADDRESS_INPUT_H
#define WIRETOLL_API_ADDRESS_INPUT_H

#include "base/special_range.h"
#include "resources/form.h"

/* Networks shorter than these are refused: they hold most of what there is, and special ranges with it. */
#define MIN_LENGTH4 8
#define MIN_LENGTH6 16

/* As in `accepted` of messages: with the field's own words before it. */
#define ACCEPTED_ADDRESS "a unicast address outside IANA's special-purpose ranges"
#define ACCEPTED_NETWORK "a network outside IANA's special-purpose ranges"

/*
 * Whether packets can go to and from all of the network (or the one address): it lies in no range of
 * these uses, holds none, and is not too large. Otherwise the field is marked as wrong, with the range's name
 * and `accepted`; `label` is how the value is called in the message: "allowed_ips[2]".
 */
bool check_network(struct form *form, const char *field, const char *label, const struct cidr *network,
		   unsigned special_uses, const char *accepted);

#endif
