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

/* The same if there are links of the group: returns 1 when somebody had taken the rules away. */
WT_MUST_CHECK int guard_keep(char *error, size_t error_size);

/* A descriptor, the caller's, that becomes readable with each change of anybody's rules. What is to be read
 * there means nothing else. */
WT_MUST_CHECK int guard_listen(void);

/* Removes them, unless a link of the group is left, of this worker's or of another one's. */
void guard_remove(void);

#endif
