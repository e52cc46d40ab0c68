/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The maps of the meter. Sizes marked "at load" are set by user space before the object is loaded. The
 * mmapable ones are read, and the pool written, by user space through its own mapping.
 */
#ifndef WIRETOLL_BPF_MAPS_H
#define WIRETOLL_BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <wiretoll/meter_abi.h>

/* Bytes in front of the IP header: 0 on a layer 3 device, 14 on Ethernet and in BPF_PROG_TEST_RUN. */
const volatile __u32 l3_offset = 0;
const volatile __u32 capacity = WT_DEFAULT_CAPACITY;
const volatile __u32 stride = WT_DEFAULT_CAPACITY;
const volatile __u32 cpus = 1;

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* at load */
	__type(key, struct wt_prefix4);
	__type(value, struct wt_attribution);
} prefixes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* at load */
	__type(key, struct wt_prefix6);
	__type(value, struct wt_attribution);
} prefixes6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: cpus * stride */
	__type(key, __u32);
	__type(value, struct wt_cell);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: cpus */
	__type(key, __u32);
	__type(value, struct wt_interface_cell);
} iface_cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wt_pool);
} pool SEC(".maps");

/* By slot; slot 0 has none. Not looked at unless the slot's bit is set below. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: capacity */
	__type(key, __u32);
	__type(value, struct wt_pool);
} peer_pools SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* at load: a bit for each slot */
	__type(key, __u32);
	__type(value, __u64);
} flagged_peers SEC(".maps");

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
	__uint(max_entries, 1); /* at load: capacity */
	__type(key, __u32);
	__type(value, struct wt_owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1); /* at load: a page */
} events SEC(".maps");

#endif
