/* SPDX-License-Identifier: BSD-2-Clause */
/* What the host itself takes from gateways' VPC links: nothing that it has not asked for (G10). */
#ifndef WIRETOLL_DEPLOY_GUARD_H
#define WIRETOLL_DEPLOY_GUARD_H

#include "base/base.h"

/*
 * The link group of the host's ends of gateways' VPC links; see ip-link(8). The rules go by it: they hold for
 * every such link, whatever its name, and for every address that the host has or gets.
 */
#define GUARD_LINK_GROUP 1465122817

/* Puts the rules in force in the calling network namespace; again changes nothing. The reason of a failure in
 * `error`. */
WT_MUST_CHECK int guard_install(char *error, size_t error_size);

/* Removes them, unless a link of the group is left, of this worker's or of another one's. */
void guard_remove(void);

#endif
