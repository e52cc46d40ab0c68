/* SPDX-License-Identifier: BSD-2-Clause */
/* A gateway as the API shows it (G5). */
#ifndef WIRETOLL_API_GATEWAY_VIEW_H
#define WIRETOLL_API_GATEWAY_VIEW_H

#include "resources/owned.h"
#include "route.h"

WT_MUST_CHECK int answer_gateway(struct request *request, struct response *response, unsigned status,
				 const struct owned *gateway);

/* GET /v1/gateways: ?search= in names of gateway, VPC and user and in e-mail, ?status= (A6). */
int list_gateways(struct request *request, struct response *response);

#endif
