// SPDX-License-Identifier: BSD-2-Clause
/* A station's life: adopt or attach, look, close, stop. */
#include "standalone/station_internal.h"

#include "base/clock.h"
#include "base/file.h"
#include "meter/view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* How often, and how soon, a view looks again while the meter is handed over. */
#define LOOKS         40
#define LOOK_AGAIN_US 50000

/* To write counts of very many peers is to cost no more than a hundredth of the time, but to wait no longer.
 */
#define SAVE_SHARE     100
#define SAVE_WITHIN_NS (60 * NSEC_PER_SEC)

static int fail(struct json_problem *problem, int r, const char *what)
{
	json_problem_set(problem, "", "%s: %s", what, strerror(-r));
	return r;
}

void station_close(struct station *station)
{
	if (!station)
		return;
	meter_close(station->meter);
	wg_close(station->wg);
	history_free(&station->history);
	cleanup_close(&station->history_lock);
	free(station->prefixes);
	free(station->orphans);
	free(station);
}

static void cleanup_station(struct station **station)
{
	station_close(*station);
}

#define _cleanup_station_ WT_CLEANUP(cleanup_station)

static int station_new(const char *interface, struct station **ret_station, struct json_problem *problem)
{
	struct station *station = calloc(1, sizeof(*station));
	int r;

	if (!station)
		return fail(problem, -ENOMEM, "wiretoll meter");
	station->history_lock = -1;
	r = place_find(interface, &station->place, problem);
	if (r < 0) {
		station_close(station);
		return r;
	}
	*ret_station = station;
	return 0;
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

static void read_all(struct station *station)
{
	for (size_t i = 0; i < station->history.n_records; i++)
		station_read(station, station->history.records[i]);
}

static bool is_epoch(const struct station *station)
{
	const struct meter_identity *identity = meter_identity(station->meter);

	return memcmp(station->history.epoch, identity->map_uuid, sizeof(identity->map_uuid)) == 0;
}

/* ---- the history's file -------------------------------------------------------------------------------- */

int station_lock_history(struct station *station, struct json_problem *problem)
{
	char path[PATH_MAX + 8];

	snprintf(path, sizeof(path), "%s.lock", station->history_path);
	station->history_lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (station->history_lock < 0)
		return fail(problem, -errno, path);
	if (flock(station->history_lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	json_problem_set(problem, "state", "another process writes %s", station->history_path);
	return -EBUSY;
}

static int choose_path(struct station *station, const char *state, const char *interface, const char *pointed,
		       struct json_problem *problem)
{
	char folder[PATH_MAX];
	int r = state ? file_make_folder(state, 0700) : file_make_folder(PLACE_HISTORY, 0700);

	if (r < 0)
		return fail(problem, r, state ? state : PLACE_HISTORY);
	if (!state) {
		snprintf(station->history_path, PATH_MAX, "%s", *pointed ? pointed : station->place.history);
		return 0;
	}
	/* The next process may stand in another folder. */
	if (!realpath(state, folder))
		return fail(problem, -errno, state);
	if ((size_t)snprintf(station->history_path, PATH_MAX, "%s/%s.json", folder, interface) >= PATH_MAX)
		return fail(problem, -ENAMETOOLONG, state);
	return 0;
}

/* One that is named for the first time continues the one that the meter had until now. */
static int load_history(struct station *station, const struct station_options *options,
			struct json_problem *problem)
{
	char pointed[PATH_MAX] = "";
	int found = place_read_pointer(&station->place, pointed), r;

	if (found < 0 && found != -ENOENT)
		return fail(problem, found, station->place.pointer);
	r = choose_path(station, options->state, options->interface, pointed, problem);
	if (r == 0)
		r = station_lock_history(station, problem);
	if (r < 0)
		return r;
	r = history_load(station->history_path, &station->history, problem);
	if (r == 0 && *pointed && station->meter && strcmp(pointed, station->history_path) != 0 &&
	    !is_epoch(station)) {
		json_problem_set(
			problem, "state",
			"the meter on %s has its history in %s, and %s is another: name the first, or "
			"use wiretoll meter stop %s before",
			options->interface, pointed, station->history_path, options->interface);
		return -EEXIST;
	}
	if (r == -ENOENT && *pointed)
		r = history_load(pointed, &station->history, problem);
	if (r == -ENOENT)
		r = history_create(options->interface, &station->history);
	return r == -ENOMEM ? fail(problem, r, "the history") : r;
}

void station_clear_place(const struct station *station)
{
	char lock[PATH_MAX + 8];

	if (strcmp(station->history_path, station->place.history) == 0)
		unlink(station->history_path);
	snprintf(lock, sizeof(lock), "%s.lock", station->history_path);
	unlink(lock);
	place_clear();
}

/* ---- the meter ----------------------------------------------------------------------------------------- */

int station_seal(struct station *station, struct meter *meter, const struct place *place,
		 struct json_problem *problem)
{
	struct meter *own = station->meter;
	int r = 0;

	station->meter = meter;
	r = station_take_sealed(station, problem);
	if (r == 0 && is_epoch(station)) {
		read_all(station);
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
		return fail(problem, r, "could not remove the ended meter's pins");
	unlink(place->pointer);
	return 0;
}

/* The interface was made anew, and nobody ran to see the old one end. */
static int seal_earlier(struct station *station, const char *interface, struct json_problem *problem)
{
	struct meter_options options = {.interface = interface};
	struct meter *meter;
	struct place place;
	int r;

	if (strcmp(station->history.place, station->place.id) == 0 ||
	    place_from_id(station->history.place, &place) < 0)
		return 0;
	options.pin_folder = place.pins;
	r = meter_adopt(&options, &meter);
	if (r == -ENOENT)
		return 0;
	if (r != -ESTALE)
		return fail(problem, r, "could not read the meter that the history had before");
	if (place.netns_cookie != station->place.netns_cookie && !meter_is_ended(meter)) {
		meter_close(meter);
		json_problem_set(problem, "state",
				 "%s belongs to the %s of another network namespace; use another folder",
				 station->history_path, interface);
		return -EEXIST;
	}
	return station_seal(station, meter, &place, problem);
}

static int describe_adopt(int r, const char *interface, struct json_problem *problem)
{
	if (r == -EBUSY)
		json_problem_set(problem, "", "another process runs the meter on %s", interface);
	else if (r == -EPROTO)
		json_problem_set(problem, "",
				 "the meter on %s was attached by another version of wiretoll, whose counts "
				 "this one cannot read",
				 interface);
	else if (r == -EPERM || r == -EACCES)
		json_problem_set(problem, "",
				 "not permitted: it needs root (or CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON)");
	else
		json_problem_set(problem, "", "could not adopt the meter on %s: %s", interface, strerror(-r));
	return r;
}

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

static int attach(struct station *station, const struct station_options *options,
		  struct json_problem *problem)
{
	struct meter_options meter_options = {.pin_folder = station->place.pins,
					      .interface = options->interface,
					      .attach = options->attach,
					      .capacity = WT_DEFAULT_CAPACITY};
	uint32_t peers;
	int r = count_peers(station, &peers);

	if (r < 0)
		return fail(problem, r, "could not ask WireGuard for its peers");
	/* Room for as many again. */
	while (meter_options.capacity / 2 < peers && meter_options.capacity < WT_MAX_CAPACITY)
		meter_options.capacity *= 2;
	r = meter_attach(&meter_options, &station->meter);
	if (r < 0)
		return describe_attach(r, options->interface, problem);
	station->attached = true;
	return 0;
}

/* Pins, history and meter; what is there is adopted. */
static int take_place(struct station *station, const struct station_options *options,
		      struct json_problem *problem)
{
	struct meter_options meter_options = {.pin_folder = station->place.pins,
					      .interface = options->interface};
	struct meter *found = NULL;
	int adopted = meter_adopt(&meter_options, &found), r;

	if (adopted == 0)
		station->meter = found;
	else if (adopted != -ENOENT && adopted != -ESTALE)
		return describe_adopt(adopted, options->interface, problem);
	r = load_history(station, options, problem);
	if (r < 0 && adopted == -ESTALE)
		meter_close(found);
	else if (adopted == -ESTALE)
		r = station_seal(station, found, &station->place, problem);
	else if (r == 0 && station->meter)
		r = station_take_sealed(station, problem);
	if (r == 0)
		r = seal_earlier(station, options->interface, problem);
	if (r == 0 && !station->meter) {
		r = attach(station, options, problem);
		if (r < 0)
			station_clear_place(station);
	}
	return r;
}

static int set_name(struct record *record, const char *name)
{
	free(record->name);
	record->name = name ? strdup(name) : NULL;
	return name && !record->name ? -ENOMEM : 0;
}

static int set_names(struct station *station)
{
	static const struct names none;
	const struct names *names = station->names ? station->names : &none;
	int r = 0;

	for (size_t i = 1; r == 0 && i < station->history.n_records; i++)
		r = set_name(station->history.records[i],
			     names_find(names, &station->history.records[i]->public_key));
	return r;
}

static int set_limits(struct station *station, const struct station_options *options)
{
	struct history *history = &station->history;

	history->accounting = options->accounting;
	history->limit.set = options->limit_interface;
	history->limit.amount = options->interface_limit;
	for (size_t i = 0; i < history->n_records; i++)
		history->records[i]->limit.set = false;
	for (size_t i = 0; i < options->n_limits; i++) {
		struct record *record = history_take(history, &options->limits[i].public_key);

		if (!record)
			return -ENOMEM;
		record->limit.set = true;
		record->limit.amount = options->limits[i].amount;
	}
	return 0;
}

static int take_options(struct station *station, const struct station_options *options)
{
	int r = options->keep ? 0 : set_limits(station, options);

	station->names = options->names;
	if (r == 0 && !options->keep)
		r = set_names(station);
	return r;
}

/* From here on the history is this meter's. */
static int take_epoch(struct station *station, struct json_problem *problem)
{
	struct history *history = &station->history;
	int r;

	if (!is_epoch(station)) {
		history_end_epoch(history);
		memcpy(history->epoch, meter_identity(station->meter)->map_uuid, sizeof(history->epoch));
	}
	snprintf(history->place, sizeof(history->place), "%s", station->place.id);
	history->records[0]->present = true;
	r = station_save(station, problem);
	if (r == 0) {
		r = place_write_pointer(&station->place, station->history_path);
		if (r < 0)
			return fail(problem, r, station->place.pointer);
	}
	return r;
}

static int restore(struct station *station, struct json_problem *problem)
{
	int r = slots_restore(station);

	if (r == 0)
		r = prefixes_restore(station);
	if (r < 0)
		return fail(problem, r, "could not read the meter's tables");
	return 0;
}

int station_open(const struct station_options *options, struct station **ret_station,
		 struct json_problem *problem)
{
	_cleanup_station_ struct station *station = NULL;
	_cleanup_close_ int lock = -1;
	int r = station_new(options->interface, &station, problem);

	if (r < 0)
		return r;
	r = wg_open(options->interface, &station->wg);
	if (r == -ENODEV) {
		json_problem_set(problem, "interface",
				 "%s is no WireGuard interface: the kernel knows none of this name, and "
				 "/var/run/wireguard/%s.sock is not there",
				 options->interface, options->interface);
		return r;
	}
	if (r < 0)
		return fail(problem, r, "could not ask WireGuard");
	r = place_lock(&lock);
	if (r < 0)
		return fail(problem, r, PLACE_RUN);
	station_collect(&station->place);
	r = place_mount(problem);
	if (r == 0)
		r = take_place(station, options, problem);
	if (r == 0 && take_options(station, options) < 0)
		r = fail(problem, -ENOMEM, "the peers' names and limits");
	if (r == 0)
		r = take_epoch(station, problem);
	if (r == 0)
		r = restore(station, problem);
	if (r == 0)
		r = station_upgrade(station, problem);
	if (r < 0)
		return r;
	station->regrant = true;
	r = station_follow(station, problem);
	if (r == 0)
		r = station_sample(station, problem);
	if (r == 0)
		*ret_station = TAKE_PTR(station);
	return r;
}

/* -ESTALE when the history is of another epoch than the meter. */
static int look(struct station *station, const char *interface, struct json_problem *problem)
{
	int r = meter_view(station->place.pins, &station->meter);

	if (r == -ENOENT) {
		json_problem_set(problem, "", "no meter is attached to %s: wiretoll meter %s attaches one",
				 interface, interface);
		return r;
	}
	if (r < 0)
		return describe_adopt(r, interface, problem);
	r = place_read_pointer(&station->place, station->history_path);
	if (r < 0)
		return fail(problem, r, station->place.pointer);
	r = history_load(station->history_path, &station->history, problem);
	if (r == 0 && !is_epoch(station)) {
		json_problem_set(problem, "state", "%s is not of the meter on %s", station->history_path,
				 interface);
		r = -ESTALE;
	}
	return r;
}

/* A look makes nothing, not even the folder with the lock. */
static void collect_before_look(const struct station *station)
{
	_cleanup_close_ int lock = -1;

	if (access(PLACE_BPF, F_OK) == 0 && place_lock(&lock) == 0)
		station_collect(&station->place);
}

int station_view(const char *interface, struct station **ret_station, struct json_problem *problem)
{
	int r = -ESTALE;

	/* Another process may be handing the meter over: the history follows in a moment. */
	for (int i = 0; r == -ESTALE && i < LOOKS; i++) {
		_cleanup_station_ struct station *station = NULL;

		if (i > 0)
			usleep(LOOK_AGAIN_US);
		r = station_new(interface, &station, problem);
		if (r < 0)
			return r;
		station->view = true;
		if (i == 0)
			collect_before_look(station);
		r = look(station, interface, problem);
		if (r == 0)
			r = station_sample(station, problem);
		if (r == 0)
			*ret_station = TAKE_PTR(station);
	}
	return r;
}

int station_finish(struct station *station, struct json_problem *problem)
{
	if (station->view || !station->meter)
		return 0;
	read_all(station);
	return station->dirty || station->counted ? station_save(station, problem) : 0;
}

static int remove_all(struct station *station, struct json_problem *problem)
{
	int r = station_seal(station, TAKE_PTR(station->meter), &station->place, problem);

	if (r < 0)
		return r;
	station_clear_place(station);
	return 0;
}

int station_retire(struct station *station, struct json_problem *problem)
{
	_cleanup_close_ int lock = -1;
	int r = place_lock(&lock);

	return r < 0 ? fail(problem, r, PLACE_RUN) : remove_all(station, problem);
}

int station_stop(const char *interface, struct json_problem *problem)
{
	_cleanup_station_ struct station *station = NULL;
	_cleanup_close_ int lock = -1;
	struct meter_options options = {.interface = interface};
	struct station_options wanted = {.interface = interface};
	int r = station_new(interface, &station, problem);

	if (r < 0)
		return r;
	r = place_lock(&lock);
	if (r < 0)
		return fail(problem, r, PLACE_RUN);
	station_collect(&station->place);
	options.pin_folder = station->place.pins;
	r = meter_adopt(&options, &station->meter);
	if (r == -ENOENT) {
		json_problem_set(problem, "", "no meter is attached to %s", interface);
		place_clear();
		return r;
	}
	if (r < 0 && r != -ESTALE)
		return describe_adopt(r, interface, problem);
	r = load_history(station, &wanted, problem);
	return r < 0 ? r : remove_all(station, problem);
}
