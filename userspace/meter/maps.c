// SPDX-License-Identifier: BSD-2-Clause
/* The maps as user space sees them: through mappings, with no system call. */
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int map_array(struct meter *meter, enum meter_object object, size_t value_size, uint64_t entries,
		     int protection, void *ret_mapping)
{
	struct bpf_map_info info = {0};
	uint32_t info_size = sizeof(info);
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size;
	void *mapping;
	int r;

	if (meter->fds[object] < 0)
		return -ENODATA;
	r = bpf_obj_get_info_by_fd(meter->fds[object], &info, &info_size);
	if (r < 0)
		return r;
	if (info.value_size != value_size || info.max_entries != entries)
		return -EPROTO;
	size = (value_size * entries + page - 1) / page * page;
	mapping = mmap(NULL, size, protection, MAP_SHARED, meter->fds[object], 0);
	if (mapping == MAP_FAILED)
		return -errno;
	meter->sizes[object] = size;
	*(void **)ret_mapping = mapping;
	return 0;
}

static void unmap_array(struct meter *meter, enum meter_object object, const void *mapping)
{
	if (mapping)
		munmap((void *)mapping, meter->sizes[object]);
}

void maps_identify(struct meter *meter)
{
	const struct wt_meta *meta = meter->meta;

	meter->identity = (struct meter_identity){
		.netns_cookie = meta->netns_cookie,
		.ifindex = meta->ifindex,
		.capacity = meta->capacity,
	};
	memcpy(meter->identity.map_uuid, meta->map_uuid, sizeof(meta->map_uuid));
	memcpy(meter->identity.boot_id, meta->boot_id, sizeof(meta->boot_id));
}

static bool layout_known(const struct wt_meta *meta)
{
	return meta->abi >= WT_METER_ABI_READ && meta->abi <= WT_METER_ABI && meta->cpus > 0 &&
	       meta->cpus <= WT_MAX_CPUS && meta->capacity > 0 && meta->stride == wt_stride(meta->capacity);
}

struct array {
	enum meter_object object;
	size_t size;
	uint64_t entries;
	int protection;
	void *ret_mapping;
};

static int map_arrays(struct meter *meter, const struct array *arrays, size_t count)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++)
		r = map_array(meter, arrays[i].object, arrays[i].size, arrays[i].entries,
			      arrays[i].protection, arrays[i].ret_mapping);
	return r;
}

static int map_table(struct meter *meter)
{
	const uint32_t capacity = meter->meta->capacity, buckets = wt_buckets(capacity);
	const int both = PROT_READ | PROT_WRITE;
	const struct array arrays[] = {
		{OBJECT_TABLE, sizeof(struct wt_table), 1, both, &meter->table.heads},
		{OBJECT_WINDOWS, sizeof(struct wt_window_line),
		 WT_FAMILIES * (wt_window_size(capacity) / WT_WINDOW_LINE), both, &meter->table.windows},
		{OBJECT_BUCKETS4, sizeof(struct wt_bucket4), buckets, both, &meter->table.buckets4},
		{OBJECT_BUCKETS6, sizeof(struct wt_bucket6), buckets, both, &meter->table.buckets6},
		{OBJECT_HINT_LINES, sizeof(struct wt_hint_line), wt_hint_lines(wt_hints(capacity)), both,
		 &meter->table.hint_lines},
		{OBJECT_INCARNATIONS, sizeof(struct wt_incarnations), WT_FAMILIES * buckets, both,
		 &meter->table.incarnations},
	};

	meter->table.capacity = capacity;
	return map_arrays(meter, arrays, ARRAY_SIZE(arrays));
}

/* Counts are the programs' alone: no store of ours can reach them. */
static int map_counts(struct meter *meter)
{
	const struct wt_meta *meta = meter->meta;
	const uint64_t slots = (uint64_t)meta->cpus * meta->stride;
	const int both = PROT_READ | PROT_WRITE;
	const struct array arrays[] = {
		{OBJECT_COUNTS, sizeof(struct wt_count), slots * WT_KINDS, PROT_READ, &meter->counts},
		{OBJECT_PURSES, sizeof(struct wt_purse), slots, PROT_READ, &meter->purses},
		{OBJECT_INTERFACE_CELLS, sizeof(struct wt_interface_cells), 1, PROT_READ,
		 &meter->interface_cells},
		{OBJECT_CREDIT, sizeof(struct wt_credit), 1, both, &meter->credit},
		{OBJECT_PEER_STATES, sizeof(__u64), meta->capacity, both, &meter->peer_states},
		{OBJECT_PEER_POOLS, sizeof(struct wt_pool), meta->capacity, both, &meter->peer_pools},
		{OBJECT_OWNERS, sizeof(struct wt_owner), meta->capacity, both, &meter->owners},
	};

	return map_arrays(meter, arrays, ARRAY_SIZE(arrays));
}

