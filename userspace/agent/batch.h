/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reports: their bodies, built from values, and what the journal keeps beside each. Pure: sends nothing and
 * writes nothing. See docs/agent-protocol.md, section 3.
 */
#ifndef WIRETOLL_AGENT_BATCH_H
#define WIRETOLL_AGENT_BATCH_H

#include "agent/slots.h"
#include "base/uuid.h"
#include "base/json.h"
#include "base/key.h"
#include "journal/journal.h"
#include "meter/meter.h"

#include <wiretoll/report.h>

enum gateway_state { GATEWAY_DOWN, GATEWAY_ACTIVE, GATEWAY_SUSPENDED };

/* "active", "suspended"; NULL for GATEWAY_DOWN, which is in no report. */
const char *gateway_state_name(enum gateway_state state);

struct batch_state {
	int64_t from_ns, to_ns; /* UTC */
	enum gateway_state state;
};

struct reconcile_link {
	uint64_t rx_bytes, tx_bytes;
};

struct reconcile_journal {
	uint64_t seq; /* 0: not known */
	uint64_t upload_bytes, download_bytes;
};

/* Counts of the same bytes made elsewhere; sums since the epoch began. */
struct batch_reconcile {
	bool said;
	struct meter_totals meter;
	bool has_wireguard, has_interface;
	struct reconcile_link wireguard, interface;
	bool interface_is_encrypted;      /* it counts messages, as WireGuard does, and not packets */
	struct reconcile_journal journal; /* what the last durable batch came to */
};

struct batch_head {
	int64_t generation;
	uint8_t epoch[UUID_SIZE];
	uint8_t boot_id[UUID_SIZE];
	bool final;
	bool whole;                             /* slots that have not changed are said, too */
	uint64_t seq;                           /* of the first part */
	int64_t covered_from_ns, covered_to_ns; /* UTC, never turned round */
	int64_t boot_from_ns, boot_to_ns;       /* the same interval's true length */
	int64_t utc_to_ns;                      /* what the wall clock shows at its end */
	struct batch_state states[WT_REPORT_MAX_STATES];
	size_t n_states;
	int64_t active_since_ns; /* 0: not yet */
	struct key public_key;
	uint64_t applied_revision;
	uint64_t counted;
	struct meter_limit_state limit; /* grant.cycle 0: none */
	int64_t now_ns;
	struct batch_reconcile reconcile;
};

#define BATCH_FINAL     1
#define BATCH_MORE      2 /* parts of the same sample follow */
#define BATCH_EXHAUSTED 4

/* What a restart needs of a batch; in the journal it stands before the body. */
struct batch_summary {
	uint8_t epoch[UUID_SIZE];
	uint8_t boot_id[UUID_SIZE];
	uint64_t seq;
	int64_t covered_from_ns, covered_to_ns;
	int64_t boot_ns; /* when it was sampled */
	uint64_t applied_revision;
	uint64_t counted;
	uint64_t cycle, grant_seq, cycle_counted; /* cycle 0: no grant */
	uint32_t checksum;                        /* CRC32C of the body */
	uint32_t flags;                           /* BATCH_* */
};

_Static_assert(sizeof(struct batch_summary) == 112, "layout on disk");

struct batch {
	struct batch_summary summary;
	char *body;
	size_t length;
};

/* The parts of one sample: consecutive numbers, all but the last with BATCH_MORE. */
struct batch_list {
	struct batch *parts;
	size_t n;
};

/*
 * Builds the batch, with a record for each slot whose sample differs from what batches have said, or for each
 * that has counted if it is to be whole; several when hours ended in between (see split.h), then marked as
 * split. More than fits into one body becomes several parts, each of which stands alone. `status` and
 * `cannot_apply` are arrays, or NULL for empty ones; references stay the caller's. Returns -ENOMEM.
 */
WT_MUST_CHECK int batch_build(const struct batch_head *head, const struct slots *slots, const json_t *status,
			      const json_t *cannot_apply, struct batch_list *ret_list);
void batch_list_free(struct batch_list *list);

/*
 * To be called when the batch is built: its samples are what batches have said from now on, so the caller
 * keeps the bodies until they are in the journal. `seq` is the last part's.
 */
void batch_settled(struct slots *slots, uint64_t seq);

/* The journal's entry; it refers to the batch. */
struct journal_entry batch_entry(const struct batch *batch);

/*
 * Takes a payload of JOURNAL_BATCH; the body points into it. Returns -EINVAL for what no batch_entry() made.
 */
WT_MUST_CHECK int batch_from_record(enum journal_kind kind, const void *payload, size_t length,
				    struct batch_summary *ret_summary, const char **ret_body,
				    size_t *ret_length);

struct batch_record {
	uint32_t slot, incarnation;
	struct meter_totals totals; /* refused packets are not in a batch: 0 */
	uint64_t undelivered;
};

/* Returns -EINVAL. */
WT_MUST_CHECK int batch_parse_record(const json_t *record, struct batch_record *ret_record);

/*
 * The same batch to be sent anew after the API has refused it for good: only `now` is another.
 * batch_list_free() or the caller frees the body.
 */
WT_MUST_CHECK int batch_renew(const struct batch_summary *summary, const char *body, size_t length,
			      int64_t now_ns, struct batch *ret_batch);

#endif
