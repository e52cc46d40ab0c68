/* SPDX-License-Identifier: BSD-2-Clause */
/* The subnets of a VPC, with their ranges and attachments (A9). */
#ifndef WIRETOLL_API_SUBNETS_H
#define WIRETOLL_API_SUBNETS_H

#include "resources/owned.h"
#include "route.h"

/*
 * Makes the VPC's subnets these (a JSON array; NULL: they stay), in the open transaction. -EBADMSG with the
 * problem: a bad value, an overlap, or a subnet that a gateway needs.
 */
WT_MUST_CHECK int replace_subnets(struct request *request, struct response *response, const struct owned *vpc,
				  const json_t *subnets);

#endif
