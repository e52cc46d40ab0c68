/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests that wait for a worker, in a queue of their own for each who asks: an owner, a gateway or an
 * address. Workers take from these queues in turns, and of each only a few at a time, so that nobody's crowd
 * is in anybody's way. A fleet has one turn for all of its queues, which it takes in turns. Not thread-safe:
 * the work pool's mutex is held around every call.
 */
#ifndef WIRETOLL_API_SHARE_H
#define WIRETOLL_API_SHARE_H

#include "exchange.h"

/* Of those of one kind. */
struct share_limits {
	unsigned in_work; /* requests at a time */
	unsigned waiting; /* beyond these they are refused */
};

struct shares;

enum share_result { SHARE_TAKEN, SHARE_FULL, FLEET_FULL, SHARES_FULL };

/* `waiting`: in all queues together. -ENOMEM. */
WT_MUST_CHECK int shares_new(unsigned waiting, const struct share_limits limits[static N_SHARE_KINDS],
			     struct shares **ret_shares);
void shares_free(struct shares *shares);

/*
 * Queues a request under its key, unless that queue is full or all together are. Where all together are full
 * of others' crowds, the last of the longest queue gives way: it is *ret_refused (else NULL), and in no queue
 * any more.
 */
WT_MUST_CHECK enum share_result shares_offer(struct shares *shares, struct exchange *exchange,
					     struct exchange **ret_refused);

/* Queues a request that was admitted before, whatever the bounds. */
void shares_return(struct shares *shares, struct exchange *exchange);

/* The next one, in work from now on; NULL when nothing waits that may be worked on now. */
WT_MUST_CHECK struct exchange *shares_take(struct shares *shares);

/* Ends what shares_take() has begun. */
void shares_done(struct shares *shares, struct exchange *exchange);

/* The request in work is another's, and goes on as one of theirs. False: they have as many in work as they
 * may. */
WT_MUST_CHECK bool shares_move(struct shares *shares, struct exchange *exchange, const struct share_key *key);

/* From now on nothing is held back: all that waits is to be answered. */
void shares_open(struct shares *shares);

#endif
