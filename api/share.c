// SPDX-License-Identifier: BSD-2-Clause
#include "share.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

/* A fleet's are shares. */
struct line {
	struct share *first, *last;
};

/*
 * Exists while something of it waits or is in work. Of one that is of a fleet everything counts as the
 * fleet's, too, and workers take from it in the fleet's turns.
 */
struct share {
	struct share_key key; /* first: what the tree compares */
	struct share *fleet;  /* or NULL */
	unsigned in_work, n_waiting;
	unsigned n_new; /* of those that wait: never admitted before */
	struct exchange *head, *tail;
	bool is_ready; /* stands in the line of those that may be taken from */
	struct share *next_ready;
	unsigned n_members;  /* of a fleet: its shares */
	struct line members; /* those of them that may be taken from */
};

struct shares {
	struct share_limits limits[N_SHARE_KINDS];
	void *tree;
	struct line ready;
	unsigned waiting, max_waiting;
	bool is_open;
	struct share nobodys; /* of all for whom there was no memory */
};

static int compare(const void *a, const void *b)
{
	const struct share_key *left = a, *right = b;

	return left->kind != right->kind ? (int)left->kind - (int)right->kind
					 : strcmp(left->name, right->name);
}

static void join(struct shares *shares, struct share *share);

static struct share *share_of(struct shares *shares, const struct share_key *key)
{
	struct share **found = tfind(key, &shares->tree, compare), *made;

	if (found)
		return *found;
	made = calloc(1, sizeof(*made));
	if (!made)
		return &shares->nobodys;
	made->key = *key;
	if (!tsearch(made, &shares->tree, compare)) {
		free(made);
		return &shares->nobodys;
	}
	if (key->fleet[0])
		join(shares, made);
	return made;
}

static void join(struct shares *shares, struct share *share)
{
	struct share_key key = {.kind = SHARE_FLEET};
	struct share *fleet;

	memcpy(key.name, share->key.fleet, sizeof(share->key.fleet));
	fleet = share_of(shares, &key);
	if (fleet == &shares->nobodys)
		return;
	fleet->n_members++;
	share->fleet = fleet;
}

static void forget_if_idle(struct shares *shares, struct share *share)
{
	struct share *fleet = share->fleet;

	if (share->in_work > 0 || share->n_waiting > 0 || share->n_members > 0 || share->is_ready ||
	    share == &shares->nobodys)
		return;
	tdelete(share, &shares->tree, compare);
	free(share);
	if (!fleet)
		return;
	fleet->n_members--;
	forget_if_idle(shares, fleet);
}

static bool has_room(const struct shares *shares, const struct share *share)
{
	return shares->is_open || share->in_work < shares->limits[share->key.kind].in_work;
}

static void begin_work(struct share *share)
{
	for (; share; share = share->fleet)
		share->in_work++;
}

/* At the end of the line: whoever was taken from comes last. */
static void stand_in_line(struct shares *shares, struct share *share)
{
	struct line *line = share->fleet ? &share->fleet->members : &shares->ready;

	if (share->is_ready || !(share->head || share->members.first) || !has_room(shares, share))
		return;
	share->is_ready = true;
	share->next_ready = NULL;
	*(line->last ? &line->last->next_ready : &line->first) = share;
	line->last = share;
	if (share->fleet)
		stand_in_line(shares, share->fleet);
}

static struct share *next_in_line(struct shares *shares, struct line *line)
{
	struct share *share;

	while ((share = line->first)) {
		line->first = share->next_ready;
		if (!line->first)
			line->last = NULL;
		share->is_ready = false;
		/* What came to it by shares_move() since it stood in line may have filled it. */
		if (has_room(shares, share))
			return share;
	}
	return NULL;
}

static void add_waiting(struct share *share, int n)
{
	for (; share; share = share->fleet)
		share->n_waiting += (unsigned)n;
}

static void append(struct shares *shares, struct share *share, struct exchange *exchange)
{
	exchange->share = share;
	exchange->next = NULL;
	exchange->previous = share->tail;
	*(share->tail ? &share->tail->next : &share->head) = exchange;
	share->tail = exchange;
	add_waiting(share, 1);
	stand_in_line(shares, share);
}

/* It waits no more. */
static void discount(struct shares *shares, struct exchange *exchange)
{
	if (!exchange->is_counted)
		return;
	exchange->is_counted = false;
	exchange->share->n_new--;
	shares->waiting--;
}

