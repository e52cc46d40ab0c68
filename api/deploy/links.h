/* SPDX-License-Identifier: BSD-2-Clause */
/* A gateway's links to the bridges, their addresses, and the settings of its namespace. */
#ifndef WIRETOLL_DEPLOY_LINKS_H
#define WIRETOLL_DEPLOY_LINKS_H

#include "deploy/spec.h"

/* Forwarding on, automatic addresses off: before the first link is there. */
WT_MUST_CHECK int links_set_sysctls(const char *netns_pin);

/*
 * Pairs of virtual Ethernet links between the namespace and the bridges, one for each bridge. Existing ones
 * are kept. The host is guarded from those of the VPC.
 */
WT_MUST_CHECK int links_connect(const struct deploy_spec *spec, char *error, size_t error_size);

/* Addresses and the default route inside. */
WT_MUST_CHECK int links_configure(const struct deploy_spec *spec, char *error, size_t error_size);

/* Removes the host's ends, and with them the others. */
WT_MUST_CHECK int links_disconnect(const struct deploy_spec *spec, char *error, size_t error_size);

#endif
