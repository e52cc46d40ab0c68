// SPDX-License-Identifier: BSD-2-Clause
#include "meter/handover.h"

#include "meter/carry.h"
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <sys/random.h>

/*
 * Waits until no program runs that had begun before. The kernel does so, by synchronize_rcu(), whenever a map
 * in a map is replaced: for this very purpose, and with no more rights than the meter has.
 */
static int wait_for_programs(void)
{
	_cleanup_close_ int inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "inner", 4, 4, 1, NULL);
	LIBBPF_OPTS(bpf_map_create_opts, options, .inner_map_fd = (uint32_t)inner);
	_cleanup_close_ int outer = -1;
	uint32_t zero = 0;

	if (inner < 0)
		return inner;
	outer = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "outer", 4, 4, 1, &options);
	return outer < 0 ? outer : bpf_map_update_elem(outer, &zero, &inner, BPF_ANY);
}

bool meter_is_outdated(const struct meter *meter)
{
	return meter->meta->abi != WT_METER_ABI;
}

static int copy_prefix(const struct cidr *prefix, const struct wt_attribution *attribution, void *data)
{
	return attribution_set(data, prefix, attribution);
}

/* Nobody writes to either while the folder is locked by us. */
static int copy_tables(const struct meter *old, struct meter *new)
{
	int r = attribution_recover(&new->table);

	if (r == 0)
		r = attribution_for_each(&old->table, copy_prefix, &new->table);
	for (uint32_t slot = 0; r == 0 && slot < old->meta->capacity; slot++)
		new->owners[slot] = old->owners[slot];
	return r;
}

static int pin_links(struct meter *new, const struct meter *old)
{
	int r = 0;

	for (int i = OBJECT_INGRESS_LINK; r == 0 && i < OBJECTS; i++) {
		if (old->fds[i] >= 0)
			r = pins_add(new->folder, PINS_NEW, (enum meter_object)i, old->fds[i]);
	}
	return r;
}

void handover_undo(struct meter *live)
{
	for (uint32_t slot = 0; slot < live->meta->capacity; slot++)
		carry_release(live, slot);
}

/* The new meter, complete but for what the old one counts until the swap; it has half of the credit. */
static int prepare(struct meter *old, const struct wt_meta *meta, struct meter *new)
{
	int r = meter_load(new, meta, meta->attachment == WT_ATTACHED_XDP);

	for (int i = 0; i < OBJECTS; i++) {
		cleanup_close(&new->fds[i]);
		new->fds[i] = -1;
	}
	if (r == 0)
		r = pin_links(new, old);
	if (r == 0)
		r = meter_open_stage(new, PINS_NEW);
	if (r == 0)
		r = copy_tables(old, new);
	if (r < 0)
		return r;
	for (uint32_t slot = 0; slot < old->meta->capacity; slot++)
		carry_hold(old, slot);
	r = wait_for_programs();
	for (uint32_t slot = 0; r == 0 && slot < old->meta->capacity; slot++)
		carry_lend(old, new, slot);
	credit_recover(new);
	return r;
}

/* From `live` and `next` to `sealed` and `live`. Whatever was done of it is done again. */
static int complete(const struct meter *old, struct meter *new)
{
	int r = attach_swap(new->meta, new->fds);

	/* An interface that is gone has no packets, and its meter is found stale. */
	if (r == 0 || r == -ENOLINK)
		r = wait_for_programs();
	for (uint32_t slot = 0; r == 0 && slot < old->meta->capacity; slot++)
		carry_finish(old, new, slot);
	if (r == 0)
		r = pins_move(old->folder, PINS_LIVE, PINS_SEALED);
	return r < 0 ? r : pins_move(old->folder, PINS_NEXT, PINS_LIVE);
}

static int describe(const struct meter *old, uint32_t capacity, struct wt_meta *ret_meta)
{
	int r;

	if (old->stale || !attach_is_on(old->meta, old->meta->ifindex, old->fds))
		return -ESTALE;
	if (pins_exist(old->folder, PINS_SEALED))
		return -EBUSY;
	if (capacity && capacity < old->meta->capacity)
		return -ERANGE;
	*ret_meta = *old->meta;
	ret_meta->abi = WT_METER_ABI;
	r = meter_size(ret_meta, capacity ? capacity : old->meta->capacity);
	if (r < 0)
		return r;
	if (getrandom(ret_meta->map_uuid, sizeof(ret_meta->map_uuid), 0) != sizeof(ret_meta->map_uuid))
		return -EIO;
	return 0;
}

int meter_hand_over(struct meter **meter, uint32_t capacity)
{
	struct meter *old = *meter;
	_cleanup_meter_ struct meter *new = meter_blank(old->folder);
	struct wt_meta meta;
	int r = new ? describe(old, capacity, &meta) : -ENOMEM;

	if (r < 0)
		return r;
	r = prepare(old, &meta, new);
	if (r == 0)
		r = pins_move(old->folder, PINS_NEW, PINS_NEXT);
	if (r < 0) {
		int cleared = pins_clear(old->folder, PINS_NEW);

		handover_undo(old);
		return cleared < 0 ? cleared : r;
	}
	if (complete(old, new) < 0)
		return -EIO;
	new->lock = TAKE_FD(old->lock);
	meter_close(old);
	*meter = TAKE_PTR(new);
	return 0;
}

static int open_stage(const char *folder, const char *stage, struct meter **ret_meter)
{
	_cleanup_meter_ struct meter *meter = meter_blank(folder);
	int r = meter ? meter_open_stage(meter, stage) : -ENOMEM;

	if (r == 0)
		*ret_meter = TAKE_PTR(meter);
	return r;
}

static int finish(const char *folder)
{
	_cleanup_meter_ struct meter *old = NULL, *new = NULL;
	int r = open_stage(folder, PINS_LIVE, &old);

	if (r == 0)
		r = open_stage(folder, PINS_NEXT, &new);
	return r < 0 ? r : complete(old, new);
}

int handover_recover(const char *folder)
{
	if (!pins_exist(folder, PINS_NEXT))
		return 0;
	if (pins_exist(folder, PINS_LIVE))
		return finish(folder);
	return pins_move(folder, PINS_NEXT, PINS_LIVE);
}

int meter_open_sealed(const struct meter *meter, struct meter **ret_sealed)
{
	int r = open_stage(meter->folder, PINS_SEALED, ret_sealed);

	if (r == 0)
		(*ret_sealed)->stale = true;
	return r;
}

int meter_forget_sealed(const struct meter *meter, struct meter *sealed)
{
	meter_close(sealed);
	return pins_clear(meter->folder, PINS_SEALED);
}
