// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The designs to compare with. Each is as cheap as it can be: no true length, no limit, one direction.
 *   naive       longest-prefix trie, then a per-CPU hash: what most eBPF meters do
 *   trie        the same trie, then a per-CPU array
 *   shared      one counter for all, by atomic adds
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

const volatile __u32 l3_offset = 0;

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* at load, here and below */
	__type(key, struct naive_key4);
	__type(value, __u32);
} trie4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct naive_key6);
	__type(value, __u32);
} trie6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct naive_count);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct naive_count);
} array SEC(".maps");

struct naive_count together;

static __always_inline __u32 find(struct __sk_buff *skb)
{
	struct naive_key4 key4 = {.prefix_length = 32};
	struct naive_key6 key6 = {.prefix_length = 128};
	__u32 *slot = NULL;
	__u8 first;

	if (bpf_skb_load_bytes(skb, l3_offset, &first, 1))
		return 0;
	if (first >> 4 == 4 && !bpf_skb_load_bytes(skb, l3_offset + 16, key4.address, 4))
		slot = bpf_map_lookup_elem(&trie4, &key4);
	else if (first >> 4 == 6 && !bpf_skb_load_bytes(skb, l3_offset + 24, key6.address, 16))
		slot = bpf_map_lookup_elem(&trie6, &key6);
	return slot ? *slot : 0;
}

static __always_inline int count(struct __sk_buff *skb, struct naive_count *counter)
{
	if (counter) {
		counter->bytes += skb->len - l3_offset;
		counter->packets++;
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int naive(struct __sk_buff *skb)
{
	__u32 slot = find(skb);

	return count(skb, bpf_map_lookup_elem(&hash, &slot));
}

SEC("tc")
int trie(struct __sk_buff *skb)
{
	__u32 slot = find(skb);

	return count(skb, bpf_map_lookup_elem(&array, &slot));
}

SEC("tc")
int shared(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&together.bytes, skb->len - l3_offset);
	__sync_fetch_and_add(&together.packets, 1);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
