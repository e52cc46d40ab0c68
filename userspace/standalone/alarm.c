// SPDX-License-Identifier: BSD-2-Clause
/*
 * The meter's uploads held against what WireGuard received: it counts a packet before the meter sees it, so
 * it never has less. See docs/decisions/fair-and-audited.md.
 */
#include "standalone/station_internal.h"

#include "base/clock.h"

#define SETTLED_NS (AUDIT_SETTLE_SECONDS * NSEC_PER_SEC)

static struct audit_sample sample_of(const struct wg_peer *peer, const struct meter_totals *totals,
				     int64_t boot_ns)
{
	return (struct audit_sample){
		.totals = *totals,
		.boot_ns = boot_ns,
		.rx_bytes = peer->rx_bytes,
		.tx_bytes = peer->tx_bytes,
		.handshake_ns = peer->handshake_ns,
	};
}

void alarm_prepare(struct station *station)
{
	for (size_t i = 0; i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		station_read(station, record);
		record->before_dump = record->total;
	}
}

void alarm_forget(struct station *station)
{
	for (size_t i = 0; i < station->history.n_records; i++)
		audit_forget(&station->history.records[i]->audit);
}

bool alarm_follow(struct record *record, const struct wg_peer *peer, int64_t boot_ns)
{
	struct audit_sample sample = sample_of(peer, &record->before_dump, boot_ns);
	bool before = record->rx_short;

	if (!audit_take(&record->audit, &sample, SETTLED_NS)) {
		/* A baseline's count is read after the dump. */
		sample = sample_of(peer, &record->total, boot_ns);
		audit_begin(&record->audit, &sample);
	}
	record->rx_short |= record->audit.verdict == AUDIT_RX_SHORT;
	return record->rx_short != before;
}

const struct record *station_next_alarm(struct station *station)
{
	for (size_t i = 1; i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		if (record->rx_short && !record->told) {
			record->told = true;
			return record;
		}
	}
	return NULL;
}

const char *record_audit(const struct record *record)
{
	return audit_verdict_name(record->rx_short ? AUDIT_RX_SHORT : record->audit.verdict);
}
