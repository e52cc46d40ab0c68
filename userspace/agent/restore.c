// SPDX-License-Identifier: BSD-2-Clause
/* What the meter, the journal and files know of an epoch that goes on, back into memory. */
#include "agent/agent.h"

#include <errno.h>
#include <stdlib.h>

int restore_owners(const struct agent *agent, struct epoch *epoch)
{
	uint32_t capacity = meter_identity(epoch->meter)->capacity;
	int r = slots_create(capacity, &epoch->slots);

	for (uint32_t slot = 1; r == 0 && slot < capacity; slot++) {
		struct wt_owner owner;

		r = meter_get_owner(epoch->meter, slot, &owner);
		if (r == 0)
			slots_restore(&epoch->slots, slot, &owner);
	}
	if (r == 0)
		r = bases_load(agent, epoch);
	if (r == 0)
		r = replay_slots(agent->journal, &epoch->slots, meter_identity(epoch->meter)->map_uuid);
	return r;
}

void restore_state(struct agent *agent, struct epoch *epoch)
{
	struct meter_limit_state limit;
	bool up = false;

	meter_read_limit(epoch->meter, &limit);
	epoch->granted = limit.grant.cycle != 0;
	epoch->report.exhausted = limit.exhausted;
	if (net_link_is_up(agent->net, agent->config.interface, &up) < 0 || !up)
		return;
	agent->up = true;
	states_set(&epoch->report.states,
		   limit.exhausted || limit.refuse ? GATEWAY_SUSPENDED : GATEWAY_ACTIVE,
		   epoch->report.covered_to_ns);
}

/* As they come, out of order. */
static int load_entry(const struct cidr *prefix, const struct wt_attribution *attribution, void *data)
{
	struct table *loaded = data;

	if (loaded->count == loaded->size) {
		size_t size = loaded->size ? loaded->size * 2 : 64;
		struct table_entry *larger = realloc(loaded->entries, size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		loaded->entries = larger;
		loaded->size = size;
	}
	loaded->entries[loaded->count++] =
		(struct table_entry){*prefix, attribution->slot, attribution->incarnation};
	return 0;
}

int restore_table(struct epoch *epoch)
{
	struct table loaded = {0};
	int r = meter_for_each_prefix(epoch->meter, load_entry, &loaded);

	table_free(&epoch->table);
	if (r == 0)
		r = table_put_all(&epoch->table, loaded.entries, loaded.count);
	table_free(&loaded);
	return r;
}
