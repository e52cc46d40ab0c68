// SPDX-License-Identifier: BSD-2-Clause
/*
 * What is left of meters that ended with nobody there to see it: their interface was deleted, or their
 * network namespace. Only what certainly counts nothing any more is touched, and only while nobody holds it.
 */
#include "standalone/station_internal.h"

#include "meter/view.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/*
 * A link says by itself that its interface is gone, wherever that was. A clsact filter is no object of its
 * own: of another namespace's nothing is known from here. One that was detached waits for its next process.
 */
static bool is_ended(const struct meter *meter, uint64_t here)
{
	uint32_t ifindex;

	return meter_presence(meter, &ifindex) == METER_GONE &&
	       (meter_has_links(meter) || meter_identity(meter)->netns_cookie == here);
}

/* Opens it with its lock, if it has ended. -EBUSY when somebody holds it, -EEXIST when it lives. */
static int open_ended(const struct place *place, uint64_t here, struct meter **ret_meter)
{
	struct meter_options options = {.pin_folder = place->pins};
	struct meter *meter;
	char interface[IF_NAMESIZE];
	bool ended;
	int r = meter_view(place->pins, &meter);

	if (r < 0)
		return r;
	ended = is_ended(meter, here);
	memcpy(interface, meter_interface(meter), sizeof(interface));
	meter_close(meter);
	if (!ended)
		return -EEXIST;
	options.interface = interface;
	r = meter_adopt(&options, &meter);
	if (r == -ESTALE && is_ended(meter, here)) {
		*ret_meter = meter;
		return 0;
	}
	if (r == 0 || r == -ESTALE) {
		meter_close(meter);
		r = -EEXIST;
	}
	return r;
}

static void collect_one(const struct place *place, uint64_t here)
{
	struct station station = {.place = *place, .history_lock = -1, .hold = -1};
	struct json_problem problem;
	struct meter *meter = NULL;
	int r;

	if (open_ended(place, here, &meter) < 0)
		return;
	r = place_read_pointer(place, station.history_path);
	if (r == -ENOENT) {
		/* It died before its history began. */
		if (meter_remove(meter) == 0)
			station_clear_place(&station, true);
		return;
	}
	if (r == 0)
		r = station_lock_history(&station, &problem);
	if (r == 0)
		r = history_load(station.history_path, &station.history, &problem);
	if (r == 0 && station_seal(&station, meter, place, &problem) == 0)
		station_clear_place(&station, true);
	else if (r < 0)
		meter_close(meter);
	history_free(&station.history);
	cleanup_close(&station.history_lock);
}

void station_collect(const struct place *own)
{
	DIR *folder = opendir(PLACE_BPF);
	const struct dirent *entry;
	struct place place;
	uint64_t here;

	if (place_netns_cookie(&here) < 0)
		here = 0;
	while (folder && (entry = readdir(folder))) {
		if ((!own || strcmp(entry->d_name, own->id) != 0) &&
		    place_from_id(entry->d_name, &place) == 0)
			collect_one(&place, here);
	}
	if (folder)
		closedir(folder);
}
