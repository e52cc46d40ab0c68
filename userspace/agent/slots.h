/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Slots: which peer each one belongs to, and what of its count is in a batch already. Owners live in the
 * meter, so that a restart finds them. A count is of (slot, incarnation) and begins at 0 with the
 * incarnation, while the cells beneath only ever grow: `base` is what the cell held when the incarnation
 * began.
 */
#ifndef WIRETOLL_AGENT_SLOTS_H
#define WIRETOLL_AGENT_SLOTS_H

#include "base/uuid.h"
#include "meter/audit.h"
#include "meter/meter.h"

struct slot {
	uint8_t peer_id[UUID_SIZE];
	uint32_t incarnation;
	uint32_t flags; /* WT_OWNER_*; 0: free */
	/* Retiring: the batch that carries the last count; 0: not made yet. */
	uint64_t retire_seq;
	/* `batched` is known to be what the last batches said. Unknown, after a restart, it is 0. */
	bool known;
	struct meter_totals base;
	struct meter_totals batched; /* what batches have said, less base */
	struct meter_totals sampled; /* the last sample, less base */
	uint64_t status_hash;        /* of what was last reported of handshake, endpoint and audit */
	struct audit audit;          /* begins with the incarnation */
	uint64_t undelivered;        /* what batches may say of it: it is on disk */
	uint64_t undelivered_batched;
	uint64_t journaled; /* the sum of what the last sample in the journal says; see samples.c */
};

struct slots {
	struct slot *slots;
	uint32_t capacity;
	uint32_t end;      /* all from here on were never used */
	uint32_t *buckets; /* slot by peer id, open addressing, 0: empty */
	uint32_t n_buckets;
};

/* Room for the meter's capacity. Returns -ENOMEM. */
WT_MUST_CHECK int slots_create(uint32_t capacity, struct slots *ret_slots);
void slots_free(struct slots *slots);

/* Takes over an owner as the meter has it. */
void slots_restore(struct slots *slots, uint32_t slot, const struct wt_owner *owner);

/*
 * Takes over what its file says an incarnation began at, and what was found undelivered of it, behind
 * slots_restore(). That is written before the owner: an incarnation that the meter does not know is one whose
 * beginning was interrupted, of a slot that is free.
 */
void slots_restore_base(struct slots *slots, uint32_t slot, uint32_t incarnation,
			const struct meter_totals *base, uint64_t undelivered);

/* The slot in use by the peer; 0: none. */
uint32_t slots_find(const struct slots *slots, const uint8_t peer_id[static UUID_SIZE]);

/*
 * Gives the peer the lowest slot that was never used, or else the lowest free one (whose count so far then is
 * the incarnation's base). Returns -ENOSPC when all are taken.
 */
WT_MUST_CHECK int slots_assign(struct slots *slots, const uint8_t peer_id[static UUID_SIZE],
			       uint32_t *ret_slot);

/* The peer is gone: the slot counts nothing more and is free once `acknowledged` reaches its last batch. */
void slots_retire(struct slots *slots, uint32_t slot);
/* Of a peer that is gone, or of one that could not be given it. */
void slots_release(struct slots *slots, uint32_t slot);

/* The owner record to store in the meter. */
struct wt_owner slots_owner(const struct slots *slots, uint32_t slot);

/* A new sample of the cell. Returns whether it grew. Totals never fall. */
bool slots_sample(struct slots *slots, uint32_t slot, const struct meter_totals *cell);

bool totals_equal(const struct meter_totals *a, const struct meter_totals *b);
struct meter_totals totals_subtract(const struct meter_totals *a, const struct meter_totals *b);

#endif
