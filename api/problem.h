/* SPDX-License-Identifier: BSD-2-Clause */
/* Problem documents (RFC 9457) for what the database refuses. */
#ifndef WIRETOLL_API_PROBLEM_H
#define WIRETOLL_API_PROBLEM_H

#include "route.h"

/*
 * What a constraint says when a race has got past a handler's own checks: the same message as the check's.
 * `error` is of db_query(); returns false when it is none that a client can do something about.
 */
bool response_database_problem(struct response *response, int error, const struct request *request);

#endif
