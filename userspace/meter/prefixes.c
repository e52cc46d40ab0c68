// SPDX-License-Identifier: BSD-2-Clause
/* The attribution table of a meter: which slot a prefix is counted in. */
#include "meter/internal.h"

#include <errno.h>

int meter_set_prefix(struct meter *meter, const struct cidr *prefix, uint32_t slot, uint32_t incarnation)
{
	const struct wt_attribution attribution = {.slot = slot, .incarnation = incarnation};

	if (meter->stale)
		return -ESTALE;
	if (slot >= meter->meta->capacity)
		return -ERANGE;
	if (!cidr_is_network(prefix))
		return -EINVAL;
	return attribution_set(&meter->table, prefix, &attribution);
}

int meter_delete_prefix(struct meter *meter, const struct cidr *prefix)
{
	if (meter->stale)
		return -ESTALE;
	return cidr_is_network(prefix) ? attribution_delete(&meter->table, prefix) : -EINVAL;
}

int meter_for_each_prefix(struct meter *meter, meter_prefix_fn fn, void *data)
{
	return attribution_for_each(&meter->table, fn, data);
}
