// SPDX-License-Identifier: BSD-2-Clause
/*
 * Once an hour a batch carries counts of the same bytes that were made elsewhere, for the API to hold against
 * its records: the meter's cells, WireGuard's counters, the interface's own, and what the journal's last
 * batch came to. Peer by peer WireGuard's are held against the meter's here: see fair.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/log.h"

#define FILE_NAME "interface.json"
/* Of a packet in a message of WireGuard's, padding left aside. Its device in the kernel counts messages. */
#define MESSAGE_OVERHEAD 32

/* /proc/self/net is of the network namespace, which /sys need not be. */
static int read_link(const char *interface, struct reconcile_link *ret_link)
{
	struct reconcile_link link;
	char line[512], name[32];
	FILE *file = fopen("/proc/self/net/dev", "re");
	int r = -ENODEV;

	if (!file)
		return -errno;
	while (r < 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, " %31[^:]: %" SCNu64 " %*u %*u %*u %*u %*u %*u %*u %" SCNu64, name,
			   &link.rx_bytes, &link.tx_bytes) == 3 &&
		    strcmp(name, interface) == 0)
			r = 0;
	fclose(file);
	if (r == 0)
		*ret_link = link;
	return r;
}

void reconcile_before_epoch(struct agent *agent)
{
	struct reconcile *state = &agent->epoch.reconcile;

	wg_device_free(TAKE_PTR(state->begin_device));
	if (read_link(agent->config.interface, &state->begin) < 0 ||
	    wg_dump(agent->wg, &state->begin_device) < 0)
		log_warning("could not ask the interface and WireGuard what they have counted");
}

static int save_interface(const struct agent *agent)
{
	const struct reconcile_link *low = &agent->epoch.reconcile.begin;
	struct reconcile_link high;
	int r = read_link(agent->config.interface, &high);

	if (r < 0)
		return r;
	return epoch_file_write(agent, &agent->epoch, FILE_NAME,
				json_pack("{s:o, s:o, s:o, s:o}", "rx_bytes", json_u64(low->rx_bytes),
					  "tx_bytes", json_u64(low->tx_bytes), "rx_bytes_after",
					  json_u64(high.rx_bytes), "tx_bytes_after",
					  json_u64(high.tx_bytes)));
}

void reconcile_begin_epoch(struct agent *agent)
{
	/* Without WireGuard's word there may be none of the interface either: neither is told. */
	if (!agent->epoch.reconcile.begin_device)
		return;
	sums_begin_epoch(agent, agent->epoch.reconcile.begin_device);
	wg_device_free(TAKE_PTR(agent->epoch.reconcile.begin_device));
	if (save_interface(agent) < 0)
		log_warning("could not note the interface's counters: they are not told in this epoch");
}

/* What the interface had counted before and after this epoch began. -ENOENT: it is not known. */
static int load_base(const struct agent *agent, const struct epoch *epoch, struct reconcile_link *ret_low,
		     struct reconcile_link *ret_high)
{
	json_t *object _cleanup_json_ = NULL;
	int r = epoch_file_read(agent, epoch, FILE_NAME, &object);

	if (r < 0)
		return r;
	r = json_read_u64(object, "rx_bytes", &ret_low->rx_bytes, NULL);
	if (r == 0)
		r = json_read_u64(object, "tx_bytes", &ret_low->tx_bytes, NULL);
	if (r == 0)
		r = json_read_u64(object, "rx_bytes_after", &ret_high->rx_bytes, NULL);
	return r < 0 ? r : json_read_u64(object, "tx_bytes_after", &ret_high->tx_bytes, NULL);
}

/* Counts of removed peers are in it, too: the cells only grow. */
static struct meter_totals sum_slots(const struct slots *slots)
{
	struct meter_totals sum = {0};

	for (uint32_t slot = 0; slot < slots->end; slot++) {
		const struct slot *at = &slots->slots[slot];

		sum.upload_bytes += at->base.upload_bytes + at->sampled.upload_bytes;
		sum.upload_packets += at->base.upload_packets + at->sampled.upload_packets;
		sum.download_bytes += at->base.download_bytes + at->sampled.download_bytes;
		sum.download_packets += at->base.download_packets + at->sampled.download_packets;
	}
	return sum;
}

