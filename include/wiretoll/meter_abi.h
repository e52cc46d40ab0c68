/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The meter's maps: what the BPF programs and user space share. Both sides compile this file, so only kernel
 * types, explicit padding and asserted sizes. A change of any layout raises WT_METER_ABI (or, for the pool,
 * which outlives a change of the programs, WT_POOL_ABI).
 */
#ifndef WIRETOLL_METER_ABI_H
#define WIRETOLL_METER_ABI_H

#include <linux/types.h>

#define WT_METER_ABI 4
#define WT_POOL_ABI  3

/*
 * The oldest layout whose maps are read as this one's, so that its meter can be taken over, if they are of
 * the same sizes; any other is refused and counts on. Its programs know nothing of `carried`, which is 0
 * there.
 */
#define WT_METER_ABI_READ 3

/* Peers have slots 1 .. capacity - 1. Slot 0 counts what belongs to no peer. */
#define WT_SLOT_UNATTRIBUTED 0
#define WT_DEFAULT_CAPACITY  4096
#define WT_MAX_CAPACITY      (1 << 20)

/* Directions, seen from the peer: upload enters the gateway (ingress of the interface), download leaves it.
 */
#define WT_UPLOADS   1
#define WT_DOWNLOADS 2

/* Reasons, set by user space, for which every packet of the interface, or of one peer, is refused. */
#define WT_REFUSE_ADMIN    1
#define WT_REFUSE_BILLING  2
#define WT_REFUSE_DISABLED 4

#define WT_NO_CEILING (~0ULL)

/* Which slot a prefix is counted in. The incarnation tells a re-used slot from its earlier owner. */
struct wt_attribution {
	__u32 slot;
	__u32 incarnation;
};

/*
 * A CPU's side of a limit: what it has counted against it, in the directions of the mask in force, and its
 * lease: credit drawn from the pool and not yet used. Written by that CPU alone; counted only ever grows. The
 * lease stands in the lower half of its word, and in the upper one the lower half of the sequence of the
 * state that it was drawn under.
 */
struct wt_purse {
	__u64 counted;
	__u64 lease;
};

static inline __attribute__((always_inline)) __u32 wt_lease_bytes(__u64 lease)
{
	return (__u32)lease;
}

/* What a CPU has counted, of a slot and a kind. Written by that CPU alone and only ever grown. */
struct wt_count {
	__u64 bytes;
	__u64 packets;
};

enum wt_kind { WT_UPLOADED, WT_DOWNLOADED, WT_REFUSED, WT_KINDS };

/*
 * The arrays by CPU are laid out [possible CPU][kind][stride] (counts) and [possible CPU][stride] (purses):
 * so many slots that each block is whole pages, and no two CPUs write one line.
 */
#define WT_STRIDE_UNIT 256

static inline __u32 wt_stride(__u32 capacity)
{
	return (capacity + WT_STRIDE_UNIT - 1) / WT_STRIDE_UNIT * WT_STRIDE_UNIT;
}

static inline __attribute__((always_inline)) __u32 wt_count_index(__u32 cpu, __u32 kind, __u32 slot,
								  __u32 stride)
{
	return (cpu * WT_KINDS + kind) * stride + slot;
}

static inline __attribute__((always_inline)) __u32 wt_purse_index(__u32 cpu, __u32 slot, __u32 stride)
{
	return cpu * stride + slot;
}

/* A power of two. More possible CPUs than that are refused. */
#define WT_MAX_CPUS 1024

/* The interface's on one CPU. Two lines, so that neighbours do not prefetch each other. */
struct wt_interface_cell {
	struct wt_purse purse;
	__u64 refused_bytes;
	__u64 refused_packets;
	__u64 unparsed_packets; /* counted by their length, as their headers could not be followed */
	__u64 reserved[11];
};

struct wt_interface_cells {
	struct wt_interface_cell of[WT_MAX_CPUS];
};

/*
 * A grant. Written by user space while it is neither in force nor next; from then on it stands still, but for
 * the base of a next grant, which is stored by the program that takes it up.
 */
struct wt_grant {
	__u64 ceiling;    /* in bytes of its cycle, or WT_NO_CEILING */
	__u64 base;       /* where its cycle begins on the line of counted */
	__u64 not_before; /* a next grant is not taken up before; boot time in ns */
	__u64 cycle;
	__u64 grant_seq;
	__u32 mask; /* WT_UPLOADS | WT_DOWNLOADS: the directions that draw credit */
	__u32 held; /* user space's: what this one stands in for during a hand-over (WT_HELD); else 0 */
};

