/* SPDX-License-Identifier: BSD-2-Clause */
/* What plans, plan groups and locations have to agree on. */
#ifndef WIRETOLL_API_OFFER_H
#define WIRETOLL_API_OFFER_H

#include "route.h"

/* Begins a transaction in which no other one changes plans, plan groups or locations. */
WT_MUST_CHECK int offer_begin(struct request *request);

/*
 * A2: a plan with 0 GB may only be offered where every byte can be charged. To be called with the change
 * made; -EBADMSG with 422 in the response when a plan and a location now disagree.
 */
WT_MUST_CHECK int offer_check(struct request *request, struct response *response);

#endif
