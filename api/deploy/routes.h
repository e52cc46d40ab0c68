/* SPDX-License-Identifier: BSD-2-Clause */
/* The VPC's routes through the gateway (G9). */
#ifndef WIRETOLL_DEPLOY_ROUTES_H
#define WIRETOLL_DEPLOY_ROUTES_H

#include "deploy/spec.h"

#define ROUTES_PROTOCOL 87 /* marks ours; "wiretoll" in rt_protos.d; see rtnetlink(7), rtm_protocol */
#define ROUTES_PROTOCOL_OLD                                                                                  \
	188 /* what earlier versions took: OSPF's. Those via our gateways are taken over */

/* A route that is not installed, and why. */
typedef void (*routes_refused_fn)(const char *what, const char *reason, void *data);

/*
 * In every namespace that an attachment names, the routes over the gateway's address there become those of
 * the specification, or with `remove` none. A destination that the namespace has a route of its own to, that
 * lies in a network which it is attached to, or that no network of anybody's is, is left alone: `refused` is
 * told. All namespaces are tried; the first failure is returned, its reason in `error`. A namespace that is
 * gone is a failure only for adding.
 */
WT_MUST_CHECK int routes_sync(const struct deploy_spec *spec, bool remove, routes_refused_fn refused,
			      void *data, char *error, size_t error_size);

#endif
