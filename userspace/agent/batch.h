/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A report's body, built from values and read back after a restart. Pure: sends nothing and writes nothing.
 * See docs/agent-protocol.md, section 3.
 */
#ifndef WIRETOLL_AGENT_BATCH_H
#define WIRETOLL_AGENT_BATCH_H

#include "agent/slots.h"
#include "agent/uuid.h"
#include "base/json.h"
#include "base/key.h"
#include "meter/meter.h"

enum gateway_state { GATEWAY_DOWN, GATEWAY_ACTIVE, GATEWAY_SUSPENDED };

/* "active", "suspended"; NULL for GATEWAY_DOWN, which is in no report. */
const char *gateway_state_name(enum gateway_state state);

struct batch_state {
	int64_t from_ns, to_ns; /* UTC */
	enum gateway_state state;
};

#define BATCH_STATES_MAX 32

struct batch_head {
	int64_t generation;
	uint8_t epoch[UUID_SIZE];
	uint8_t boot_id[UUID_SIZE];
	bool final;
	uint64_t seq;
	int64_t covered_from_ns, covered_to_ns; /* UTC */
	struct batch_state states[BATCH_STATES_MAX];
	size_t n_states;
	int64_t active_since_ns; /* 0: not yet */
	struct key public_key;
	uint64_t applied_revision;
	uint64_t counted;
	struct meter_limit_state limit; /* grant.cycle 0: none */
	int64_t now_ns;
};

/*
 * Builds the body, with a record for each slot whose sample differs from what batches have said; several when
 * hours ended in between (a missed hour's share is by time, in integers, and the parts add up). `status` and
 * `cannot_apply` are arrays, or NULL for empty ones; references stay the caller's. The text is compact JSON;
 * the caller frees it. Returns -ENOMEM.
 */
WT_MUST_CHECK int batch_build(const struct batch_head *head, const struct slots *slots, json_t *status,
			      json_t *cannot_apply, char **ret_body, size_t *ret_length);

/*
 * To be called when the batch is built: its samples are what batches have said from now on, so the caller
 * keeps the body until it is in the journal.
 */
void batch_settled(struct slots *slots, uint64_t seq);

/* What a restart needs of a batch. */
struct batch_summary {
	uint8_t epoch[UUID_SIZE];
	uint8_t boot_id[UUID_SIZE];
	bool final;
	uint64_t seq;
	int64_t generation;
	int64_t covered_to_ns;
	uint64_t applied_revision;
	uint64_t counted;
};

struct batch_record {
	uint32_t slot, incarnation;
	struct meter_totals totals; /* refused packets are not in a batch: 0 */
	uint64_t undelivered;
};

/* Returns -EINVAL for a body that no batch_build() made. */
WT_MUST_CHECK int batch_parse(const json_t *body, struct batch_summary *ret_summary);
WT_MUST_CHECK int batch_parse_record(const json_t *record, struct batch_record *ret_record);

/*
 * The same batch to be sent anew after the API has refused it for good: only generation and now are others.
 * The caller frees the text.
 */
WT_MUST_CHECK int batch_renew(const char *body, size_t length, int64_t generation, int64_t now_ns,
			      char **ret_body, size_t *ret_length);

#endif
