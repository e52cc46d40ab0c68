/* SPDX-License-Identifier: BSD-2-Clause */
/* Who needs a thing: what is in use is not deleted (A9), and the answer says by what. */
#ifndef WIRETOLL_API_IN_USE_H
#define WIRETOLL_API_IN_USE_H

#include "resources/common.h"

/*
 * -EBADMSG with 409 in the response, naming the first few users by kind, name and id, when somebody needs the
 * thing; `key` is how the request calls it.
 */
WT_MUST_CHECK int check_unused(struct request *request, struct response *response, enum noun noun,
			       const char *id, const char *key);

#endif
