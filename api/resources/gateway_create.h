/* SPDX-License-Identifier: BSD-2-Clause */
/* POST /v1/gateways (G1, G2, G3). */
#ifndef WIRETOLL_API_GATEWAY_CREATE_H
#define WIRETOLL_API_GATEWAY_CREATE_H

#include "route.h"

/* How long a deployment may take before it is an error (G6). */
#define DEPLOY_DEADLINE "5 minutes"

int create_gateway(struct request *request, struct response *response);

extern const char *const masquerades[]; /* ends with NULL */

#endif
