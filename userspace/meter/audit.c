// SPDX-License-Identifier: BSD-2-Clause
#include "meter/audit.h"

#include <string.h>

#include "base/clock.h"

/* A transport message is the packet, padded to 16 bytes, between a header of 16 bytes and a tag of 16. */
#define OVERHEAD_MIN 32
#define OVERHEAD_MAX 47
/* The kernel's WireGuard counts a packet after it has passed it on, and two writers may lose an update. */
#define SLACK (128 * 1024)
/* Handshakes every 5 s and keepalives every second, with room. */
#define IDLE_BYTES_PER_SECOND 128
/* A refused packet is in WireGuard's count alone: of 20 bytes at least, and 47 more at most. */
#define REFUSED_FACTOR 4

const char *audit_verdict_name(enum audit_verdict verdict)
{
	switch (verdict) {
	case AUDIT_RX_SHORT:
		return "rx_short";
	case AUDIT_OVER_PADDING:
		return "over_padding";
	case AUDIT_FAIR:
		break;
	}
	return NULL;
}

uint64_t audit_undelivered(uint64_t bytes, uint64_t packets, uint64_t tx_bytes)
{
	uint64_t expected = bytes + OVERHEAD_MIN * packets;

	if (expected <= tx_bytes)
		return 0;
	return (uint64_t)((unsigned __int128)(expected - tx_bytes) * bytes / expected);
}

void audit_begin(struct audit *audit, const struct audit_sample *base)
{
	audit_forget(audit);
	audit->begun = true;
	audit->base = audit->last = *base;
}

void audit_forget(struct audit *audit)
{
	audit->kept = audit->undelivered;
	audit->begun = false;
	audit->n_marks = 0;
	audit->marked = 0;
}

/* Only the newest count that is old enough: it holds the older ones. */
static void settle(struct audit *audit, const struct audit_sample *sample, int64_t settle_ns)
{
	uint64_t found;
	unsigned due = 0;

	while (due < audit->n_marks && sample->boot_ns - audit->marks[due].boot_ns >= settle_ns)
		due++;
	if (due == 0)
		return;
	found = audit->kept + audit_undelivered(audit->marks[due - 1].bytes, audit->marks[due - 1].packets,
						sample->tx_bytes - audit->base.tx_bytes);
	if (found > audit->undelivered)
		audit->undelivered = found;
	audit->n_marks -= due;
	memmove(audit->marks, audit->marks + due, audit->n_marks * sizeof(*audit->marks));
}

static void mark(struct audit *audit, const struct audit_sample *sample, int64_t settle_ns)
{
	struct audit_mark now = {
		.boot_ns = sample->boot_ns,
		.bytes = sample->totals.download_bytes - audit->base.totals.download_bytes,
		.packets = sample->totals.download_packets - audit->base.totals.download_packets,
	};

	if (now.packets == audit->marked || audit->n_marks == AUDIT_MARKS)
		return;
	if (audit->n_marks > 0 &&
	    now.boot_ns - audit->marks[audit->n_marks - 1].boot_ns < settle_ns / AUDIT_MARKS)
		return;
	audit->marks[audit->n_marks++] = now;
	audit->marked = now.packets;
}

static enum audit_verdict judge(const struct audit *audit, const struct audit_sample *sample)
{
	const struct audit_sample *base = &audit->base;
	uint64_t received = sample->rx_bytes - base->rx_bytes;
	uint64_t bytes = sample->totals.upload_bytes - base->totals.upload_bytes;
	uint64_t packets = sample->totals.upload_packets - base->totals.upload_packets;
	uint64_t refused = sample->totals.refused_bytes - base->totals.refused_bytes;
	uint64_t idle = (uint64_t)((sample->boot_ns - base->boot_ns) / NSEC_PER_SEC) * IDLE_BYTES_PER_SECOND;

	if (received + SLACK < bytes + OVERHEAD_MIN * packets)
		return AUDIT_RX_SHORT;
	if (received > bytes + OVERHEAD_MAX * packets + REFUSED_FACTOR * refused + idle + SLACK)
		return AUDIT_OVER_PADDING;
	return AUDIT_FAIR;
}

static bool is_made_anew(const struct audit *audit, const struct audit_sample *sample)
{
	return sample->rx_bytes < audit->last.rx_bytes || sample->tx_bytes < audit->last.tx_bytes ||
	       sample->handshake_ns < audit->last.handshake_ns;
}

bool audit_take(struct audit *audit, const struct audit_sample *sample, int64_t settle_ns)
{
	enum audit_verdict verdict;

	if (!audit->begun)
		return false;
	if (is_made_anew(audit, sample)) {
		audit_forget(audit);
		return false;
	}
	audit->last = *sample;
	settle(audit, sample, settle_ns);
	mark(audit, sample, settle_ns);
	verdict = judge(audit, sample);
	/* An alarm stays: bytes that WireGuard counts later do not make good what it never received. */
	if (audit->verdict != AUDIT_RX_SHORT)
		audit->verdict = verdict;
	return true;
}