static void find_longest(const void *node, VISIT visit, void *context)
{
	struct share *share = *(struct share *const *)node, **longest = context;

	if ((visit == preorder || visit == leaf) && (!*longest || share->n_new > (*longest)->n_new))
		*longest = share;
}

/* The last of the new ones in a queue that has some. */
static struct exchange *drop_last(struct shares *shares, struct share *share)
{
	struct exchange *exchange = share->tail;

	while (!exchange->is_counted)
		exchange = exchange->previous;
	*(exchange->previous ? &exchange->previous->next : &share->head) = exchange->next;
	*(exchange->next ? &exchange->next->previous : &share->tail) = exchange->previous;
	exchange->previous = exchange->next = NULL;
	add_waiting(share, -1);
	discount(shares, exchange);
	return exchange;
}

/* Whose place somebody with `n_new` of their own may have: only of who has at least two more; or NULL. */
static struct exchange *make_room(struct shares *shares, unsigned n_new)
{
	struct share *longest = NULL;

	twalk_r(shares->tree, find_longest, &longest);
	return longest && longest->n_new > n_new + 1 ? drop_last(shares, longest) : NULL;
}

enum share_result shares_offer(struct shares *shares, struct exchange *exchange,
			       struct exchange **ret_refused)
{
	struct share *share = share_of(shares, &exchange->share_key);

	*ret_refused = NULL;
	for (const struct share *full = share; full; full = full->fleet) {
		if (full->n_waiting < shares->limits[full->key.kind].waiting)
			continue;
		forget_if_idle(shares, share);
		return full == share ? SHARE_FULL : FLEET_FULL;
	}
	if (shares->waiting >= shares->max_waiting) {
		*ret_refused = make_room(shares, share->n_new);
		if (!*ret_refused) {
			forget_if_idle(shares, share);
			return SHARES_FULL;
		}
	}
	exchange->is_counted = true;
	shares->waiting++;
	share->n_new++;
	append(shares, share, exchange);
	return SHARE_TAKEN;
}

void shares_return(struct shares *shares, struct exchange *exchange)
{
	append(shares, share_of(shares, &exchange->share_key), exchange);
}

static struct exchange *take_from(struct shares *shares, struct share *share)
{
	struct exchange *exchange = share->head;

	share->head = exchange->next;
	*(share->head ? &share->head->previous : &share->tail) = NULL;
	exchange->next = NULL;
	add_waiting(share, -1);
	begin_work(share);
	discount(shares, exchange);
	return exchange;
}

struct exchange *shares_take(struct shares *shares)
{
	struct share *first, *share;
	struct exchange *exchange;

	while ((first = next_in_line(shares, &shares->ready))) {
		share = first->key.kind == SHARE_FLEET ? next_in_line(shares, &first->members) : first;
		if (!share)
			continue;
		exchange = take_from(shares, share);
		stand_in_line(shares, share);
		stand_in_line(shares, first);
		return exchange;
	}
	return NULL;
}

void shares_done(struct shares *shares, struct exchange *exchange)
{
	struct share *share = exchange->share;

	exchange->share = NULL;
	for (struct share *less = share; less; less = less->fleet) {
		less->in_work--;
		stand_in_line(shares, less);
	}
	forget_if_idle(shares, share);
}

bool shares_move(struct shares *shares, struct exchange *exchange, const struct share_key *key)
{
	struct share *target;

	if (compare(&exchange->share->key, key) == 0)
		return true;
	exchange->share_key = *key;
	target = share_of(shares, key);
	if (!has_room(shares, target) || (target->fleet && !has_room(shares, target->fleet))) {
		forget_if_idle(shares, target);
		return false;
	}
	begin_work(target);
	shares_done(shares, exchange);
	exchange->share = target;
	return true;
}

static void open_one(const void *node, VISIT visit, void *shares)
{
	if (visit == preorder || visit == leaf)
		stand_in_line(shares, *(struct share *const *)node);
}

void shares_open(struct shares *shares)
{
	shares->is_open = true;
	twalk_r(shares->tree, open_one, shares);
	stand_in_line(shares, &shares->nobodys);
}

int shares_new(unsigned waiting, const struct share_limits limits[static N_SHARE_KINDS],
	       struct shares **ret_shares)
{
	struct shares *shares = calloc(1, sizeof(*shares));

	if (!shares)
		return -ENOMEM;
	memcpy(shares->limits, limits, sizeof(shares->limits));
	shares->max_waiting = waiting;
	*ret_shares = shares;
	return 0;
}

void shares_free(struct shares *shares)
{
	if (shares)
		tdestroy(shares->tree, free);
	free(shares);
}