int maps_open(struct meter *meter)
{
	int r = map_array(meter, OBJECT_META, sizeof(*meter->meta), 1, PROT_READ, &meter->meta);

	if (r < 0)
		return r;
	if (!layout_known(meter->meta))
		return -EPROTO;
	r = map_counts(meter);
	if (r == 0)
		r = map_table(meter);
	if (r < 0)
		return r;
	if (meter->credit->pool.abi != WT_POOL_ABI)
		return -EPROTO;
	credit_recover(meter);
	maps_identify(meter);
	return 0;
}

void maps_close(struct meter *meter)
{
	unmap_array(meter, OBJECT_META, meter->meta);
	unmap_array(meter, OBJECT_COUNTS, meter->counts);
	unmap_array(meter, OBJECT_PURSES, meter->purses);
	unmap_array(meter, OBJECT_INTERFACE_CELLS, meter->interface_cells);
	unmap_array(meter, OBJECT_CREDIT, meter->credit);
	unmap_array(meter, OBJECT_PEER_STATES, meter->peer_states);
	unmap_array(meter, OBJECT_PEER_POOLS, meter->peer_pools);
	unmap_array(meter, OBJECT_OWNERS, meter->owners);
	attribution_release(&meter->table);
	unmap_array(meter, OBJECT_TABLE, meter->table.heads);
	unmap_array(meter, OBJECT_WINDOWS, meter->table.windows);
	unmap_array(meter, OBJECT_BUCKETS4, meter->table.buckets4);
	unmap_array(meter, OBJECT_BUCKETS6, meter->table.buckets6);
	unmap_array(meter, OBJECT_HINT_LINES, meter->table.hint_lines);
	unmap_array(meter, OBJECT_INCARNATIONS, meter->table.incarnations);
}

const struct meter_identity *meter_identity(const struct meter *meter)
{
	return &meter->identity;
}

const char *meter_interface(const struct meter *meter)
{
	return meter->meta->ifname;
}

const char *meter_attachment(const struct meter *meter)
{
	if (meter->meta->attachment == WT_ATTACHED_XDP)
		return "xdp";
	return meter->meta->attachment == WT_ATTACHED_TCX ? "tcx" : "tc";
}

/* The programs store whole words, so a load sees no half of one; relaxed, as words need no common moment. */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)

void meter_read(const struct meter *meter, uint32_t slot, struct meter_totals *ret_totals)
{
	const struct wt_meta *meta = meter->meta;
	struct meter_totals totals = {0};

	for (uint32_t cpu = 0; slot < meta->capacity && cpu < meta->cpus; cpu++) {
		const struct wt_count *count =
			&meter->counts[wt_count_index(cpu, WT_UPLOADED, slot, meta->stride)];

		totals.upload_bytes += LOAD(count->bytes);
		totals.upload_packets += LOAD(count->packets);
		count += meta->stride;
		totals.download_bytes += LOAD(count->bytes);
		totals.download_packets += LOAD(count->packets);
		count += meta->stride;
		totals.refused_bytes += LOAD(count->bytes);
		totals.refused_packets += LOAD(count->packets);
	}
	*ret_totals = totals;
}

void meter_read_interface(const struct meter *meter, struct meter_interface_totals *ret_totals)
{
	struct meter_interface_totals totals = {0};

	for (uint32_t cpu = 0; cpu < meter->meta->cpus; cpu++) {
		const struct wt_interface_cell *cell = &meter->interface_cells->of[cpu];

		totals.counted += LOAD(cell->purse.counted);
		totals.refused_bytes += LOAD(cell->refused_bytes);
		totals.refused_packets += LOAD(cell->refused_packets);
		totals.unparsed_packets += LOAD(cell->unparsed_packets);
	}
	*ret_totals = totals;
}

int meter_set_owner(struct meter *meter, uint32_t slot, const struct wt_owner *owner)
{
	if (meter->stale)
		return -ESTALE;
	if (slot >= meter->meta->capacity)
		return -ERANGE;
	/* The flags say whether the rest is there: last when a slot is taken, first when it is freed. */
	if (!owner->flags)
		__atomic_store_n(&meter->owners[slot].flags, 0, __ATOMIC_RELEASE);
	memcpy(meter->owners[slot].peer_id, owner->peer_id, sizeof(owner->peer_id));
	meter->owners[slot].incarnation = owner->incarnation;
	__atomic_store_n(&meter->owners[slot].flags, owner->flags, __ATOMIC_RELEASE);
	return 0;
}

int meter_get_owner(const struct meter *meter, uint32_t slot, struct wt_owner *ret_owner)
{
	if (slot >= meter->meta->capacity)
		return -ERANGE;
	*ret_owner = meter->owners[slot];
	return 0;
}
