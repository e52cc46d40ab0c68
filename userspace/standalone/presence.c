// SPDX-License-Identifier: BSD-2-Clause
/*
 * Where the interface is: it may get another name or go to another network namespace, and the meter with it.
 * Somebody may detach the meter, or delete the interface, or the namespace around us.
 */
#include "standalone/station_internal.h"

#include "base/clock.h"
#include "meter/view.h"
#include "standalone/locate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Between two searches for the network namespace that an interface went to. */
#define SEARCH_AGAIN_NS (5 * NSEC_PER_SEC)

static WT_PRINTF(2, 3) void tell(struct station *station, const char *format, ...)
{
	size_t used = strlen(station->news);
	va_list arguments;

	if (used && used + 2 < sizeof(station->news)) {
		memcpy(station->news + used, "; ", 3);
		used += 2;
	}
	va_start(arguments, format);
	vsnprintf(station->news + used, sizeof(station->news) - used, format, arguments);
	va_end(arguments);
}

const char *station_take_news(struct station *station)
{
	static char taken[sizeof(station->news)];

	memcpy(taken, station->news, sizeof(taken));
	station->news[0] = '\0';
	return *taken ? taken : NULL;
}

/* The last counts are written down, and nothing of it stays: one of the same name is another interface. */
static int end(struct station *station, const char *why, struct json_problem *problem)
{
	/* What could not be written is in the pins, for the next process; this one has no meter any more. */
	if (station_remove(station, true, problem) < 0)
		return -ENOTRECOVERABLE;
	json_problem_set(problem, "interface", "%s%s; its meter has ended", station->history.interface, why);
	return -ENODEV;
}

/* The kernel's WireGuard is asked by name, in the network namespace of the interface. */
static int follow_wireguard(struct station *station, struct json_problem *problem)
{
	struct wg *wg;
	int r;

	if (strcmp(wg_kind(station->wg), "userspace") == 0)
		return 0;
	r = wg_open(station->interface, &wg);
	if (r < 0) {
		json_problem_set(problem, "", "could not ask WireGuard: %s", strerror(-r));
		return r;
	}
	wg_close(station->wg);
	station->wg = wg;
	memcpy(station->wireguard, station->interface, sizeof(station->wireguard));
	memcpy(station->history.wireguard, station->wireguard, sizeof(station->history.wireguard));
	return 0;
}

static int note(struct station *station, struct json_problem *problem)
{
	int r = meter_note_interface(station->meter, station->interface);

	if (r < 0) {
		/* It has changed once more: the next look sees that. */
		json_problem_set(problem, "", "could not follow %s: %s", station->interface, strerror(-r));
		return r == -ENODEV ? -EAGAIN : r;
	}
	r = follow_wireguard(station, problem);
	station->dirty = true;
	return r < 0 ? r : station_rename_history(station, problem);
}

static int follow_name(struct station *station, uint32_t ifindex, struct json_problem *problem)
{
	const struct meter_identity *known = meter_identity(station->meter);
	char before[IF_NAMESIZE], name[IF_NAMESIZE] = "";

	if (!if_indextoname(ifindex, name))
		return 0;
	if (strcmp(name, station->interface) == 0 && strcmp(name, meter_interface(station->meter)) == 0 &&
	    known->ifindex == ifindex)
		return 0;
	memcpy(before, station->interface, sizeof(before));
	station_take_name(station, name);
	if (strcmp(name, before) != 0)
		tell(station, "%s is called %s now: its meter goes on", before, name);
	return note(station, problem);
}

static int watch_links(struct station *station, struct json_problem *problem)
{
	struct net *links;
	int r = net_watch_open(&links);

	if (r == 0)
		r = net_watch_filters(links);
	if (r < 0) {
		json_problem_set(problem, "", "could not watch the interfaces: %s", strerror(-r));
		return r;
	}
	net_close(station->links);
	station->links = links;
	netns_watch_end(&station->netns);
	netns_watch_begin(&station->netns);
	return 0;
}

/* Its links are on an interface of another network namespace: there we go, too, if we can. */
static int follow_elsewhere(struct station *station, struct json_problem *problem)
{
	char name[IF_NAMESIZE];
	int r;

	if (station->elsewhere && clock_boot_ns() < station->search_after_ns)
		return 0;
	station->search_after_ns = clock_boot_ns() + SEARCH_AGAIN_NS;
	if (!locate_enter(station->meter, name)) {
		if (!station->elsewhere)
			tell(station,
			     "%s was moved to a network namespace that cannot be entered from here: it is "
			     "counted and limited there%s",
			     station->interface,
			     strcmp(wg_kind(station->wg), "kernel") == 0
				     ? ", but its peers cannot be followed: start wiretoll meter there"
				     : "");
		station->elsewhere = true;
		return 0;
	}
	station->elsewhere = false;
	tell(station, "%s was moved to another network namespace: its meter goes on there",
	     station->interface);
	station_take_name(station, name);
	r = watch_links(station, problem);
	return r < 0 ? r : note(station, problem);
}

static int attach_anew(struct station *station, struct json_problem *problem)
{
	struct json_problem reason;

	if (station_attach_anew(station, &reason) < 0) {
		json_problem_set(problem, "",
				 "the meter on %s was detached by somebody else, and could not be attached "
				 "anew, so nothing is counted any more, and no limit holds: %.160s",
				 station->interface, reason.message);
		return -ENOTRECOVERABLE;
	}
	tell(station, "the meter on %s was detached by somebody else: it is attached anew",
	     station->interface);
	station->dump_after_ns = 0;
	return 0;
}

/* With nobody else in it, nor a name, it is there for our sake only, and the interface with it. */
static int check_namespace(struct station *station, struct json_problem *problem)
{
	pid_t holder;

	if (station->elsewhere || !netns_is_deleted(&station->netns))
		return 0;
	holder = netns_holder(&station->netns);
	if (!holder)
		return end(station,
			   " is in a network namespace that was deleted, and that nothing else holds",
			   problem);
	if (!station->deletion_told)
		tell(station,
		     "the network namespace of %s was deleted, but process %d still holds it, for all that "
		     "is "
		     "known: the meter goes on until that ends",
		     station->interface, (int)holder);
	station->deletion_told = true;
	return 0;
}

int station_look_around(struct station *station, struct json_problem *problem)
{
	uint32_t ifindex;
	int r = 0;

	switch (meter_presence(station->meter, &ifindex)) {
	case METER_HERE:
		station->elsewhere = false;
		r = follow_name(station, ifindex, problem);
		break;
	case METER_ELSEWHERE:
		r = follow_elsewhere(station, problem);
		break;
	case METER_DETACHED:
		r = station->elsewhere ? end(station, " is gone", problem) : attach_anew(station, problem);
		break;
	case METER_GONE:
		return end(station,
			   meter_has_links(station->meter) ? " is gone"
							   : " is gone, or in another network namespace, "
							     "where clsact filters do not follow it",
			   problem);
	}
	return r < 0 ? r : check_namespace(station, problem);
}

int station_links_fd(const struct station *station)
{
	return net_watch_fd(station->links);
}

struct change {
	const struct station *station;
	bool ours;
};

static void on_change(const char *interface, int ifindex, bool deleted, void *data)
{
	struct change *change = data;

	(void)interface, (void)deleted;
	change->ours |= (uint32_t)ifindex == meter_identity(change->station->meter)->ifindex;
}

bool station_links_changed(struct station *station)
{
	struct change change = {.station = station};

	/* Whatever was lost may have been ours. */
	return net_watch_dispatch(station->links, on_change, &change) < 0 || change.ours;
}
