/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose share a request is of. Only the database knows whose a token is; who it turned out to be is
 * remembered here, for the order of work and for nothing else: every request is authenticated anew.
 * Thread-safe.
 */
#ifndef WIRETOLL_API_CALLER_H
#define WIRETOLL_API_CALLER_H

#include "exchange.h"

#include <sys/socket.h>

struct callers;

/* -ENOMEM. */
WT_MUST_CHECK int callers_new(struct callers **ret_callers);
void callers_free(struct callers *callers);

/* Sets the share_key: by the request's token when that was seen before, else by its address. */
void caller_guess(struct callers *callers, struct exchange *exchange);

/* That of the request's principal, which was just authenticated; remembers it. */
void caller_learn(struct callers *callers, const struct exchange *exchange, struct share_key *ret_key);

/* "192.0.2.1", or the first 64 bits of an IPv6 address: who has one of these has all of them. */
void caller_address(const struct sockaddr *address, char ret_name[static SHARE_NAME_SIZE]);

#endif
