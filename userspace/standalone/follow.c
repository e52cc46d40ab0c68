// SPDX-License-Identifier: BSD-2-Clause
/* What a station does again and again: follow WireGuard, read, tell the limits, write down. */
#include "standalone/station_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A dump of very many peers is to cost no more than a hundredth of the CPU time, but to wait no longer. */
#define DUMP_SHARE     100
#define DUMP_WITHIN_NS (5 * NSEC_PER_SEC)
#define EARLY_NS       (NSEC_PER_SEC / 4)

static int take_allowed_ips(struct record *record, const struct wg_peer *peer, bool *changed)
{
	size_t size = peer->n_allowed_ips * sizeof(*peer->allowed_ips);
	struct cidr *copy;

	if (record->n_allowed_ips == peer->n_allowed_ips &&
	    (size == 0 || memcmp(record->allowed_ips, peer->allowed_ips, size) == 0))
		return 0;
	copy = malloc(size + 1);
	if (!copy)
		return -ENOMEM;
	if (size)
		memcpy(copy, peer->allowed_ips, size);
	free(record->allowed_ips);
	record->allowed_ips = copy;
	record->n_allowed_ips = peer->n_allowed_ips;
	*changed = true;
	return 0;
}

/* A peer that is new in this epoch: its slot, and where WireGuard's counters stood. */
static int meet(struct station *station, struct record *record, const struct wg_peer *peer)
{
	const char *name = station->names ? names_find(station->names, &record->public_key) : NULL;
	int r = slots_assign(station, record);

	if (r == -ENOSPC) {
		station->unplaced++;
		return 0;
	}
	if (r < 0)
		return r;
	if (name && !record->name) {
		record->name = strdup(name);
		if (!record->name)
			return -ENOMEM;
	}
	record->before_attach = (struct volume){peer->rx_bytes, peer->tx_bytes};
	delivery_begin(record, peer->tx_bytes);
	station->dirty = true;
	return 1;
}

/* Returns how many have got a slot. */
static int meet_all(struct station *station, const struct wg_device *device)
{
	int met = 0;

	for (size_t i = 0; i < device->n_peers; i++) {
		const struct wg_peer *peer = &device->peers[i];
		struct record *record = history_take(&station->history, &peer->public_key);
		int r = record ? take_allowed_ips(record, peer, &station->moved) : -ENOMEM;

		if (r < 0)
			return r;
		station->dirty |= !record->present;
		record->present = true;
		if (!record->slot) {
			r = meet(station, record, peer);
			if (r < 0)
				return r;
			met += r;
		}
	}
	return met;
}

/* Peers that are gone: their slots stay theirs until the last count is written down. */
static void part(struct station *station, const struct wg_device *device)
{
	for (size_t i = 1; i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		if (!record->present || wg_device_find(device, &record->public_key))
			continue;
		record->present = false;
		record->retired_boot_ns = clock_boot_ns();
		record->n_allowed_ips = 0;
		station->dirty = true;
		audit_forget(&record->audit);
	}
}

static int own_slots(struct station *station)
{
	int r = 0;

	for (size_t i = 1; r == 0 && i < station->history.n_records; i++) {
		const struct record *record = station->history.records[i];

		if (record->present && record->slot)
			r = slots_own(station, record);
	}
	return r;
}

static void compare_deliveries(struct station *station, const struct wg_device *device)
{
	int64_t now = clock_boot_ns();

	for (size_t i = 0; i < device->n_peers; i++) {
		const struct wg_peer *peer = &device->peers[i];
		struct record *record = history_find(&station->history, &peer->public_key);

		if (!record->slot)
			continue;
		station_read(station, record);
		station->counted |= delivery_follow(record, peer->tx_bytes, now);
		station->dirty |= alarm_follow(record, peer, now);
	}
}

static int fail(struct json_problem *problem, int r, const char *what)
{
	json_problem_set(problem, "", "could not %s: %s", what, strerror(-r));
	return r;
}

static int take_device(struct station *station, const struct wg_device *device, struct json_problem *problem)
{
	int grown = station_grow(station, device, problem), r, met;

	if (grown == -ENOTRECOVERABLE)
		return grown;
	/* Who finds room finds it all the same. */
	station->unplaced = 0;
	station->moved = false;
	met = meet_all(station, device);
	if (met < 0)
		return fail(problem, met, "take up a new peer");
	part(station, device);
	station->dirty |= station->moved;
	if (station->moved)
		alarm_forget(station);
	/* First the history, then the owner, then what leads packets there. */
	if (met > 0) {
		r = station_save(station, problem);
		if (r < 0)
			return r;
		r = own_slots(station);
		if (r < 0)
			return fail(problem, r, "store a new peer's slot");
		station->regrant = true;
	}
	r = prefixes_apply(station, device);
	if (r < 0)
		return fail(problem, r, "change the meter's table");
	compare_deliveries(station, device);
	return grown;
}

