/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Whose packet it is: the slot of the longest prefix that holds the peer's inner address, which is
 * WireGuard's own rule of cryptokey routing. Whatever has no such prefix belongs to slot 0.
 *
 * User space changes the table while this runs. Loads stand in the order that the stores need, and x86 keeps
 * it; see docs/decisions/meter-attribution.md. The tests compile this file for user space, too.
 */
#ifndef WIRETOLL_BPF_ATTRIBUTE_H
#define WIRETOLL_BPF_ATTRIBUTE_H

#include <wiretoll/attribution.h>

#include "parse.h"
#ifdef __bpf__
#include "maps.h"
#endif

#ifndef READ_ONCE
#define READ_ONCE(word) (*(const volatile __typeof__(word) *)&(word))
#endif

/* Functions of their own, which the verifier looks at once and not at every call. */
#ifdef __bpf__
#define WT_FUNCTION __attribute__((noinline))
#else
#define WT_FUNCTION static
#endif

WT_FUNCTION __u32 find4(__u64 key)
{
	__u64 hash = wt_hash4(key, family_at(WT_IPV4)->seed);

	for (__u32 step = 0; step < WT_CHAIN; step++) {
		const struct wt_bucket4 *bucket = bucket4_at(wt_bucket_index(hash, step, buckets));
		__u64 tags, matches;

		if (!bucket)
			return 0;
		tags = READ_ONCE(bucket->words[0]);
		matches = wt_match(tags, hash);
		for (int i = 0; i < WT_WAYS && matches; i++, matches &= matches - 1) {
			__u64 entry = READ_ONCE(bucket->words[wt_way(matches)]);

			if (entry >> WT_SLOT_BITS == key)
				return WT_ATTRIBUTED | (entry & WT_SLOT_MASK);
		}
		if (!(tags & 0xff))
			return 0;
	}
	return 0;
}

/* The version tells whether a place has been given to another prefix while its address was compared. */
WT_INLINE __u32 compare6(const struct wt_entry6 *entry, __u64 high, __u64 low, __u32 code)
{
	__u64 head = READ_ONCE(entry->head);

	if ((head & (WT_HEAD6_VALID | 127 << WT_SLOT_BITS)) != (WT_HEAD6_VALID | code << WT_SLOT_BITS))
		return 0;
	if (READ_ONCE(entry->high) != high || (!(code & WT_CODE6_HIGH) && READ_ONCE(entry->low) != low))
		return 0;
	if (READ_ONCE(entry->head) >> WT_HEAD6_VERSION != head >> WT_HEAD6_VERSION)
		return 0;
	return WT_ATTRIBUTED | (head & WT_SLOT_MASK);
}

WT_FUNCTION __u32 find6(__u64 high, __u64 low, __u32 code)
{
	__u64 hash = wt_hash6(high, low, code, family_at(WT_IPV6)->seed);

	for (__u32 step = 0; step < WT_CHAIN; step++) {
		const struct wt_bucket6 *bucket = bucket6_at(wt_bucket_index(hash, step, buckets));
		__u64 tags, matches;

		if (!bucket)
			return 0;
		tags = READ_ONCE(bucket->entries[0].head);
		matches = wt_match(tags, hash);
		for (int i = 0; i < WT_WAYS && matches; i++, matches &= matches - 1) {
			__u32 found = compare6(&bucket->entries[wt_way(matches)], high, low, code);

			if (found)
				return found;
		}
		if (!(tags & 0xff))
			return 0;
	}
	return 0;
}

/* Of the lengths above 16, those which a prefix of the address's /16 has; of the others, all in use. */
WT_INLINE __u32 marks4(const struct wt_family *family, __u32 address)
{
	__u32 index = wt_hint4(address, hints);
	const struct wt_hint_line *line = hint_line_at(index / WT_HINT_LINE4);

	if (!line)
		return 0;
	return (READ_ONCE(family->lengths[0]) & ~WT_HINTED4) | READ_ONCE(line->marks4[index % WT_HINT_LINE4]);
}

