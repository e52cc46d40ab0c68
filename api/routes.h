/* SPDX-License-Identifier: BSD-2-Clause */
/* The one table of all routes: method, path, roles, handler. */
#ifndef WIRETOLL_API_ROUTES_H
#define WIRETOLL_API_ROUTES_H

#include "route.h"

#define MAX_ARGUMENTS ARRAY_SIZE(((struct request *)NULL)->arguments)

/*
 * Finds the row for a method and a path as it came (URL-encoded, no query), with the path's arguments
 * decoded; the caller frees them, found or not. -ENOENT for an unknown path; -EILSEQ for an argument that is
 * no printable text; -EOPNOTSUPP when the path takes other methods, named in ret_allow. HEAD is served by
 * GET, and a trailing slash means nothing.
 */
WT_MUST_CHECK int route_find(const char *method, const char *path, const struct route **ret_route,
			     char *arguments[static MAX_ARGUMENTS], char *ret_allow, size_t allow_size);

/* Every row, in order, for the documentation and the tests; NULL behind the last. */
const struct route *route_at(size_t index);

#endif