/* The interface may be another's by the time that WireGuard answers: then this is not its peers' list. */
static int take_answer(struct station *station, const struct wg_device *device, struct json_problem *problem)
{
	uint8_t epoch[sizeof(station->history.epoch)];
	int r;

	memcpy(epoch, station->history.epoch, sizeof(epoch));
	r = station_look_around(station, problem);
	if (r < 0)
		return r;
	/* Attached anew meanwhile: it begins with a list of its own. */
	return memcmp(epoch, station->history.epoch, sizeof(epoch)) == 0
		       ? take_device(station, device, problem)
		       : 0;
}

int64_t station_dump_pause_ns(int64_t cpu_ns)
{
	if (cpu_ns < STATION_FOLLOW_NS / DUMP_SHARE)
		return STATION_FOLLOW_NS;
	return cpu_ns < DUMP_WITHIN_NS / DUMP_SHARE ? cpu_ns * DUMP_SHARE : DUMP_WITHIN_NS;
}

static int ask_wireguard(struct station *station, struct json_problem *problem)
{
	struct wg_device *device = NULL;
	int64_t begun = clock_cpu_ns();
	int r;

	alarm_prepare(station);
	r = wg_dump(station->wg, &device);
	station->dump_after_ns = clock_boot_ns() + station_dump_pause_ns(clock_cpu_ns() - begun);
	if (r < 0) {
		int looked = station_look_around(station, problem);

		return looked < 0 ? looked
				  : fail(problem, r == -ENODEV ? -EIO : r, "ask WireGuard for its peers");
	}
	r = take_answer(station, device, problem);
	wg_device_free(device);
	return r;
}

int station_follow(struct station *station, struct json_problem *problem)
{
	int r = station_look_around(station, problem);

	/* Of this name there may be another one here. */
	if (r < 0 || (station->elsewhere && strcmp(wg_kind(station->wg), "kernel") == 0))
		return r;
	/* A little early rather than at the next look. */
	return clock_boot_ns() + EARLY_NS < station->dump_after_ns ? 0 : ask_wireguard(station, problem);
}

static bool is_to_be_saved(const struct station *station, int64_t now)
{
	if (station->dirty)
		return true;
	return station->counted && (now >= station->save_after_ns || slots_are_due(station, now));
}

static int keep_house(struct station *station, struct json_problem *problem)
{
	int64_t now = clock_utc_ns(), boot_now = clock_boot_ns();
	int r = meter_drain_events(station->meter);

	if (r < 0)
		return fail(problem, r, "read the meter's events");
	if (history_is_due(&station->history, now)) {
		grants_note(station);
		station->dirty |= history_turn(&station->history, now);
	}
	r = grants_apply(station);
	if (r < 0)
		return fail(problem, r, "tell the kernel a limit");
	if (is_to_be_saved(station, boot_now)) {
		r = station_save(station, problem);
		if (r < 0)
			return r;
	}
	r = slots_release(station, boot_now);
	return r < 0 ? fail(problem, r, "free a slot") : 0;
}

int station_sample(struct station *station, struct json_problem *problem)
{
	int r = 0;

	for (size_t i = 0; i < station->history.n_records; i++)
		station_read(station, station->history.records[i]);
	station->shadowed = meter_is_shadowed(station->meter);
	if (!station->view)
		r = keep_house(station, problem);
	grants_read(station);
	return r;
}

int64_t station_turns_at_ns(void)
{
	return period_end(PERIOD_DAY, clock_utc_ns());
}

const struct history *station_history(const struct station *station)
{
	return &station->history;
}

bool station_is_limited(const struct station *station)
{
	return station->limited;
}

int station_shadowed(const struct station *station)
{
	return station->shadowed;
}

const char *station_attachment(const struct station *station)
{
	return meter_attachment(station->meter);
}

uint64_t station_unparsed_packets(const struct station *station)
{
	struct meter_interface_totals totals;

	meter_read_interface(station->meter, &totals);
	return totals.unparsed_packets;
}

bool station_is_attached(const struct station *station)
{
	return station->shadowed != -ENOLINK;
}

bool station_had_history(const struct station *station)
{
	return station->had_history;
}

bool station_was_attached(const struct station *station)
{
	return station->attached;
}

size_t station_unplaced(const struct station *station)
{
	return station->unplaced;
}

int station_event_fd(const struct station *station)
{
	return meter_event_fd(station->meter);
}