static uint64_t since(uint64_t count, uint64_t base)
{
	return count > base ? count - base : 0;
}

/* The sample, and the epoch's begin, are each between two readings: of what may have been, the nearest. */
static uint64_t nearest(uint64_t low, uint64_t high, uint64_t counted)
{
	return counted < low ? low : counted > high ? high : counted;
}

static void fill_interface(struct agent *agent, const struct epoch *epoch, struct batch_reconcile *reconcile)
{
	const bool encrypted = strcmp(wg_kind(agent->wg), "kernel") == 0;
	const uint64_t overhead = encrypted ? MESSAGE_OVERHEAD : 0;
	const struct reconcile_link *before = &epoch->reconcile.before;
	const struct meter_totals *meter = &reconcile->meter;
	struct meter_interface_totals totals;
	struct reconcile_link low, high, after;
	bool merges = true;

	/* Then its counters are of something else than packets, and say nothing of the meter's. */
	if (net_link_merges(agent->net, agent->config.interface, &merges) < 0 || merges)
		return;
	meter_read_interface(epoch->meter, &totals);
	/* It counts refused uploads as well, and which of the refused they are the meter does not say. */
	if (!epoch->reconcile.read_before || totals.refused_bytes > 0 ||
	    load_base(agent, epoch, &low, &high) < 0 || read_link(agent->config.interface, &after) < 0)
		return;
	reconcile->interface.rx_bytes =
		nearest(since(before->rx_bytes, high.rx_bytes), since(after.rx_bytes, low.rx_bytes),
			meter->upload_bytes + overhead * meter->upload_packets);
	reconcile->interface.tx_bytes =
		nearest(since(before->tx_bytes, high.tx_bytes), since(after.tx_bytes, low.tx_bytes),
			meter->download_bytes + overhead * meter->download_packets);
	reconcile->has_interface = true;
	reconcile->interface_is_encrypted = encrypted;
}

/* Read behind the meter, so that what it has counted is in it. */
static void fill_wireguard(struct agent *agent, const struct epoch *epoch, struct batch_reconcile *reconcile)
{
	struct wg_device *device = NULL;

	/* Of one that is sealed they are not known: they are its successor's already. */
	if (!epoch->sums.known || wg_dump(agent->wg, &device) < 0)
		return;
	reconcile->has_wireguard = sums_take(agent, device, &reconcile->wireguard);
	wg_device_free(device);
	sums_told(agent);
}

static bool is_due(const struct epoch *epoch, int64_t utc_ns)
{
	return clock_hour_start(utc_ns) != epoch->reconcile.hour_ns;
}

void reconcile_before_sample(const struct agent *agent, struct epoch *epoch)
{
	epoch->reconcile.read_before = is_due(epoch, clock_utc_ns()) &&
				       read_link(agent->config.interface, &epoch->reconcile.before) == 0;
}

void reconcile_fill(struct agent *agent, struct epoch *epoch, struct batch_head *head)
{
	struct reconcile *state = &epoch->reconcile;
	struct meter_totals sum = sum_slots(&epoch->slots);
	struct batch_reconcile *reconcile = &head->reconcile;

	state->written = (struct reconcile_journal){.upload_bytes = sum.upload_bytes,
						    .download_bytes = sum.download_bytes};
	if (!is_due(epoch, head->utc_to_ns))
		return;
	state->hour_ns = clock_hour_start(head->utc_to_ns);
	reconcile->said = true;
	reconcile->meter = sum;
	reconcile->journal = state->durable;
	fill_wireguard(agent, epoch, reconcile);
	fill_interface(agent, epoch, reconcile);
}

void reconcile_durable(struct agent *agent, uint64_t seq)
{
	agent->epoch.reconcile.durable = agent->epoch.reconcile.written;
	agent->epoch.reconcile.durable.seq = seq;
}
