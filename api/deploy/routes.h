/* SPDX-License-Identifier: BSD-2-Clause */
/* The VPC's routes through the gateway (G9). */
#ifndef WIRETOLL_DEPLOY_ROUTES_H
#define WIRETOLL_DEPLOY_ROUTES_H

#include "deploy/spec.h"

#define ROUTES_PROTOCOL 188 /* marks ours; see rtnetlink(7), rtm_protocol */

/*
 * In every namespace that an attachment names, the routes over the gateway's address there become exactly
 * those of the specification, or with `remove` none. All namespaces are tried; the first failure is returned,
 * its reason in `error`. A namespace that is gone is a failure only for adding.
 */
WT_MUST_CHECK int routes_sync(const struct deploy_spec *spec, bool remove, char *error, size_t error_size);

#endif
