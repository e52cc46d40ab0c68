/* SPDX-License-Identifier: BSD-2-Clause */
/* Who asks: bearer tokens, roles, and whom a service acts for. */
#ifndef WIRETOLL_API_AUTH_H
#define WIRETOLL_API_AUTH_H

#include "route.h"

/*
 * Fills in request->principal from the request's token when its role is among `roles`. Otherwise returns
 * -EACCES with a problem in the response (401, 403, or 422 for an unknown Wiretoll-Act-For), or -errno of
 * db_query().
 */
WT_MUST_CHECK int authenticate(struct request *request, unsigned roles, struct response *response);

/* The bearer token of the request; NULL when there is none. */
const char *bearer_token(const struct request *request);

#endif
