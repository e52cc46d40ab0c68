// SPDX-License-Identifier: BSD-2-Clause
/* A station's life: adopt or attach, look, close, stop. */
#include "standalone/station_internal.h"

#include "meter/view.h"
#include "standalone/locate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often, and how soon, a view looks again while the meter is handed over. */
#define LOOKS         40
#define LOOK_AGAIN_US 50000

void station_close(struct station *station)
{
	if (!station)
		return;
	meter_close(station->meter);
	wg_close(station->wg);
	history_free(&station->history);
	cleanup_close(&station->history_lock);
	cleanup_close(&station->hold);
	net_close(station->links);
	netns_watch_end(&station->netns);
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
	struct location location;
	int r;

	if (!station)
		return station_fail(problem, -ENOMEM, "wiretoll meter");
	station->history_lock = station->hold = station->netns.mounts = -1;
	r = locate(interface, &location, problem);
	if (r < 0) {
		station_close(station);
		return r;
	}
	station->place = location.place;
	station->elsewhere = location.unreachable;
	memcpy(station->interface, location.interface, sizeof(station->interface));
	*ret_station = station;
	return 0;
}

/* Of the meter that the history names, on another interface than this: whether that certainly counts no more.
 */
static int check_ended(const struct station *station, const struct meter *meter, const struct place *place,
		       struct json_problem *problem)
{
	uint32_t ifindex;

	switch (meter_presence(meter, &ifindex)) {
	case METER_GONE:
		if (meter_has_links(meter) || place->netns_cookie == station->place.netns_cookie)
			return 0;
		json_problem_set(problem, "state",
				 "%s belongs to the %s of another network namespace; use another folder",
				 station->history_path, station->history.interface);
		return -EEXIST;
	case METER_DETACHED:
		return 0;
	default:
		json_problem_set(
			problem, "state",
			"%s is of the meter on an interface that was %s before and has it still: end "
			"that by wiretoll meter stop %s, let it take its history along by wiretoll "
			"meter NAME --count 1 with its new name, or use another folder",
			station->history_path, station->history.interface, place->id);
		return -EEXIST;
	}
}

