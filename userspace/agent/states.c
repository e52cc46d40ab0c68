// SPDX-License-Identifier: BSD-2-Clause
#include "agent/states.h"

#include <string.h>

void states_set(struct states *states, enum gateway_state state, int64_t now_ns)
{
	struct batch_state *open = states->n ? &states->list[states->n - 1] : NULL;

	if ((open ? open->state : GATEWAY_DOWN) == state)
		return;
	/* One place is left for what goes on behind a batch. */
	if (states->n == STATES_MAX - 1) {
		open->state = state;
		return;
	}
	if (open)
		open->to_ns = now_ns;
	states->list[states->n++] = (struct batch_state){.from_ns = now_ns, .state = state};
}

bool states_take(struct states *states, struct batch_head *head)
{
	struct batch_state open;
	size_t n = states->n < WT_REPORT_MAX_STATES ? states->n : WT_REPORT_MAX_STATES;

	if (states->n == 0)
		return false;
	open = states->list[states->n - 1];
	states->list[states->n - 1].to_ns = head->covered_to_ns;
	for (size_t i = 0; i < n; i++)
		if (states->list[i].state != GATEWAY_DOWN)
			head->states[head->n_states++] = states->list[i];
	states->n -= n;
	memmove(states->list, states->list + n, states->n * sizeof(states->list[0]));
	n = states->n;
	open.from_ns = head->covered_to_ns;
	if (open.state != GATEWAY_DOWN)
		states->list[states->n++] = open;
	return n > 0;
}
