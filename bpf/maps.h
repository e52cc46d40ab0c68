/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The maps of the meter. Sizes marked "at load" are set by user space before the object is loaded. The
 * mmapable ones are read, and those of credit and of attribution written, by user space through its own
 * mappings.
 */
#ifndef WIRETOLL_BPF_MAPS_H
#define WIRETOLL_BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <wiretoll/attribution.h>
#include <wiretoll/meter_abi.h>

/* Bytes in front of the IP header: 0 on a layer 3 device, 14 on Ethernet and in BPF_PROG_TEST_RUN. */
const volatile __u32 l3_offset = 0;
const volatile __u32 capacity = WT_DEFAULT_CAPACITY;
const volatile __u32 stride = WT_DEFAULT_CAPACITY;
const volatile __u32 cpus = 1;
const volatile __u32 buckets = 1;
const volatile __u32 hints = 1;
const volatile __u32 window_lines = 1; /* of one family */

/*
 * One of each, so that programs have their addresses and look nothing up: each of these sections is an array
 * of one element.
 */
struct wt_table table SEC(".data.table");
struct wt_credit credit SEC(".data.credit");
struct wt_interface_cells interface_cells; /* alone in .bss */

/* The rest of the attribution table: see <wiretoll/attribution.h>. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load */
	__type(key, __u32);
	__type(value, struct wt_window_line);
} windows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: buckets */
	__type(key, __u32);
	__type(value, struct wt_bucket4);
} buckets4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: buckets */
	__type(key, __u32);
	__type(value, struct wt_bucket6);
} buckets6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load */
	__type(key, __u32);
	__type(value, struct wt_hint_line);
} hint_lines SEC(".maps");

/* See wt_count_index() and wt_purse_index(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: cpus * WT_KINDS * stride */
	__type(key, __u32);
	__type(value, struct wt_count);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: cpus * stride */
	__type(key, __u32);
	__type(value, struct wt_purse);
} purses SEC(".maps");

/* Both by slot; slot 0 has none. Not looked at unless the interface's state says that peers have limits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: capacity */
	__type(key, __u32);
	__type(value, __u64);
} peer_states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: capacity */
	__type(key, __u32);
	__type(value, struct wt_pool);
} peer_pools SEC(".maps");

/* Not touched by the programs: they stand here so that they are made, pinned and adopted with the rest. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wt_meta);
} meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: buckets of both families */
	__type(key, __u32);
	__type(value, struct wt_incarnations);
} incarnations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: capacity */
	__type(key, __u32);
	__type(value, struct wt_owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1); /* at load: a page */
} events SEC(".maps");

/* Lookups in plain arrays, of which the kernel makes a few instructions and no call. */
static __always_inline const struct wt_family *family_at(__u32 family)
{
	return &table.families[family];
}

static __always_inline const struct wt_window_line *window_line_at(__u32 family, __u32 index)
{
	index += family * window_lines;
	return bpf_map_lookup_elem(&windows, &index);
}

static __always_inline const struct wt_bucket4 *bucket4_at(__u32 index)
{
	return bpf_map_lookup_elem(&buckets4, &index);
}

static __always_inline const struct wt_bucket6 *bucket6_at(__u32 index)
{
	return bpf_map_lookup_elem(&buckets6, &index);
}

static __always_inline const struct wt_hint_line *hint_line_at(__u32 index)
{
	return bpf_map_lookup_elem(&hint_lines, &index);
}

#endif
