/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose usage and money a path names. */
#ifndef WIRETOLL_BILLING_WHO_H
#define WIRETOLL_BILLING_WHO_H

#include "route.h"

/*
 * The gateway, or the user, that the path's argument names by id or by unique name, as far as the caller may
 * see it. A deleted gateway is found by its id, and by its name when no living one has it. -EBADMSG: the
 * response has a 404.
 */
WT_MUST_CHECK int billing_find_gateway(struct request *request, const char *argument,
				       struct response *response, char ret_owner[static UUID_TEXT_SIZE],
				       char ret_id[static UUID_TEXT_SIZE]);
WT_MUST_CHECK int billing_find_user(struct request *request, const char *argument, struct response *response,
				    char ret_user[static UUID_TEXT_SIZE]);

#endif
