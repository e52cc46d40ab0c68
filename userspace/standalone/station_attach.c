// SPDX-License-Identifier: BSD-2-Clause
/* How a station's meter begins: on the interface, with the history as its own. */
#include "standalone/station_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int describe_attach(int r, const char *interface, struct json_problem *problem)
{
	if (r == -EBUSY)
		json_problem_set(
			problem, "",
			"another program has the meter's place on %s (tc: ingress pref 1 and egress pref "
			"65535; or XDP's)",
			interface);
	else if (r == -EOPNOTSUPP)
		json_problem_set(
			problem, "attach",
			"%s may receive aggregates, of which XDP would count one header only: `ethtool "
			"-K %s gro off` (and, for a userspace WireGuard that writes aggregates, switch "
			"that off there), or use --attach auto",
			interface, interface);
	else if (r == -EINVAL)
		json_problem_set(problem, "", "this kernel cannot attach as asked: use --attach auto");
	else
		json_problem_set(problem, "", "could not attach to %s: %s", interface, strerror(-r));
	return r;
}

static int count_peers(struct station *station, uint32_t *ret_count)
{
	struct wg_device *device = NULL;
	int r = wg_dump(station->wg, &device);

	if (r < 0)
		return r;
	*ret_count = (uint32_t)device->n_peers;
	wg_device_free(device);
	return 0;
}

int station_attach(struct station *station, enum meter_attach how, struct json_problem *problem)
{
	struct meter_options meter_options = {.pin_folder = station->place.pins,
					      .interface = station->interface,
					      .attach = how,
					      .capacity = WT_DEFAULT_CAPACITY};
	uint32_t peers;
	int r = count_peers(station, &peers);

	if (r < 0)
		return station_fail(problem, r, "could not ask WireGuard for its peers");
	/* Room for as many again. */
	while (meter_options.capacity / 2 < peers && meter_options.capacity < WT_MAX_CAPACITY)
		meter_options.capacity *= 2;
	r = meter_attach(&meter_options, &station->meter);
	if (r < 0)
		return describe_attach(r, station->interface, problem);
	return 0;
}

/* From here on the history is this meter's. */
int station_take_epoch(struct station *station, struct json_problem *problem)
{
	struct history *history = &station->history;
	int r;

	if (!station_is_epoch(station)) {
		history_end_epoch(history);
		memcpy(history->epoch, meter_identity(station->meter)->map_uuid, sizeof(history->epoch));
	}
	snprintf(history->place, sizeof(history->place), "%s", station->place.id);
	memcpy(history->wireguard, station->wireguard, sizeof(history->wireguard));
	station_take_name(station, station->interface);
	history->records[0]->present = true;
	r = station_save(station, problem);
	if (r == 0)
		r = station_point(station, problem);
	return r < 0 ? r : station_rename_history(station, problem);
}

int station_restore(struct station *station, struct json_problem *problem)
{
	int r;

	station->n_orphans = 0;
	station->last_slot = 0;
	r = slots_restore(station);
	if (r == 0)
		r = prefixes_restore(station);
	if (r < 0)
		return station_fail(problem, r, "could not read the meter's tables");
	return 0;
}

static enum meter_attach same_attachment(const struct meter *meter)
{
	if (strcmp(meter_attachment(meter), "xdp") == 0)
		return METER_ATTACH_XDP;
	return strcmp(meter_attachment(meter), "tcx") == 0 ? METER_ATTACH_TCX : METER_ATTACH_TC;
}

int station_attach_anew(struct station *station, struct json_problem *problem)
{
	enum meter_attach how = same_attachment(station->meter);
	int r = station_seal(station, TAKE_PTR(station->meter), &station->place, problem);

	if (r == 0)
		r = place_find(station->interface, &station->place, problem);
	if (r == 0)
		r = station_attach(station, how, problem);
	if (r < 0)
		return r;
	station->history.reattached++;
	station->regrant = true;
	r = station_take_epoch(station, problem);
	return r < 0 ? r : station_restore(station, problem);
}
