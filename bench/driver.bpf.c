// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What drives the programs under test: gives each packet the next of a table of addresses and goes on in the
 * program under test by a tail call. The baseline is the same driver in front of an empty program, so what
 * is measured is the real program, as it is attached to an interface, and the difference is its cost alone.
 *
 * The table takes room in the caches that the program under test then has to do without, and the baseline,
 * which has nothing there, does not show it. So only that part of an address is in it by which peers differ,
 * and no more addresses than a few for each peer.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define ETHERNET 14

__u32 keys4[BENCH_KEYS];
__u64 keys6[BENCH_KEYS]; /* the upper halves of scattered addresses; dense ones differ as keys4 do */
/* Every CPU reads the mask for each packet and writes its cursor: not in one line. */
struct bench_cursor cursors[BENCH_CPUS];
__u32 key_mask __attribute__((aligned(128))); /* the tables repeat what is under it */
__u32 second; /* which of two targets: to exchange the target itself would patch code */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

static __always_inline __u32 next_key(void)
{
	return cursors[bpf_get_smp_processor_id() & (BENCH_CPUS - 1)].next++ & key_mask & (BENCH_KEYS - 1);
}

static __always_inline int go_on(struct __sk_buff *skb)
{
	if (second)
		bpf_tail_call_static(skb, &target, 1);
	else
		bpf_tail_call_static(skb, &target, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int drive4(struct __sk_buff *skb)
{
	__u8 *ip = (__u8 *)(long)skb->data + ETHERNET, *end = (__u8 *)(long)skb->data_end;

	if (ip + 20 > end)
		return TC_ACT_SHOT;
	*(__u32 *)(ip + 16) = keys4[next_key()];
	return go_on(skb);
}

SEC("tc")
int drive6(struct __sk_buff *skb)
{
	__u8 *ip = (__u8 *)(long)skb->data + ETHERNET, *end = (__u8 *)(long)skb->data_end;

	if (ip + 40 > end)
		return TC_ACT_SHOT;
	*(__u64 *)(ip + 24) = keys6[next_key()];
	return go_on(skb);
}

SEC("tc")
int drive6_dense(struct __sk_buff *skb)
{
	__u8 *ip = (__u8 *)(long)skb->data + ETHERNET, *end = (__u8 *)(long)skb->data_end;

	if (ip + 40 > end)
		return TC_ACT_SHOT;
	*(__u32 *)(ip + 36) = keys4[next_key()];
	return go_on(skb);
}

/* Both hooks' baseline: goes on with the next program, as the meter does. */
SEC("tc")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/*
 * Live frames: their pages come back with what the stack has written, so the header is made anew each time.
 * From one peer to another, so that both hooks have somebody to count.
 */
SEC("xdp")
int live4(struct xdp_md *context)
{
	__u8 *ip = (__u8 *)(long)context->data + ETHERNET, *end = (__u8 *)(long)context->data_end;
	__u32 index = next_key(), sum = 0;
	__u16 *words = (__u16 *)ip;

	if (ip + 20 > end)
		return XDP_ABORTED;
	*(__u32 *)(ip + 12) = keys4[(index + key_mask / 2 + 1) & key_mask & (BENCH_KEYS - 1)];
	*(__u32 *)(ip + 16) = keys4[index];
	ip[8] = 64;
	words[5] = 0;
	for (int i = 0; i < 10; i++)
		sum += words[i];
	words[5] = fold(sum);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
