/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The meter's count of a peer held against WireGuard's own: what WireGuard had to drop is found and given
 * back, and what the meter counted without WireGuard having received it is an alarm. Pure: values in, values
 * out. See docs/decisions/fair-and-audited.md.
 *
 * An audit begins at a baseline, and speaks of what both counted since. WireGuard's counters belong to the
 * peer's presence in the device: one that is made anew begins at 0, and needs a new baseline.
 */
#ifndef WIRETOLL_METER_AUDIT_H
#define WIRETOLL_METER_AUDIT_H

#include "meter/meter.h"

/* Packets that wait for a handshake live up to 90 s: a count is settled when it is older than that. */
#define AUDIT_SETTLE_SECONDS 100
/* Counts that wait to be settled, at equal distances: three a settling time, and the one before. */
#define AUDIT_MARKS 4

enum audit_verdict {
	AUDIT_FAIR,
	AUDIT_OVER_PADDING, /* a note: WireGuard received more than the packets explain */
	AUDIT_RX_SHORT,     /* an alarm: the meter counted uploads that WireGuard never received */
};

/*
 * What both have counted of a peer. Taken in this order: the meter, the clock, WireGuard; a baseline's the
 * other way round. What is in between then never looks like a loss.
 */
struct audit_sample {
	struct meter_totals totals;
	int64_t boot_ns;
	uint64_t rx_bytes, tx_bytes;
	int64_t handshake_ns; /* UTC; 0: never */
};

struct audit_mark {
	int64_t boot_ns;
	uint64_t bytes, packets; /* of downloads since the baseline */
};

struct audit {
	uint64_t undelivered; /* in inner bytes; only grows */
	uint64_t kept;        /* the part of it that earlier baselines found */
	bool begun;
	enum audit_verdict verdict;
	struct audit_sample base, last;
	uint64_t marked; /* packets at the newest mark, waiting or settled */
	unsigned n_marks;
	struct audit_mark marks[AUDIT_MARKS]; /* oldest first */
};

/* "rx_short", "over_padding", or NULL. */
const char *audit_verdict_name(enum audit_verdict verdict);

/*
 * Inner bytes of `packets` downloads of together `bytes` that WireGuard has not sent, when `tx_bytes` is what
 * it sent, or more than that. 0 when it sent at least 32 bytes more for each packet, as it does.
 */
uint64_t audit_undelivered(uint64_t bytes, uint64_t packets, uint64_t tx_bytes);

/* Begins anew; undelivered bytes found so far stay found. */
void audit_begin(struct audit *audit, const struct audit_sample *base);

/* The peer has left the device, or another's packets may have been counted: nothing more is concluded. */
void audit_forget(struct audit *audit);

/*
 * Takes a sample. Returns false, and has forgotten the baseline, when there was none or WireGuard's counters
 * fell: the peer was made anew, and the caller begins again.
 */
bool audit_take(struct audit *audit, const struct audit_sample *sample, int64_t settle_ns);

#endif
