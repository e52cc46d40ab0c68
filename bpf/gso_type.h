/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Into what the kernel is going to cut an aggregate of UDP, by its own word: gso_type, which __sk_buff does
 * not show. It takes kfuncs (Linux 6.2) and the kernel's BTF, so only the programs of meter_typed.bpf.c have
 * it, and user space loads the others where these do not load.
 */
#ifndef WIRETOLL_BPF_GSO_TYPE_H
#define WIRETOLL_BPF_GSO_TYPE_H

#include "parse.h"

#ifdef WT_GSO_TYPE
#include <bpf/bpf_core_read.h>

struct sk_buff {
	unsigned char *head;
	unsigned int end;
} __attribute__((preserve_access_index));

struct skb_shared_info {
	unsigned int gso_type;
} __attribute__((preserve_access_index));

/* From include/linux/skbuff.h, where they stand in an enum without a name. */
enum wt_gso_type {
	WT_GSO_UDP_TUNNEL = 1 << 10,
	WT_GSO_UDP_TUNNEL_CSUM = 1 << 11,
	WT_GSO_UDP = 1 << 16, /* fragments */
	WT_GSO_UDP_L4 = 1 << 17,
};

extern void *bpf_cast_to_kern_ctx(void *context) __ksym;
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym;

WT_INLINE __u32 cut_of(struct __sk_buff *skb)
{
	const struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	const struct skb_shared_info *shared =
		bpf_rdonly_cast(kernel->head + kernel->end, bpf_core_type_id_kernel(struct skb_shared_info));
	__u32 type = shared->gso_type;

	if (type & WT_GSO_UDP)
		return WT_CUT_FRAGMENTS;
	if ((type & WT_GSO_UDP_L4) && !(type & (WT_GSO_UDP_TUNNEL | WT_GSO_UDP_TUNNEL_CSUM)))
		return WT_CUT_DATAGRAMS;
	return WT_CUT_UNKNOWN;
}
#else
WT_INLINE __u32 cut_of(struct __sk_buff *skb)
{
	(void)skb;
	return WT_CUT_UNKNOWN;
}
#endif

#endif
