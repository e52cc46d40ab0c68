// SPDX-License-Identifier: BSD-2-Clause
/* How a station's meter ends: its last counts into the history, then nothing of it stays. */
#include "standalone/station_internal.h"

#include <unistd.h>

int station_seal(struct station *station, struct meter *meter, const struct place *place,
		 struct json_problem *problem)
{
	struct meter *own = station->meter;
	int r = 0;

	station->meter = meter;
	r = station_take_sealed(station, problem);
	if (r == 0 && station_is_epoch(station)) {
		station_read_all(station);
		history_end_epoch(&station->history);
		r = station_save(station, problem);
	}
	station->meter = own;
	if (r < 0) {
		meter_close(meter);
		return r;
	}
	r = meter_remove(meter);
	if (r < 0)
		return station_fail(problem, r, "could not remove the ended meter's pins");
	unlink(place->pointer);
	return 0;
}

int station_remove(struct station *station, bool keep_history, struct json_problem *problem)
{
	int r = station_seal(station, TAKE_PTR(station->meter), &station->place, problem);

	if (r < 0)
		return r;
	station_clear_place(station, keep_history);
	return 0;
}
