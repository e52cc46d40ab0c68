// SPDX-License-Identifier: BSD-2-Clause
/*
 * What WireGuard had to drop on its way to a peer. The meter counts before WireGuard encrypts, and a packet
 * may wait there up to 90 s for a session, so only counts 100 s old are compared with what was sent since.
 * Each packet sent is 32 bytes longer than counted, and padding only adds: without a drop nothing is ever
 * short.
 */
#include "standalone/station_internal.h"

#include "meter/audit.h"

#define SETTLED_NS (AUDIT_SETTLE_SECONDS * NSEC_PER_SEC)

void delivery_begin(struct record *record, uint64_t sent)
{
	struct delivery *delivery = &record->delivery;

	delivery->base_bytes = record->total.download_bytes;
	delivery->base_packets = record->total.download_packets;
	delivery->base_sent = sent;
	delivery->base_undelivered = delivery->undelivered;
	delivery->last_sent = sent;
	delivery->sampled_boot_ns = 0;
}

static bool settle(struct delivery *delivery, uint64_t sent)
{
	uint64_t undelivered = delivery->base_undelivered +
			       audit_undelivered(delivery->sampled_bytes - delivery->base_bytes,
						 delivery->sampled_packets - delivery->base_packets,
						 sent - delivery->base_sent);

	if (undelivered <= delivery->undelivered)
		return false;
	delivery->undelivered = undelivered;
	return true;
}

bool delivery_follow(struct record *record, uint64_t sent, int64_t boot_ns)
{
	struct delivery *delivery = &record->delivery;
	bool grew = false;

	if (sent < delivery->last_sent)
		delivery_begin(record, sent);
	delivery->last_sent = sent;
	if (delivery->sampled_boot_ns && boot_ns - delivery->sampled_boot_ns < SETTLED_NS)
		return false;
	if (delivery->sampled_boot_ns)
		grew = settle(delivery, sent);
	delivery->sampled_boot_ns = boot_ns;
	delivery->sampled_bytes = record->total.download_bytes;
	delivery->sampled_packets = record->total.download_packets;
	return grew;
}
