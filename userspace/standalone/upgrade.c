// SPDX-License-Identifier: BSD-2-Clause
/*
 * A station's meter handed over: to this version's programs, or to more slots. The history has the old
 * epoch's last counts and the new epoch's name by one replacing of its file, so they are added once.
 */
#include "standalone/station_internal.h"

#include "base/clock.h"
#include "meter/handover.h"

#include <wiretoll/attribution.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* After a hand-over that failed. */
#define TRY_AGAIN_NS (60 * NSEC_PER_SEC)

static bool is_full_by(uint64_t used, uint64_t room)
{
	return used > room / 8 * 7;
}

static int fail(struct json_problem *problem, int r, const char *what)
{
	json_problem_set(problem, "", "could not %s: %s", what, strerror(-r));
	return r;
}

int station_take_sealed(struct station *station, struct json_problem *problem)
{
	struct meter *meter = station->meter, *sealed = NULL;
	int r = meter_open_sealed(meter, &sealed);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return fail(problem, r, "read the counts of the meter before");
	if (memcmp(station->history.epoch, meter_identity(sealed)->map_uuid, 16) == 0) {
		station->meter = sealed;
		for (size_t i = 0; i < station->history.n_records; i++)
			station_read(station, station->history.records[i]);
		station->meter = meter;
		history_next_epoch(&station->history, meter_identity(meter)->map_uuid);
		r = station_save(station, problem);
		if (r < 0) {
			meter_close(sealed);
			return r;
		}
	}
	r = meter_forget_sealed(meter, sealed);
	return r < 0 ? fail(problem, r, "remove the counts of the meter before") : 0;
}

int station_hand_over(struct station *station, uint32_t capacity, struct json_problem *problem)
{
	int r = meter_hand_over(&station->meter, capacity);

	if (r == -EIO) {
		json_problem_set(problem, "",
				 "could not finish handing the meter over: it counts on; start this again");
		return -ENOTRECOVERABLE;
	}
	if (r < 0)
		return fail(problem, r, "hand the meter over");
	return station_take_sealed(station, problem);
}

int station_upgrade(struct station *station, struct json_problem *problem)
{
	return meter_is_outdated(station->meter) ? station_hand_over(station, 0, problem) : 0;
}

/* Slots that peers have or will have: those that are gone keep theirs until their last count is written. */
static uint64_t slots_used(const struct station *station, const struct wg_device *device)
{
	uint64_t used = 1 + device->n_peers + station->n_orphans;

	for (size_t i = 1; i < station->history.n_records; i++) {
		const struct record *record = station->history.records[i];

		used += record->slot && !wg_device_find(device, &record->public_key);
	}
	return used;
}

static uint64_t most_prefixes(const struct wg_device *device)
{
	uint64_t ipv4 = 0, ipv6 = 0;

	for (size_t i = 0; i < device->n_peers; i++) {
		for (size_t j = 0; j < device->peers[i].n_allowed_ips; j++)
			*(device->peers[i].allowed_ips[j].family == AF_INET ? &ipv4 : &ipv6) += 1;
	}
	return ipv4 > ipv6 ? ipv4 : ipv6;
}

int station_grow(struct station *station, const struct wg_device *device, struct json_problem *problem)
{
	uint32_t has = meter_identity(station->meter)->capacity, wanted = has;
	uint64_t slots = slots_used(station, device), prefixes = most_prefixes(device);
	int r;

	while (wanted < WT_MAX_CAPACITY &&
	       (is_full_by(slots, wanted) || is_full_by(prefixes, (uint64_t)wanted * WT_PREFIXES_PER_PEER)))
		wanted *= 2;
	if (wanted > WT_MAX_CAPACITY)
		wanted = WT_MAX_CAPACITY;
	if (wanted == has || clock_boot_ns() < station->grow_after_ns)
		return 0;
	station->grow_after_ns = clock_boot_ns() + TRY_AGAIN_NS;
	r = station_hand_over(station, wanted, problem);
	if (r == 0)
		station->grow_after_ns = 0;
	return r;
}
