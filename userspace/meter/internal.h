/* SPDX-License-Identifier: BSD-2-Clause */
/* What the meter's files share: the object, its pins, its attachment. */
#ifndef WIRETOLL_METER_INTERNAL_H
#define WIRETOLL_METER_INTERNAL_H

#ifndef __x86_64__
#error "the meter's maps are changed while programs read them, in an order that only x86 keeps: docs/decisions/meter-order.md"
#endif

#include "meter/meter.h"
#include "meter/attribution.h"

struct ifreq;
struct ring_buffer;

/* Newer than Debian 12's headers. */
#define TCX_INGRESS ((enum bpf_attach_type)46)
#define TCX_EGRESS  ((enum bpf_attach_type)47)

/* Everything that is pinned, each under its name. */
enum meter_object {
	OBJECT_TABLE,
	OBJECT_WINDOWS,
	OBJECT_BUCKETS4,
	OBJECT_BUCKETS6,
	OBJECT_HINT_LINES,
	OBJECT_INCARNATIONS,
	OBJECT_COUNTS,
	OBJECT_PURSES,
	OBJECT_INTERFACE_CELLS,
	OBJECT_CREDIT,
	OBJECT_PEER_STATES,
	OBJECT_PEER_POOLS,
	OBJECT_META,
	OBJECT_OWNERS,
	OBJECT_EVENTS,
	OBJECT_MAPS, /* how many maps there are; programs and links follow */
	OBJECT_INGRESS = OBJECT_MAPS,
	OBJECT_EGRESS,
	OBJECT_INGRESS_LINK, /* tcx only */
	OBJECT_EGRESS_LINK,
	OBJECTS
};

struct meter {
	char *folder;
	int lock;
	int fds[OBJECTS]; /* -1: not there */
	bool stale;       /* what it counted is gone: to be read, then removed */
	const struct wt_count *counts;
	const struct wt_purse *purses;
	const struct wt_interface_cells *interface_cells;
	struct wt_credit *credit;
	__u64 *peer_states;
	struct wt_pool *peer_pools;
	uint32_t limited_peers; /* whose states refuse or charge anything */
	const struct wt_meta *meta;
	struct wt_owner *owners;
	struct attribution_table table;
	size_t sizes[OBJECT_MAPS]; /* of the mappings above */
	struct ring_buffer *events;
	struct meter_identity identity;
};

static inline void cleanup_meter(struct meter **meter)
{
	meter_close(*meter);
}
#define _cleanup_meter_ WT_CLEANUP(cleanup_meter)

/*
 * object.c. A meter without anything, not even the lock; NULL without memory. Loading, and pinning in `new`,
 * of what the record asks for, with nothing attached yet; pinning there of what is open of a range of
 * objects. Opening what is pinned in a stage.
 */
struct meter *meter_blank(const char *folder);
WT_MUST_CHECK int meter_load(struct meter *meter, const struct wt_meta *meta, bool xdp);
WT_MUST_CHECK int meter_pin_range(struct meter *meter, int first, int end);
WT_MUST_CHECK int meter_open_stage(struct meter *meter, const char *stage);
/* Fills in what follows from the capacity; -ERANGE. */
WT_MUST_CHECK int meter_size(struct wt_meta *meta, uint32_t capacity);

/* handover.c. Finishes what a process has left in the middle of a hand-over; or undoes what it only began. */
WT_MUST_CHECK int handover_recover(const char *folder);
void handover_undo(struct meter *live);

/*
 * pins.c. A folder holds `live`, and while a step is unfinished `new` or `old`; in a hand-over also `next`,
 * then `sealed`.
 */
#define PINS_LIVE   "live"
#define PINS_NEW    "new"
#define PINS_OLD    "old"
#define PINS_NEXT   "next"
#define PINS_SEALED "sealed"

