/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The attribution table: which slot an address belongs to, by the longest prefix that holds it. User space
 * writes it through its mappings, the programs read it at the same time; both compile this file. Why it is
 * like this, and why each order of stores is safe: docs/decisions/meter-attribution.md.
 *
 * The buckets hold every prefix but /0 and are the truth; the window repeats the single addresses of one
 * subnet in each family so that one load answers for them.
 */
#ifndef WIRETOLL_ATTRIBUTION_H
#define WIRETOLL_ATTRIBUTION_H

#include <linux/types.h>

#include <wiretoll/meter_abi.h>

/* On average, in each family. */
#define WT_PREFIXES_PER_PEER 4

/* Places in a bucket, and how many buckets on a prefix may stand when those before are full. */
#define WT_WAYS  7
#define WT_CHAIN 8

/* What a lookup returns, and what a window and a fallback hold: a slot with this bit, or 0 for none. */
#define WT_ATTRIBUTED (1U << 31)

#define WT_SLOT_BITS 20
#define WT_SLOT_MASK ((1U << WT_SLOT_BITS) - 1)

enum wt_family_index { WT_IPV4, WT_IPV6, WT_FAMILIES };

/*
 * A length is its mark: the lowest bit that belongs to the prefix (of the address's lower 64 bits, or of its
 * upper ones for IPv6 prefixes up to /64). The longest of several lengths is the lowest of their marks.
 */
struct wt_family {
	__u64 window_high; /* the first address of the window; IPv4 has the lower word only */
	__u64 window_low;
	__u32 window_size; /* addresses; 0: none yet. Stored last, and never changed again */
	__u32 fallback;    /* of the prefix /0 */
	__u64 lengths[2];  /* marks of the lengths in use: [0] in the lower word, [1] in the upper one */
	__u64 seed;
	__u32 fallback_incarnation; /* for user space only */
	__u32 reserved[3];
};

struct wt_table {
	struct wt_family families[WT_FAMILIES];
};

/* The windows of IPv4, then those of IPv6. */
#define WT_WINDOW_LINE 16
struct wt_window_line {
	__u32 slots[WT_WINDOW_LINE];
};

/*
 * words[0] holds a tag for each place (0x80 and seven bits of the hash; 0: free) in its bytes 1 to 7, and in
 * byte 0 how many prefixes stand further on because this bucket was full, at 255 for ever.
 * words[1..7]: the prefix as a key of 33 bits above its slot.
 */
struct wt_bucket4 {
	__u64 words[1 + WT_WAYS];
};

/*
 * entries[0].head: the tags. entries[1..7]: the head has the slot, the code of the length, a valid bit, and
 * above them a version that every new address raises; the address is in host order, with a lower half of 0 if
 * the prefix does not reach there. The first two share a cache line with the tags for such prefixes, and they
 * are taken first.
 */
struct wt_entry6 {
	__u64 head;
	__u64 high;
	__u64 low;
};

struct wt_bucket6 {
	struct wt_entry6 entries[1 + WT_WAYS];
};

#define WT_CODE6_HIGH    64 /* in a code: the mark is one of the upper half */
#define WT_HEAD6_VALID   (1ULL << 27)
#define WT_HEAD6_VERSION 28

/*
 * Which lengths are worth a probe: the marks of the prefixes longer than 16 bits in a /16 of IPv4, and of
 * those from 33 to 64 bits in a /32 of IPv6. Several /16 or /32 may share one hint. IPv4's lines, then
 * IPv6's.
 */
#define WT_HINT_LINE4 32
#define WT_HINT_LINE6 16
#define WT_HINTED4    0xffffU
#define WT_HINTED6    0xffffffffULL
struct wt_hint_line {
	union {
		__u16 marks4[WT_HINT_LINE4];
		__u32 marks6[WT_HINT_LINE6];
	};
};

/* For user space only: the incarnations of a bucket's places; IPv4's buckets, then IPv6's. */
struct wt_incarnations {
	__u32 of[1 + WT_WAYS];
};

/* ---- sizes, by the capacity in slots ---- */

static inline __u32 wt_power_of_two(__u32 least, __u32 floor)
{
	while (floor < least)
		floor *= 2;
	return floor;
}

