// SPDX-License-Identifier: BSD-2-Clause
/* A station's history in step with its meter: read, named and saved. */
#include "standalone/station_internal.h"

#include "base/clock.h"

#include <string.h>

/* To write counts of very many peers is to cost no more than a hundredth of the time, but to wait no longer.
 */
#define SAVE_SHARE     100
#define SAVE_WITHIN_NS (60 * NSEC_PER_SEC)

int station_fail(struct json_problem *problem, int r, const char *what)
{
	json_problem_set(problem, "", "%s: %s", what, strerror(-r));
	return r;
}

int station_save(struct station *station, struct json_problem *problem)
{
	int64_t begun = clock_cpu_ns(), pause;
	int r = history_save(&station->history, station->history_path);

	if (r < 0) {
		json_problem_set(problem, "state", "could not write %s: %s", station->history_path,
				 strerror(-r));
		return r;
	}
	station->dirty = station->counted = false;
	pause = (clock_cpu_ns() - begun) * SAVE_SHARE;
	station->save_after_ns = clock_boot_ns() + (pause < SAVE_WITHIN_NS ? pause : SAVE_WITHIN_NS);
	return 0;
}

void station_read(struct station *station, struct record *record)
{
	struct meter_totals cell;

	/* Who has no slot has no count of his own; the first record's slot is 0 by right. */
	if (!record->slot && record != station->history.records[0])
		return;
	meter_read(station->meter, record->slot, &cell);
	if (record_add(record, &cell))
		station->counted = true;
}

void station_read_all(struct station *station)
{
	for (size_t i = 0; i < station->history.n_records; i++)
		station_read(station, station->history.records[i]);
}

bool station_is_epoch(const struct station *station)
{
	const struct meter_identity *identity = meter_identity(station->meter);

	return memcmp(station->history.epoch, identity->map_uuid, sizeof(identity->map_uuid)) == 0;
}

void station_take_name(struct station *station, const char *name)
{
	_cleanup_json_ json_t *text = json_string(name);

	if (name != station->interface)
		memcpy(station->interface, name, sizeof(station->interface));
	if (text)
		memcpy(station->history.interface, name, sizeof(station->history.interface));
}
