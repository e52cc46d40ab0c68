/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The meter's maps: what the BPF programs and user space share. Both sides compile this file, so only kernel
 * types, explicit padding and asserted sizes. A change of any layout raises WT_METER_ABI (or, for the pool,
 * which outlives a change of the programs, WT_POOL_ABI).
 */
#ifndef WIRETOLL_METER_ABI_H
#define WIRETOLL_METER_ABI_H

#include <linux/types.h>

#define WT_METER_ABI 1
#define WT_POOL_ABI  1

/* Peers have slots 1 .. capacity - 1. Slot 0 counts what belongs to no peer. */
#define WT_SLOT_UNATTRIBUTED 0
#define WT_DEFAULT_CAPACITY  4096
#define WT_MAX_CAPACITY      (1 << 20)

/* Directions, seen from the peer: upload enters the gateway (ingress of the interface), download leaves it.
 */
#define WT_UPLOADS   1
#define WT_DOWNLOADS 2

/* Reasons, set by user space, for which every packet of the interface is refused. */
#define WT_REFUSE_ADMIN   1
#define WT_REFUSE_BILLING 2

#define WT_NO_CEILING (~0ULL)

/* Keys of the attribution tries: prefix length in bits, then the address in network byte order. */
struct wt_prefix4 {
	__u32 prefix_length;
	__u8 address[4];
};

struct wt_prefix6 {
	__u32 prefix_length;
	__u8 address[16];
};

/* Which slot a prefix is counted in. The incarnation tells a re-used slot from its earlier owner. */
struct wt_attribution {
	__u32 slot;
	__u32 incarnation;
};

/*
 * One peer's counts on one CPU: a cache line of its own, written by that CPU alone and only ever grown. The
 * array is laid out [possible CPU][capacity rounded up to 64], so each CPU's block starts on a page.
 */
struct wt_cell {
	__u64 upload_bytes;
	__u64 upload_packets;
	__u64 download_bytes;
	__u64 download_packets;
	__u64 refused_bytes;
	__u64 refused_packets;
	__u64 reserved[2]; /* a peer's own lease, with per-peer limits */
};

/*
 * The interface's counts on one CPU, with the CPU's lease: credit drawn from the pool and not yet used.
 * counted covers the directions of the mask in force. Two lines, so that neighbours do not prefetch each
 * other.
 */
struct wt_interface_cell {
	__u64 counted;
	__u64 lease;
	__u64 lease_generation;
	__u64 refused_bytes;
	__u64 refused_packets;
	__u64 unparsed_packets; /* counted by their length, as their headers could not be followed */
	__u64 reserved[10];
};

/*
 * The credit of an interface. Positions are absolute, on the line of `counted` summed over all CPUs since
 * the epoch began: user space stores a ceiling and then raises `generation`, programs move `drawn`, and
 * drawn == counted + all leases always. Each word has one kind of writer, so nothing is ever lost, and
 * applying a grant twice changes nothing. With mask 0, before the first grant, nothing draws credit.
 */
struct wt_pool {
	/* The line that every packet reads. By user space but for exhausted_generation. */
	__u64 generation; /* from 1, raised after every change; a lease of an older one is given back */
	__u64 exhausted_generation; /* by the programs, only upwards: refusal latches while it equals
				       generation */
	__u32 mask;                 /* WT_UPLOADS | WT_DOWNLOADS: the directions that draw credit */
	__u32 refuse;               /* WT_REFUSE_* */
	__u64 ceiling;              /* drawn may not pass it; WT_NO_CEILING: no limit */
	__u64 max_lease;            /* bytes that one CPU may hold */
	__u64 base;                 /* where the grant's cycle begins on the line of counted */
	__u64 cycle;                /* the grant's cycle and number: for user space only */
	__u64 grant_seq;
	/* For user space only: the grant being stored, so that a crash half way is finished by the next
	 * process. */
	__u32 abi; /* WT_POOL_ABI */
	__u32 pending_mask;
	__u64 pending_generation; /* 0: none; the last to be stored and the last to be cleared */
	__u64 pending_ceiling;
	__u64 pending_base;
	__u64 pending_cycle;
	__u64 pending_grant_seq;
	__u64 reserved0[2];
	/* By the programs, when a lease is drawn or given back: a line of its own. */
	__u64 drawn;
	__u64 reserved1[15];
};

/*
 * The largest aggregate that the bound on unspent credit allows for: 64 KiB with a segment size of 48 and 60
 * bytes of headers makes 147,000 bytes on the wire. And the bound itself: what a limit may leave unspent.
 */
#define WT_LARGEST_AGGREGATE (256 * 1024)
#define WT_UNSPENT_BOUND     1000000

/* What the pinned maps belong to: see docs/decisions/meter-pins.md. */
struct wt_meta {
	__u32 abi;
	__u32 capacity;
	__u32 cpus;   /* possible CPUs: the number of blocks */
	__u32 stride; /* cells in a block */
	__u32 ifindex;
	__u32 attachment; /* WT_ATTACHED_* */
	__u64 netns_cookie;
	__u8 map_uuid[16];
	__u8 boot_id[16];
	char ifname[16];
};

#define WT_ATTACHED_TCX 1
#define WT_ATTACHED_TC  2

/* Whose slot it is. Written by user space only; it stands beside the counts so that a restart finds it. */
struct wt_owner {
	__u8 peer_id[16];
	__u32 incarnation;
	__u32 flags; /* WT_OWNER_* */
	__u64 reserved;
};

#define WT_OWNER_IN_USE   1
#define WT_OWNER_RETIRING 2 /* the peer is gone; the slot is free once its last count is acknowledged */

/* The ring buffer's only record: something wants user space's attention; the maps hold the truth. */
struct wt_event {
	__u32 kind; /* WT_EVENT_* */
	__u32 reserved;
	__u64 generation;
};

#define WT_EVENT_EXHAUSTED 1

_Static_assert(sizeof(struct wt_prefix4) == 8, "layout");
_Static_assert(sizeof(struct wt_prefix6) == 20, "layout");
_Static_assert(sizeof(struct wt_attribution) == 8, "layout");
_Static_assert(sizeof(struct wt_cell) == 64, "a cell is one cache line");
_Static_assert(sizeof(struct wt_interface_cell) == 128, "layout");
_Static_assert(sizeof(struct wt_pool) == 256 && __builtin_offsetof(struct wt_pool, drawn) == 128, "layout");
_Static_assert(sizeof(struct wt_meta) == 80, "layout");
_Static_assert(sizeof(struct wt_owner) == 32, "layout");
_Static_assert(sizeof(struct wt_event) == 16, "layout");

#endif