/* Of the lengths 33 to 64, those which a prefix of the address's /32 has. */
WT_INLINE __u64 marks6(const struct wt_family *family, __u64 high)
{
	__u32 index = wt_hint6(high, hints);
	const struct wt_hint_line *line = hint_line_at(wt_hint_line6(index, hints));

	if (!line)
		return 0;
	return (READ_ONCE(family->lengths[1]) & ~WT_HINTED6) | READ_ONCE(line->marks6[index % WT_HINT_LINE6]);
}

WT_FUNCTION __u32 search4(__u32 address)
{
	const struct wt_family *family = family_at(WT_IPV4);
	__u32 marks = marks4(family, address), found;

	for (int i = 0; i < 32 && marks; i++, marks &= marks - 1) {
		found = find4(wt_key4(address, marks & -marks));
		if (found)
			return found;
	}
	return READ_ONCE(family->fallback);
}

WT_FUNCTION __u32 search6_low(__u64 high, __u64 low)
{
	const struct wt_family *family = family_at(WT_IPV6);
	__u64 marks = READ_ONCE(family->lengths[0]), mark;
	__u32 found;

	for (int i = 0; i < 64 && marks; i++, marks &= marks - 1) {
		mark = marks & -marks;
		found = find6(high, low & -mark, wt_mark_code(mark));
		if (found)
			return found;
	}
	return 0;
}

WT_FUNCTION __u32 search6_high(__u64 high)
{
	const struct wt_family *family = family_at(WT_IPV6);
	__u64 marks = marks6(family, high), mark;
	__u32 found;

	for (int i = 0; i < 64 && marks; i++, marks &= marks - 1) {
		mark = marks & -marks;
		found = find6(high & -mark, 0, WT_CODE6_HIGH | wt_mark_code(mark));
		if (found)
			return found;
	}
	return READ_ONCE(family->fallback);
}

/* What the window has for the offset in it; the size is read before the base, which is stored before it. */
WT_INLINE __u32 window_slot(__u32 family, __u64 offset)
{
	const struct wt_window_line *line = window_line_at(family, (__u32)offset / WT_WINDOW_LINE);

	return line ? READ_ONCE(line->slots[offset % WT_WINDOW_LINE]) : 0;
}

WT_INLINE __u32 lookup4(__u32 address)
{
	const struct wt_family *family = family_at(WT_IPV4);
	__u32 size, offset, found = 0;

	size = READ_ONCE(family->window_size);
	offset = address - (__u32)READ_ONCE(family->window_low);
	if (offset < size)
		found = window_slot(WT_IPV4, offset);
	return found ? found : search4(address);
}

WT_INLINE __u32 lookup6(__u64 high, __u64 low)
{
	const struct wt_family *family = family_at(WT_IPV6);
	__u32 size, found = 0;
	__u64 offset;

	size = READ_ONCE(family->window_size);
	offset = low - READ_ONCE(family->window_low);
	if (offset < size && high == READ_ONCE(family->window_high))
		found = window_slot(WT_IPV6, offset);
	if (!found && READ_ONCE(family->lengths[0]))
		found = search6_low(high, low);
	return found ? found : search6_high(high);
}

/* The peer is the source of what it uploads and the destination of what it downloads. */
WT_INLINE __u32 address_offset(__u32 version, __u32 direction)
{
	if (version == 4)
		return direction == WT_UPLOADS ? 12 : 16;
	return direction == WT_UPLOADS ? 8 : 24;
}

WT_INLINE __u32 attribute4(const __u8 address[4])
{
	return lookup4(__builtin_bswap32(*(const __u32 *)address));
}

WT_INLINE __u32 attribute6(const __u8 address[16])
{
	const __u64 *words = (const __u64 *)address;

	return lookup6(__builtin_bswap64(words[0]), __builtin_bswap64(words[1]));
}

/* Of any packet, also of one whose IP header is not in the linear part. */
WT_INLINE __u32 attribute_any(const struct wt_packet *packet, __u32 version, __u32 direction)
{
	__u8 address[16] __attribute__((aligned(8)));

	if (version == 4 && !wt_load(packet, address_offset(4, direction), address, 4))
		return attribute4(address);
	if (version == 6 && !wt_load(packet, address_offset(6, direction), address, 16))
		return attribute6(address);
	return 0;
}

/* Of what a lookup has found; 0, which is nothing, is nobody's slot. */
WT_INLINE __u32 slot_of(__u32 found)
{
	return found & WT_SLOT_MASK;
}

#endif
