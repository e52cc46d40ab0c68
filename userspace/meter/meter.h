/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The meter from user space: load, pin, adopt, attribute, read, limit. One object per WireGuard interface.
 * Everything that counts is pinned in the folder given, so that counting goes on with no process alive; a
 * later process adopts it. Not thread-safe; one process at a time holds a pin folder (by a lock on it).
 */
#ifndef WIRETOLL_METER_METER_H
#define WIRETOLL_METER_METER_H

#include "base/base.h"
#include "base/cidr.h"

#include <wiretoll/meter_abi.h>

struct meter;

/* AUTO is tcx where the kernel has it, else clsact, never XDP: that one counts uploads by a program that sees
 * no aggregate's segments, and downloads as AUTO does. */
enum meter_attach { METER_ATTACH_AUTO, METER_ATTACH_TCX, METER_ATTACH_TC, METER_ATTACH_XDP };

struct meter_options {
	const char *pin_folder; /* in a BPF file system; created if its parent is there */
	const char *interface;
	enum meter_attach attach;
	uint32_t capacity; /* slots; 0: WT_DEFAULT_CAPACITY */
};

/* What an epoch is made of. */
struct meter_identity {
	uint8_t map_uuid[16];
	uint8_t boot_id[16];
	uint64_t netns_cookie;
	uint32_t ifindex;
	uint32_t capacity;
};

struct meter_totals {
	uint64_t upload_bytes, upload_packets;
	uint64_t download_bytes, download_packets;
	uint64_t refused_bytes, refused_packets;
};

struct meter_interface_totals {
	uint64_t counted; /* in the directions of the mask in force at the time */
	uint64_t refused_bytes, refused_packets;
	uint64_t unparsed_packets;
};

/* A grant: `ceiling` is in counted bytes of its cycle in this epoch, or WT_NO_CEILING. */
struct meter_grant {
	uint64_t cycle;
	uint64_t grant_seq;
	uint64_t ceiling;
	uint32_t mask;
};

/*
 * `counted` is a line that only grows; `began` is the position on it where the grant's cycle began. So when a
 * later cycle is found in force, the earlier one counted exactly the difference of their two beginnings.
 */
struct meter_limit_state {
	struct meter_grant grant; /* as it is in force; cycle 0: none yet */
	uint64_t began;
	uint64_t cycle_counted;  /* counted since the grant's cycle began */
	bool exhausted;          /* refusal is latched for this grant */
	uint32_t refuse;         /* WT_REFUSE_* */
	struct meter_grant next; /* cycle 0: none is set */
	uint64_t next_not_before;
};

/*
 * Adopts what is pinned. Returns 0 when it is of this boot and both programs are on the interface, whatever
 * that was called before and whichever network namespace it came from; -ENOENT when nothing is pinned;
 * -ESTALE when the pins belong to something that is gone: *ret_meter then is a read-only object for the last
 * counts, to be sealed and given to meter_remove(). Other errors leave *ret_meter alone: -EBUSY when another
 * process holds the folder, -EPROTO when the maps' layout is of another version.
 */
WT_MUST_CHECK int meter_adopt(const struct meter_options *options, struct meter **ret_meter);

/*
 * Loads the programs and maps, attaches to the interface (ingress first in the chain, egress last) and pins
 * all. Before a limit is granted every packet is let through and counted. Returns -EEXIST when something is
 * pinned already, -EBUSY when another process holds the folder or another program owns our place (clsact,
 * XDP), -EOPNOTSUPP for XDP when the interface may receive aggregates (GRO, or a TUN's owner writes them),
 * -ENODEV when there is no such interface, -ERANGE for a capacity out of range, -E2BIG for more than
 * WT_MAX_CPUS possible CPUs.
 */
WT_MUST_CHECK int meter_attach(const struct meter_options *options, struct meter **ret_meter);

/* Frees the object; counting goes on. NULL is accepted. */
void meter_close(struct meter *meter);

/* Detaches, removes the pins and frees the object, also when it fails. A clsact qdisc stays. */
WT_MUST_CHECK int meter_remove(struct meter *meter);

const struct meter_identity *meter_identity(const struct meter *meter);

/* The interface's name when it was attached, or when that was noted last. */
const char *meter_interface(const struct meter *meter);

/*
 * The interface has this name here now: notes it, with its index and network namespace. -ENOLINK when the
 * meter is not on it, -ENODEV when there is none.
 */
WT_MUST_CHECK int meter_note_interface(struct meter *meter, const char *interface);

/* "tcx", "tc" or "xdp". */
const char *meter_attachment(const struct meter *meter);