/* The interface was made anew, and nobody ran to see the old one end. */
static int seal_earlier(struct station *station, struct json_problem *problem)
{
	struct meter_options options = {.interface = station->interface};
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
		return station_fail(problem, r, "could not read the meter that the history had before");
	r = check_ended(station, meter, &place, problem);
	if (r < 0) {
		meter_close(meter);
		return r;
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

/* Pins, history and meter; what is there is adopted. */
static int take_place(struct station *station, const struct station_options *options,
		      struct json_problem *problem)
{
	struct meter_options meter_options = {.pin_folder = station->place.pins,
					      .interface = station->interface};
	struct meter *found = NULL;
	int adopted = meter_adopt(&meter_options, &found), r;

	if (adopted == 0)
		station->meter = found;
	else if (adopted != -ENOENT && adopted != -ESTALE)
		return describe_adopt(adopted, station->interface, problem);
	r = station_load_history(station, options->state, problem);
	if (r < 0 && adopted == -ESTALE)
		meter_close(found);
	else if (adopted == -ESTALE)
		r = station_seal(station, found, &station->place, problem);
	else if (r == 0 && station->meter)
		r = station_take_sealed(station, problem);
	if (r == 0)
		r = seal_earlier(station, problem);
	/* Of the interface as it is now: one that was moved begins in its new place. */
	if (r == 0 && !station->meter)
		r = place_find(station->interface, &station->place, problem);
	if (r < 0 || station->meter)
		return r;
	r = station_attach(station, options->attach, problem);
	station->attached = r == 0;
	if (r < 0)
		station_clear_place(station, true);
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

/* The name by which WireGuard knew the interface of the pinned meter: a userspace one's socket keeps it. */
static void recall_wireguard(const struct station *station, char ret_name[static IF_NAMESIZE])
{
	char path[PATH_MAX];
	struct history history;
	struct json_problem problem;

	*ret_name = '\0';
	if (access(station->place.pins, F_OK) < 0 || place_read_pointer(&station->place, path) < 0 ||
	    history_load(path, &history, &problem) < 0)
		return;
	if (strcmp(history.place, station->place.id) == 0)
		memcpy(ret_name, history.wireguard, IF_NAMESIZE);
	history_free(&history);
}

static int open_wireguard(struct station *station, struct json_problem *problem)
{
	const char *interface = station->interface;
	char *name = station->wireguard;
	int r = -ENODEV;

	recall_wireguard(station, name);
	if (*name && strcmp(name, interface) != 0)
		r = wg_open(name, &station->wg);
	/* The kernel's has followed the interface, and that name may be another's. */
	if (r == 0 && strcmp(wg_kind(station->wg), "userspace") != 0) {
		wg_close(TAKE_PTR(station->wg));
		r = -ENODEV;
	}
	if (r == -ENODEV) {
		memcpy(name, interface, IF_NAMESIZE);
		r = wg_open(interface, &station->wg);
	}
	if (r == -ENODEV)
		json_problem_set(problem, "interface",
				 "%s is no WireGuard interface: the kernel knows none of this name, and "
				 "/var/run/wireguard/%s.sock is not there",
				 interface, interface);
	return r == 0 || r == -ENODEV ? r : station_fail(problem, r, "could not ask WireGuard");
}

/* What all meters share, and what others have left behind. */
static int prepare(struct station *station, struct json_problem *problem)
{
	_cleanup_close_ int lock = -1;
	int r;

	station_collect(&station->place);
	r = place_lock(&lock);
	if (r < 0)
		return station_fail(problem, r, PLACE_RUN);
	r = place_mount(problem);
	if (r < 0)
		return r;
	r = place_hold(&station->hold);
	return r < 0 ? station_fail(problem, r, PLACE_BPF) : 0;
}

static int begin_looking(struct station *station, struct json_problem *problem)
{
	int r = net_watch_open(&station->links);

	netns_watch_begin(&station->netns);
	if (r == 0)
		r = net_watch_filters(station->links);
	return r < 0 ? station_fail(problem, r, "could not watch the interfaces") : 0;
}

int station_open(const struct station_options *options, struct station **ret_station,
		 struct json_problem *problem)
{
	_cleanup_station_ struct station *station = NULL;
	int r = station_new(options->interface, &station, problem);

	if (r < 0)
		return r;
	if (station->elsewhere) {
		json_problem_set(
			problem, "interface",
			"%s is in a network namespace that cannot be entered from here, and its meter "
			"counts on there: start this there, or end it by wiretoll meter stop %s",
			options->interface, station->place.id);
		return -ENODEV;
	}
	r = open_wireguard(station, problem);
	/* Before anything is looked at: a change after that is told. */
	if (r == 0)
		r = begin_looking(station, problem);
	if (r == 0)
		r = prepare(station, problem);
	if (r == 0)
		r = take_place(station, options, problem);
	if (r == 0 && take_options(station, options) < 0)
		r = station_fail(problem, -ENOMEM, "the peers' names and limits");
	if (r == 0)
		r = station_take_epoch(station, problem);
	if (r == 0)
		r = station_restore(station, problem);
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
static int look(struct station *station, struct json_problem *problem)
{
	const char *interface = station->interface;
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
		return station_fail(problem, r, station->place.pointer);
	r = history_load(station->history_path, &station->history, problem);
	if (r == 0 && !station_is_epoch(station)) {
		json_problem_set(problem, "state", "%s is not of the meter on %s", station->history_path,
				 interface);
		r = -ESTALE;
	}
	/* By its present name, which the file has from the next process on. */
	if (r == 0)
		station_take_name(station, station->interface);
	return r;
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
			station_collect(&station->place);
		r = look(station, problem);
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
	station_read_all(station);
	return station->dirty || station->counted ? station_save(station, problem) : 0;
}

static int stop_nothing(const struct station *station, const char *interface, bool keep_history,
			struct json_problem *problem)
{
	struct station rest = {.place = station->place, .history_lock = -1, .hold = -1};

	if (!keep_history && station_forget_history(interface) == 0)
		return 0;
	json_problem_set(problem, "", "no meter is attached to %s", interface);
	rmdir(station->place.pins);
	station_clear_place(&rest, true);
	return -ENOENT;
}

static int stop(struct station *station, bool keep_history, struct json_problem *problem)
{
	struct meter_options options = {.pin_folder = station->place.pins, .interface = station->interface};
	int r = meter_adopt(&options, &station->meter);

	if (r == -ENOENT)
		return stop_nothing(station, station->interface, keep_history, problem);
	if (r < 0 && r != -ESTALE)
		return describe_adopt(r, station->interface, problem);
	r = station_load_history(station, NULL, problem);
	return r < 0 ? r : station_remove(station, keep_history, problem);
}

int station_stop(const char *interface, bool keep_history, struct json_problem *problem)
{
	_cleanup_station_ struct station *station = NULL;
	int r;

	station_collect(NULL);
	r = station_new(interface, &station, problem);
	if (r == -ENODEV && !keep_history && station_forget_history(interface) == 0)
		return 0;
	if (r < 0)
		return r;
	return stop(station, keep_history, problem);
}