/*
 * The credit of the interface, or of a peer. Positions are absolute, on the line of `counted` summed over all
 * CPUs since the epoch began: programs move `drawn` towards base + ceiling of the grant in force, and drawn
 * == counted + all leases always. A state word (WT_STATE_*) beside the pool says which grant that is: one
 * compare and swap changes it, so a grant is wholly in force or not at all, whoever crashes. Packets read
 * that word only; the pool is touched when a lease is drawn. All zero is no limit and nothing refused.
 */
struct wt_pool {
	__u32 max_lease; /* bytes that one CPU may hold */
	__u32 abi;       /* WT_POOL_ABI, once it is used */
	struct wt_grant grants[3];
	__u64 carried; /* where the line of counted begins: counted before a hand-over. Never changed */
	__u64 reserved0[4];
	/* By the programs, when a lease is drawn or given back: a line of its own. */
	__u64 drawn;
	__u64 doubts_begun; /* draws that are given back if the interface refuses, and those that are settled
			     */
	__u64 doubts_ended;
	__u64 reserved1[5];
};

/* The interface's credit. Peers have their state words in an array by slot, and their pools in another. */
struct wt_credit {
	__u64 state;
	__u64 reserved[7];
	struct wt_pool pool;
};

/*
 * Bits of a state word. The sequence above them is raised by every change but the latch (EXHAUSTED), so
 * that no value comes twice: a program that read it may change it, if it is still the same.
 */
#define WT_STATE_REASONS   0x07ULL /* WT_REFUSE_* */
#define WT_STATE_EXHAUSTED 0x08ULL /* latched by a program, cleared by a newer grant */
#define WT_STATE_TAKING_UP                                                                                   \
	0x10ULL /* a program is putting the next grant in force; no one else changes it                      \
		 */
#define WT_STATE_REFUSES        0x1fULL /* any of these: no packet passes */
#define WT_STATE_PEERS          0x20ULL /* of the interface: peers have states to be asked */
#define WT_STATE_MASK_SHIFT     8       /* two bits: the mask of the grant in force */
#define WT_STATE_LIVE_SHIFT     10      /* two bits: the grant in force */
#define WT_STATE_NEXT_SHIFT     12      /* two bits: the next grant and one; 0: there is none */
#define WT_STATE_FIELD          3ULL    /* each of the three, when shifted down */
#define WT_STATE_SEQUENCE_SHIFT 16

/* In wt_grant.held: the numbers of the grants that were in force and next (and one), and the latch. */
#define WT_HELD            0x80U
#define WT_HELD_LIVE_SHIFT 0
#define WT_HELD_NEXT_SHIFT 2
#define WT_HELD_EXHAUSTED  0x10U

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
	__u32 stride; /* slots in a block */
	__u32 ifindex;
	__u32 attachment; /* WT_ATTACHED_* */
	__u64 netns_cookie;
	__u8 map_uuid[16];
	__u8 boot_id[16];
	char ifname[16];
};

#define WT_ATTACHED_TCX 1
#define WT_ATTACHED_TC  2
#define WT_ATTACHED_XDP 3 /* on ingress; egress is a tcx link, or a filter if that is not pinned */

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
	__u32 slot; /* whose pool; 0: the interface's */
	__u64 sequence;
};

#define WT_EVENT_EXHAUSTED 1
#define WT_EVENT_TAKEN_UP  2 /* the next cycle's grant has come into force */

_Static_assert(sizeof(struct wt_attribution) == 8, "layout");
_Static_assert(sizeof(struct wt_count) == 16, "layout");
_Static_assert(WT_UPLOADS - 1 == WT_UPLOADED && WT_DOWNLOADS - 1 == WT_DOWNLOADED, "a direction's kind");
_Static_assert(sizeof(struct wt_interface_cell) == 128, "layout");
_Static_assert(sizeof(struct wt_purse) == 16, "layout");
_Static_assert(sizeof(struct wt_grant) == 48, "layout");
_Static_assert(sizeof(struct wt_pool) == 256 && __builtin_offsetof(struct wt_pool, drawn) == 192, "layout");
_Static_assert(sizeof(struct wt_credit) == 320, "layout");
_Static_assert(sizeof(struct wt_meta) == 80, "layout");
_Static_assert(sizeof(struct wt_owner) == 32, "layout");
_Static_assert(sizeof(struct wt_event) == 16, "layout");

#endif
