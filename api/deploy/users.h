/* SPDX-License-Identifier: BSD-2-Clause */
/* Which uids the gateways of a state directory have. */
#ifndef WIRETOLL_DEPLOY_USERS_H
#define WIRETOLL_DEPLOY_USERS_H

#include "base/base.h"

#include <sys/types.h>

/*
 * The first of UID_NUMBERS uids, written down in STATE/first_uid. Two state directories on one host number
 * their gateways alike: with a range for each, nobody's processes are taken for another's.
 */
WT_MUST_CHECK int users_first(const char *state, uid_t *ret_first);

#endif
