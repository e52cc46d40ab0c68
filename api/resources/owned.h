/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding what belongs to somebody: VPCs and gateways. What is not the asker's is not there. */
#ifndef WIRETOLL_API_OWNED_H
#define WIRETOLL_API_OWNED_H

#include "route.h"

struct owned {
	char owner[UUID_TEXT_SIZE];
	char id[UUID_TEXT_SIZE];
};

/*
 * By id, name or the cloud's own id. Unknown: 422 naming the body's field, or 404 when field is NULL; a name
 * that several owners use: 409.
 */
WT_MUST_CHECK int find_vpc(struct request *request, struct response *response, const char *field,
			   const char *key, struct owned *ret_vpc);

/* The gateway of the path: a living one by name, any by id. */
WT_MUST_CHECK int find_gateway(struct request *request, struct response *response, struct owned *ret_gateway);

/* The same for a change: begins a transaction, locks the gateway's row, and refuses one that is being
 * deleted. */
WT_MUST_CHECK int lock_gateway(struct request *request, struct response *response, struct owned *ret_gateway);

/* The new state of a gateway is in the database: its agent is to fetch it, and the worker the routes. */
WT_MUST_CHECK int announce_revision(struct request *request, const struct owned *gateway);

#endif
