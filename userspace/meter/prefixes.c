// SPDX-License-Identifier: BSD-2-Clause
/* The attribution tables: which slot a prefix is counted in. */
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Both families' keys begin alike, so that the larger one serves for both. */
_Static_assert(offsetof(struct wt_prefix4, address) == offsetof(struct wt_prefix6, address), "layout");

static int make_key(const struct meter *meter, const struct cidr *prefix, struct wt_prefix6 *ret_key,
		    int *ret_map)
{
	if (!cidr_is_network(prefix))
		return -EINVAL;
	memset(ret_key, 0, sizeof(*ret_key));
	ret_key->prefix_length = prefix->prefix_length;
	memcpy(ret_key->address, prefix->bytes, cidr_max_length(prefix) / 8);
	*ret_map = meter->fds[prefix->family == AF_INET ? OBJECT_PREFIXES4 : OBJECT_PREFIXES6];
	return 0;
}

int meter_set_prefix(struct meter *meter, const struct cidr *prefix, uint32_t slot, uint32_t incarnation)
{
	const struct wt_attribution value = {.slot = slot, .incarnation = incarnation};
	struct wt_prefix6 key;
	int map, r;

	if (meter->stale)
		return -ESTALE;
	if (slot >= meter->meta->capacity)
		return -ERANGE;
	r = make_key(meter, prefix, &key, &map);
	return r < 0 ? r : bpf_map_update_elem(map, &key, &value, BPF_ANY);
}

int meter_delete_prefix(struct meter *meter, const struct cidr *prefix)
{
	struct wt_prefix6 key;
	int map, r;

	if (meter->stale)
		return -ESTALE;
	r = make_key(meter, prefix, &key, &map);
	return r < 0 ? r : bpf_map_delete_elem(map, &key);
}

static int walk(int map, int family, meter_prefix_fn fn, void *data)
{
	struct wt_prefix6 key = {0};
	struct wt_attribution value;
	bool first = true;
	int r;

	while ((r = bpf_map_get_next_key(map, first ? NULL : &key, &key)) == 0) {
		struct cidr prefix = {.family = family, .prefix_length = key.prefix_length};

		first = false;
		memcpy(prefix.bytes, key.address, family == AF_INET ? 4 : 16);
		r = bpf_map_lookup_elem(map, &key, &value);
		if (r == 0)
			r = fn(&prefix, &value, data);
		if (r != 0)
			return r;
	}
	return r == -ENOENT ? 0 : r;
}

int meter_for_each_prefix(struct meter *meter, meter_prefix_fn fn, void *data)
{
	int r = walk(meter->fds[OBJECT_PREFIXES4], AF_INET, fn, data);

	return r != 0 ? r : walk(meter->fds[OBJECT_PREFIXES6], AF_INET6, fn, data);
}
