// SPDX-License-Identifier: BSD-2-Clause
#include "agent/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Prefixes sorted, none within another: then only the last one that does not follow an address can hold it.
 */
struct set {
	struct cidr *items;
	size_t n;
};

struct verdict {
	const struct set *revoked, *peers, *vpc;
};

void flows_free(struct flows *flows)
{
	free(flows->revoked);
	*flows = (struct flows){0};
}

static void set_add(struct set *set, const struct cidr *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		set->items[set->n++] = cidr_network(&items[i]);
}

static void set_order(struct set *set)
{
	size_t kept = 0;

	if (set->n > 0)
		qsort(set->items, set->n, sizeof(*set->items), cidr_compare);
	for (size_t i = 0; i < set->n; i++)
		if (kept == 0 || !cidr_contains(&set->items[kept - 1], &set->items[i]))
			set->items[kept++] = set->items[i];
	set->n = kept;
}

static bool set_holds(const struct set *set, const struct cidr *address)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (cidr_compare(&set->items[middle], address) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && cidr_contains(&set->items[low - 1], address);
}

static int compare_peers(const void *a, const void *b)
{
	const struct desired_peer *const *one = a, *const *other = b;

	return memcmp((*one)->id, (*other)->id, UUID_SIZE);
}

static int compare_id(const void *id, const void *peer)
{
	return memcmp(id, (*(const struct desired_peer *const *)peer)->id, UUID_SIZE);
}

static bool still_has(const struct desired_peer **by_id, size_t n, const uint8_t *id,
		      const struct cidr *prefix)
{
	const struct desired_peer **peer = n ? bsearch(id, by_id, n, sizeof(*by_id), compare_id) : NULL;

	return peer && (*peer)->enabled && cidr_list_has(&(*peer)->allowed_ips, prefix);
}

int flows_collect(const struct agent *agent, const struct desired *desired, struct flows *ret_flows)
{
	const struct desired_peer **by_id _cleanup_free_ = calloc(desired->n_peers + 1, sizeof(*by_id));
	struct flows flows = {.revoked = calloc(agent->epoch.table.count + 1, sizeof(*flows.revoked)),
			      .vpc_changed = !agent->applied || !cidr_list_equal(&agent->applied->vpc_subnets,
										 &desired->vpc_subnets)};

	if (!by_id || !flows.revoked) {
		flows_free(&flows);
		return -ENOMEM;
	}
	for (size_t i = 0; i < desired->n_peers; i++)
		by_id[i] = &desired->peers[i];
	qsort(by_id, desired->n_peers, sizeof(*by_id), compare_peers);
	/* The meter's table, not what was applied: it is pinned, and says so after a crash as well. */
	for (size_t i = 0; i < agent->epoch.table.count; i++) {
		const struct table_entry *entry = &agent->epoch.table.entries[i];
		const uint8_t *owner = agent->epoch.slots.slots[entry->slot].peer_id;

		if (!still_has(by_id, desired->n_peers, owner, &entry->prefix))
			flows.revoked[flows.n_revoked++] = entry->prefix;
	}
	*ret_flows = flows;
	return 0;
}

/* Between a peer and what is no range of the VPC, or of a prefix that its peer has no more. */
static bool is_over(const struct cidr *source, const struct cidr *destination, void *data)
{
	const struct verdict *verdict = data;

	if (set_holds(verdict->revoked, source) || set_holds(verdict->revoked, destination))
		return true;
	if (set_holds(verdict->vpc, source) || set_holds(verdict->vpc, destination))
		return false;
	return set_holds(verdict->peers, source) || set_holds(verdict->peers, destination);
}

int flows_end(const struct flows *flows, const struct desired *desired)
{
	size_t n_peers = desired->tunnel_subnets.count + desired->remote_subnets.count;
	struct cidr *memory _cleanup_free_ = NULL;
	struct set revoked, peers, vpc;

	if (flows->n_revoked == 0 && !flows->vpc_changed)
		return 0;
	memory = calloc(flows->n_revoked + n_peers + desired->vpc_subnets.count + 1, sizeof(*memory));
	if (!memory)
		return -ENOMEM;
	revoked = (struct set){.items = memory};
	peers = (struct set){.items = revoked.items + flows->n_revoked};
	vpc = (struct set){.items = peers.items + n_peers};
	set_add(&revoked, flows->revoked, flows->n_revoked);
	set_add(&peers, desired->tunnel_subnets.items, desired->tunnel_subnets.count);
	set_add(&peers, desired->remote_subnets.items, desired->remote_subnets.count);
	set_add(&vpc, desired->vpc_subnets.items, desired->vpc_subnets.count);
	set_order(&revoked);
	set_order(&peers);
	set_order(&vpc);
	return net_forget_flows(is_over, &(struct verdict){&revoked, &peers, &vpc});
}