/* Locks the folder: -ENOENT when it is not there (and not to be created), -EBUSY when another holds it. */
WT_MUST_CHECK int pins_lock(const char *folder, bool create, int *ret_lock);
WT_MUST_CHECK int pins_make(const char *folder, const char *stage);
WT_MUST_CHECK int pins_add(const char *folder, const char *stage, enum meter_object object, int fd);
WT_MUST_CHECK int pins_move(const char *folder, const char *from, const char *to);
bool pins_exist(const char *folder, const char *stage);
/* Opens what is pinned; fds of objects that are not stay -1. -ENOENT when the stage itself is not there. */
WT_MUST_CHECK int pins_open(const char *folder, const char *stage, int fds[static OBJECTS]);
/* Removes the pins of a stage, and filters on the interface that run its programs. None is no error. */
WT_MUST_CHECK int pins_clear(const char *folder, const char *stage);

/* maps.c. Maps all arrays into memory and fills in the identity; -EPROTO for another layout. */
WT_MUST_CHECK int maps_open(struct meter *meter);
void maps_close(struct meter *meter);
/* Fills in the identity as the record has it now. */
void maps_identify(struct meter *meter);

/* identity.c: who and where this process is. ifindex is that of the name now. */
WT_MUST_CHECK int identity_here(const char *interface, struct wt_meta *ret_meta);
/* The cookie of the calling process's network namespace. */
WT_MUST_CHECK int identity_netns(uint64_t *ret_cookie);
/* The highest possible CPU's number and one, or -errno: what an array by CPU needs. */
WT_MUST_CHECK int identity_cpus(void);

/*
 * attach.c. fds: of both programs; those of links are filled in, also when it fails. -EBUSY when a place is
 * taken, -EOPNOTSUPP when XDP would get aggregates, -EINVAL when the kernel cannot attach like that.
 */
WT_MUST_CHECK int attach_hooks(const struct wt_meta *meta, enum meter_attach how, int fds[static OBJECTS],
			       uint32_t *ret_attachment);
/* Puts these programs in the place of those that are attached: each hook at once, ingress first. -ENOLINK
 * when the interface is gone. */
WT_MUST_CHECK int attach_swap(const struct wt_meta *meta, const int fds[static OBJECTS]);
/* Whether both programs are attached, in the record's way, to the interface that has this index here. */
bool attach_is_on(const struct wt_meta *meta, uint32_t ifindex, const int fds[static OBJECTS]);
/* The index that the links' interface has, wherever that is; 0: they are on none, not both, or there are
 * none. */
uint32_t attach_index(const int fds[static OBJECTS]);
/* Removes our clsact filters, if these programs are what runs in their places. */
WT_MUST_CHECK int detach_tc(uint32_t ifindex, const int fds[static OBJECTS]);

/* chain.c. The first tcx program at a hook; 0: there is none. */
WT_MUST_CHECK int chain_first_tcx(uint32_t ifindex, bool egress, uint32_t *ret_id);
/* Whether a filter has this preference. And whether one runs before the filter of preference and handle. */
WT_MUST_CHECK int chain_is_taken(uint32_t ifindex, bool egress, uint32_t priority);
WT_MUST_CHECK int chain_has_before(uint32_t ifindex, bool egress, uint32_t priority, uint32_t handle);
/* Whether an XDP program other than that of this id is on the interface, in any mode; 0: none is ours. */
WT_MUST_CHECK int chain_has_xdp(uint32_t ifindex, uint32_t ours);

/* device.c. One of the SIOC requests; all but the name is filled in already, and the answer is in its place.
 */
WT_MUST_CHECK int device_ask(const char *interface, unsigned long what, struct ifreq *request);

/* aggregates.c. 1 when the interface may receive aggregates, 0 when not, or -errno. */
WT_MUST_CHECK int aggregates_expected(const char *interface);

/* limit.c. The interface's credit as it is before the first grant. */
void credit_init(struct wt_credit *ret_credit, uint32_t cpus);
/* Counts the peers that have limits, in maps just opened. */
void credit_recover(struct meter *meter);

#endif