/* In each family. Full of WT_PREFIXES_PER_PEER prefixes a slot, no more than 4 of 7 places are taken. */
static inline __u32 wt_buckets(__u32 capacity)
{
	return wt_power_of_two(capacity, 64);
}

/* Addresses in a window: a tunnel's /16, or twice as many as there are peers. */
static inline __u32 wt_window_size(__u32 capacity)
{
	return wt_power_of_two(2 * capacity, 1 << 16);
}

static inline __u32 wt_hints(__u32 capacity)
{
	return 4 * wt_buckets(capacity);
}

static inline __u32 wt_hint_lines(__u32 hints)
{
	return hints / WT_HINT_LINE4 + hints / WT_HINT_LINE6;
}

/* ---- keys and hashes: the same on both sides ---- */

static inline __attribute__((always_inline)) __u32 wt_hint_line6(__u32 hint, __u32 hints)
{
	return hints / WT_HINT_LINE4 + hint / WT_HINT_LINE6;
}

static inline __attribute__((always_inline)) __u32 wt_hint4(__u32 address, __u32 hints)
{
	__u32 top = address >> 16;

	return (top ^ top >> 7) & (hints - 1);
}

static inline __attribute__((always_inline)) __u32 wt_hint6(__u64 high, __u32 hints)
{
	return (__u32)((high >> 32) * 0x9e3779b97f4a7c15ULL >> 36) & (hints - 1);
}

static inline __attribute__((always_inline)) __u64 wt_key4(__u32 address, __u32 mark)
{
	return (__u64)(address & -mark) << 1 | mark;
}

/* A number of six bits for each mark: a de Bruijn sequence has each six bits once. */
static inline __attribute__((always_inline)) __u32 wt_mark_code(__u64 mark)
{
	return (__u32)(mark * 0x03f79d71b4cb0a89ULL >> 58);
}

static inline __attribute__((always_inline)) __u64 wt_mix(__u64 hash)
{
	return (hash ^ hash >> 32) * 0xd6e8feb86659fd93ULL;
}

static inline __attribute__((always_inline)) __u64 wt_hash4(__u64 key, __u64 seed)
{
	return wt_mix((key ^ seed) * 0x9e3779b97f4a7c15ULL);
}

static inline __attribute__((always_inline)) __u64 wt_hash6(__u64 high, __u64 low, __u32 code, __u64 seed)
{
	return wt_mix(((high ^ seed) * 0x9e3779b97f4a7c15ULL) ^ ((low + code) * 0xc2b2ae3d27d4eb4fULL));
}

static inline __attribute__((always_inline)) __u32 wt_bucket_index(__u64 hash, __u32 step, __u32 buckets)
{
	return ((__u32)(hash >> 20) + step) & (buckets - 1);
}

static inline __attribute__((always_inline)) __u64 wt_tag(__u64 hash)
{
	return hash >> 57 | 0x80;
}

/*
 * Bit 7 of each byte of the tags that may equal the tag: of the lowest one that does, and perhaps of others
 * that do not. Byte 0 is made to differ.
 */
static inline __attribute__((always_inline)) __u64 wt_match(__u64 tags, __u64 hash)
{
	__u64 differences = (tags ^ wt_tag(hash) * 0x0101010101010100ULL) | 0xff;

	return (differences - 0x0101010101010101ULL) & ~differences & 0x8080808080808080ULL;
}

/* The place, 1 to 7, of the lowest of these bits. */
static inline __attribute__((always_inline)) __u32 wt_way(__u64 matches)
{
	return (__u32)(((matches & -matches) >> 7) * 0x0001020304050607ULL >> 56) & WT_WAYS;
}

_Static_assert(sizeof(struct wt_family) == 64, "a family's head is one cache line");
_Static_assert(sizeof(struct wt_window_line) == 64, "layout");
_Static_assert(sizeof(struct wt_bucket4) == 64, "a bucket is one cache line");
_Static_assert(sizeof(struct wt_bucket6) == 192, "layout");
_Static_assert(sizeof(struct wt_hint_line) == 64, "layout");
_Static_assert(WT_MAX_CAPACITY <= 1U << WT_SLOT_BITS, "a slot fits");

#endif