/*
 * Counts a prefix for a slot from now on; replaces what the same prefix had. Safe while packets flow: no
 * packet of another prefix is counted elsewhere at any moment. -ENOSPC when the table has as many prefixes of
 * this family as it has room for, on average WT_PREFIXES_PER_PEER a slot.
 */
WT_MUST_CHECK int meter_set_prefix(struct meter *meter, const struct cidr *prefix, uint32_t slot,
				   uint32_t incarnation);
/* -ENOENT when it is not in the table. */
WT_MUST_CHECK int meter_delete_prefix(struct meter *meter, const struct cidr *prefix);

typedef int (*meter_prefix_fn)(const struct cidr *prefix, const struct wt_attribution *attribution,
			       void *data);
/* Calls fn for each prefix of the table, in no order; stops at the first non-zero result and returns it. */
WT_MUST_CHECK int meter_for_each_prefix(struct meter *meter, meter_prefix_fn fn, void *data);

/* Slots and their owners live beside the counts. slot < capacity, else -ERANGE. */
WT_MUST_CHECK int meter_set_owner(struct meter *meter, uint32_t slot, const struct wt_owner *owner);
WT_MUST_CHECK int meter_get_owner(const struct meter *meter, uint32_t slot, struct wt_owner *ret_owner);

/* Sums over all CPUs, read through the mapping: no system call. slot < capacity. */
void meter_read(const struct meter *meter, uint32_t slot, struct meter_totals *ret_totals);
void meter_read_interface(const struct meter *meter, struct meter_interface_totals *ret_totals);

/*
 * Puts a grant in force: 0, or -EALREADY when (cycle, grant_seq) is not above the one in force. A new cycle
 * begins at the bytes counted at this moment; before the first grant nothing is counted against a limit.
 * Whatever crashes, it is wholly in force or not at all. A next grant of its cycle or an older one is
 * dropped.
 */
WT_MUST_CHECK int meter_grant(struct meter *meter, const struct meter_grant *grant);

/*
 * Lays the next cycle's grant down beforehand; not_before is in nanoseconds of CLOCK_BOOTTIME. A later call
 * replaces it (as after a step of the clock), also with one of the same numbers. -EALREADY when its cycle is
 * not above the one in force.
 *
 * A period's turn: from not_before on, the first packet that would be refused for lack of credit puts the
 * grant in force and passes, with no process alive. While the old grant still has credit it stays in force,
 * and what it admits belongs to its cycle. A process that is there at the turn therefore gives the same grant
 * to meter_grant(), whose answer -EALREADY says that a packet was first.
 */
WT_MUST_CHECK int meter_grant_next(struct meter *meter, const struct meter_grant *grant, uint64_t not_before);

/* WT_REFUSE_*: every packet of the interface, in both directions, until they are taken back. */
void meter_set_refuse(struct meter *meter, uint32_t reasons);
void meter_read_limit(const struct meter *meter, struct meter_limit_state *ret_state);

/*
 * The same for one peer: a packet needs the credit of its peer and of the interface, and what one of them
 * refuses draws nothing from the other. A peer without a limit costs no packet anything. 0 < slot < capacity,
 * else -ERANGE. A grant without a ceiling keeps `counted`; meter_clear_peer_limit() ends that, too, lifts
 * refusal, and forgets cycle and number, as is due before the slot gets another peer.
 */
WT_MUST_CHECK int meter_grant_peer(struct meter *meter, uint32_t slot, const struct meter_grant *grant);
WT_MUST_CHECK int meter_grant_peer_next(struct meter *meter, uint32_t slot, const struct meter_grant *grant,
					uint64_t not_before);
WT_MUST_CHECK int meter_set_peer_refuse(struct meter *meter, uint32_t slot, uint32_t reasons);
WT_MUST_CHECK int meter_clear_peer_limit(struct meter *meter, uint32_t slot);
WT_MUST_CHECK int meter_read_peer_limit(const struct meter *meter, uint32_t slot,
					struct meter_limit_state *ret_state);

/* A descriptor that polls readable when a program has sent an event, and what takes the events off it:
 * returns how many there were, or -errno. */
int meter_event_fd(const struct meter *meter);
WT_MUST_CHECK int meter_drain_events(struct meter *meter);

/* 1 when a program runs before one of ours and so may end the chain, or XDP may get aggregates; 0 when not;
 * -ENOLINK when ours are not attached any more; -EXDEV when they are, in another network namespace; or
 * -errno. */
WT_MUST_CHECK int meter_is_shadowed(const struct meter *meter);

#endif
