// SPDX-License-Identifier: BSD-2-Clause
/*
 * What WireGuard has counted since the epoch began, over all peers. Its counters belong to a peer's presence
 * in the device, so the sum is that of the peers that are there and a number beside it: of those that have
 * left, less what all had counted before. Which peers the number goes with is noted with it, as it was before
 * the last change of the peers and as it is after: whoever is killed in between finds one of the two. Where
 * the device has other peers than either, somebody else has changed them, and the sum is told no more.
 */
#include <string.h>

#include "agent/agent.h"
#include "base/log.h"

#define FILE_NAME "wireguard.json"

/* Public keys are as good as random: the sum of their first words tells sets of them apart. */
static uint64_t word_of(const struct key *key)
{
	uint64_t word;

	memcpy(&word, key->bytes, sizeof(word));
	return word;
}

static uint64_t keys_of(const struct wg_device *device)
{
	uint64_t keys = device->n_peers;

	for (size_t i = 0; i < device->n_peers; i++)
		keys += word_of(&device->peers[i].public_key);
	return keys;
}

static struct reconcile_link add_peers(struct reconcile_link sum, const struct wg_device *device)
{
	for (size_t i = 0; i < device->n_peers; i++) {
		sum.rx_bytes += device->peers[i].rx_bytes;
		sum.tx_bytes += device->peers[i].tx_bytes;
	}
	return sum;
}

static json_t *base_json(const struct sums_base *base)
{
	return json_pack("{s:o, s:o, s:o}", "keys", json_u64(base->keys), "rx_bytes",
			 json_u64(base->beside.rx_bytes), "tx_bytes", json_u64(base->beside.tx_bytes));
}

static int save(const struct agent *agent)
{
	const struct sums *sums = &agent->epoch.sums;

	return epoch_file_write(agent, &agent->epoch, FILE_NAME,
				json_pack("{s:o, s:o, s:o, s:o}", "told_rx_bytes",
					  json_u64(sums->told.rx_bytes), "told_tx_bytes",
					  json_u64(sums->told.tx_bytes), "now", base_json(&sums->now), "next",
					  base_json(&sums->next)));
}

/* For good: a later process must not believe what is in the file. */
static void give_up(struct agent *agent, const char *reason)
{
	int r;

	if (!agent->epoch.sums.known)
		return;
	agent->epoch.sums.known = false;
	log_warning("WireGuard's own counts are not told in this epoch any more: %s", reason);
	r = epoch_file_remove(agent, FILE_NAME);
	if (r < 0)
		log_warning("could not remove " FILE_NAME ": %s", strerror(-r));
}

static void save_or_give_up(struct agent *agent)
{
	if (agent->epoch.sums.known && save(agent) < 0)
		give_up(agent, FILE_NAME " cannot be written");
}

void sums_begin_epoch(struct agent *agent, const struct wg_device *before)
{
	const struct reconcile_link counted = add_peers((struct reconcile_link){0}, before);
	struct sums_base base = {.keys = keys_of(before),
				 .beside = {.rx_bytes = -counted.rx_bytes, .tx_bytes = -counted.tx_bytes}};

	agent->epoch.sums = (struct sums){.known = true, .now = base, .next = base};
	save_or_give_up(agent);
}

static int read_base(const json_t *object, const char *field, struct sums_base *ret_base)
{
	const json_t *base;
	int r = json_read_object(object, field, &base, NULL);

	if (r == 0)
		r = json_read_u64(base, "keys", &ret_base->keys, NULL);
	if (r == 0)
		r = json_read_u64(base, "rx_bytes", &ret_base->beside.rx_bytes, NULL);
	return r < 0 ? r : json_read_u64(base, "tx_bytes", &ret_base->beside.tx_bytes, NULL);
}

int sums_load(struct agent *agent)
{
	json_t *object _cleanup_json_ = NULL;
	struct sums sums = {.known = true};
	int r = epoch_file_read(agent, &agent->epoch, FILE_NAME, &object);

	agent->epoch.sums.known = false;
	if (r < 0)
		return r;
	r = json_read_u64(object, "told_rx_bytes", &sums.told.rx_bytes, NULL);
	if (r == 0)
		r = json_read_u64(object, "told_tx_bytes", &sums.told.tx_bytes, NULL);
	if (r == 0)
		r = read_base(object, "now", &sums.now);
	if (r == 0)
		r = read_base(object, "next", &sums.next);
	if (r == 0)
		agent->epoch.sums = sums;
	return r;
}

/* The base that goes with the peers in the device; NULL: neither does. */
static const struct sums_base *find_base(const struct sums *sums, const struct wg_device *device)
{
	uint64_t keys = keys_of(device);

	return keys == sums->next.keys ? &sums->next : keys == sums->now.keys ? &sums->now : NULL;
}

bool sums_take(struct agent *agent, const struct wg_device *device, struct reconcile_link *ret_sum)
{
	struct sums *sums = &agent->epoch.sums;
	const struct sums_base *base = sums->known ? find_base(sums, device) : NULL;
	struct reconcile_link sum;

	if (!base) {
		give_up(agent, "its peers were changed by others");
		return false;
	}
	sum = add_peers(base->beside, device);
	if ((int64_t)(sum.rx_bytes - sums->told.rx_bytes) < 0 ||
	    (int64_t)(sum.tx_bytes - sums->told.tx_bytes) < 0) {
		give_up(agent, "they fell");
		return false;
	}
	sums->told = sum;
	*ret_sum = sum;
	return true;
}

void sums_restarted(struct agent *agent)
{
	give_up(agent, "a peer was made anew by others");
}

void sums_told(struct agent *agent)
{
	save_or_give_up(agent);
}

static bool settle_base(struct agent *agent, const struct wg_device *device)
{
	struct reconcile_link sum;

	if (!sums_take(agent, device, &sum))
		return false;
	agent->epoch.sums.now = *find_base(&agent->epoch.sums, device);
	return true;
}

void sums_expect_removal(struct agent *agent, const struct wg_device *device, const struct plan *plan)
{
	struct sums_base next;

	if (!settle_base(agent, device))
		return;
	next = agent->epoch.sums.now;
	for (size_t i = 0; i < plan->n_remove; i++) {
		const struct wg_peer *live = wg_device_find(device, &plan->remove[i].public_key);

		if (!live)
			continue;
		next.keys -= word_of(&live->public_key) + 1;
		next.beside.rx_bytes += live->rx_bytes;
		next.beside.tx_bytes += live->tx_bytes;
	}
	agent->epoch.sums.next = next;
	save_or_give_up(agent);
}

void sums_expect_addition(struct agent *agent, const struct wg_device *device, const struct plan *plan)
{
	struct sums_base next;

	/* What was removed just now is not in the device any more: that change is through. */
	if (plan->n_remove == 0 && !settle_base(agent, device))
		return;
	if (plan->n_remove > 0)
		agent->epoch.sums.now = agent->epoch.sums.next;
	next = agent->epoch.sums.now;
	for (size_t i = 0; i < plan->n_set; i++)
		if (!plan->set[i].update_only)
			next.keys += word_of(&plan->set[i].public_key) + 1;
	if (next.keys == agent->epoch.sums.now.keys)
		return;
	agent->epoch.sums.next = next;
	save_or_give_up(agent);
}
