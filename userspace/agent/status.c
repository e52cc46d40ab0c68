// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Names of endpoints are resolved again when the peer has been silent for this long. */
#define SILENT_NS   (180 * NSEC_PER_SEC)
#define HASH_OFFSET 0xcbf29ce484222325ULL
#define HASH_PRIME  0x100000001b3ULL

static uint64_t hash_status(const struct wg_peer *live, const char *endpoint, enum audit_verdict verdict)
{
	uint64_t hash = HASH_OFFSET;

	for (const char *byte = endpoint; *byte; byte++)
		hash = (hash ^ (uint8_t)*byte) * HASH_PRIME;
	hash = (hash ^ (uint64_t)live->handshake_ns) * HASH_PRIME;
	return (hash ^ (uint64_t)verdict) * HASH_PRIME;
}

static json_t *status_of(const struct desired_peer *peer, const struct wg_peer *live, const char *endpoint,
			 enum audit_verdict verdict)
{
	char id[UUID_TEXT_SIZE], handshake[CLOCK_TEXT_SIZE];

	return json_pack("{s:s, s:s?, s:s?, s:s*}", "peer", uuid_format(peer->id, id), "handshake",
			 live->handshake_ns ? clock_format(live->handshake_ns, handshake) : NULL, "endpoint",
			 endpoint[0] ? endpoint : NULL, "audit", audit_verdict_name(verdict));
}

static void resolve_silent(struct agent *agent, const struct desired_peer *peer, const struct wg_peer *live)
{
	struct sockaddr_storage numeric;

	if (peer->endpoint[0] && endpoint_parse(peer->endpoint, &numeric) < 0 &&
	    live->handshake_ns < clock_utc_ns() - SILENT_NS)
		resolve_begin(agent, peer->id, peer->endpoint);
}

static void collect_peer(struct agent *agent, const struct wg_peer *live, int64_t boot_ns, json_t *status)
{
	const struct desired_peer *peer = desired_find_key(agent->desired, &live->public_key);
	uint32_t slot = peer ? slots_find(&agent->epoch.slots, peer->id) : 0;
	char endpoint[ENDPOINT_NUMERIC_SIZE];
	struct slot *at = &agent->epoch.slots.slots[slot];
	uint64_t hash;

	if (slot == 0)
		return;
	fair_take(agent, slot, live, boot_ns);
	resolve_silent(agent, peer, live);
	hash = hash_status(live, endpoint_format(&live->endpoint, endpoint), at->audit.verdict);
	if (hash == at->status_hash)
		return;
	at->status_hash = hash;
	if (endpoints_put(&agent->endpoints, peer->id, &live->endpoint) < 0 ||
	    json_array_append_new(status, status_of(peer, live, endpoint, at->audit.verdict)) < 0)
		log_warning("could not report a peer's status: out of memory");
}

json_t *status_collect(struct agent *agent)
{
	int64_t boot_ns = clock_boot_ns();
	struct wg_device *device = NULL;
	struct reconcile_link sum;
	json_t *status;

	if (!agent->desired || !agent->wg || agent->leaving == LEAVING_GONE ||
	    wg_dump(agent->wg, &device) < 0)
		return NULL;
	status = json_array();
	for (size_t i = 0; i < device->n_peers; i++)
		collect_peer(agent, &device->peers[i], boot_ns, status);
	fair_finish(agent, boot_ns);
	/* Who changes the peers behind us is found here, before a sum of them is due. */
	(void)sums_take(agent, device, &sum);
	wg_device_free(device);
	if (endpoints_save(agent->base, &agent->endpoints) < 0)
		log_warning("could not write endpoints.json");
	return status;
}
