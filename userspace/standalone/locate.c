// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/locate.h"

#include "meter/view.h"
#include "standalone/netns.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void cleanup_view(struct meter **meter)
{
	meter_close(*meter);
}
#define _cleanup_view_ WT_CLEANUP(cleanup_view)

/* Until one is it; that one is the caller's. */
typedef bool (*meter_fn)(const struct meter *meter, const struct place *place, void *data);

static bool any_meter(meter_fn fn, void *data, struct place *ret_place, struct meter **ret_meter)
{
	DIR *folder = opendir(PLACE_BPF);
	const struct dirent *entry;
	bool found = false;

	while (folder && !found && (entry = readdir(folder))) {
		struct meter *meter;
		struct place place;

		if (place_from_id(entry->d_name, &place) < 0 || meter_view(place.pins, &meter) < 0)
			continue;
		found = fn(meter, &place, data);
		if (found) {
			*ret_place = place;
			*ret_meter = meter;
		} else {
			meter_close(meter);
		}
	}
	if (folder)
		closedir(folder);
	return found;
}

/* ---- in this network namespace ---------------------------------------------------------------------------
 */

static bool is_on(const struct meter *meter, const struct place *place, void *data)
{
	const uint32_t *wanted = data;
	uint32_t ifindex;

	(void)place;
	return meter_presence(meter, &ifindex) == METER_HERE && ifindex == *wanted;
}

/* Another meter than that of the interface may have been attached in this place, and then have left. */
static int check_place(const struct place *place, struct json_problem *problem)
{
	_cleanup_view_ struct meter *meter = NULL;
	uint32_t ifindex;

	if (meter_view(place->pins, &meter) < 0)
		return 0;
	switch (meter_presence(meter, &ifindex)) {
	case METER_DETACHED:
	case METER_GONE:
		return 0;
	default:
		json_problem_set(
			problem, "interface",
			"the place of its meter is taken by that of another %s, which was moved: end that "
			"before, with wiretoll meter stop %s",
			meter_interface(meter), place->id);
		return -EEXIST;
	}
}

static int locate_here(struct location *location, struct json_problem *problem)
{
	_cleanup_view_ struct meter *meter = NULL;
	uint32_t ifindex = location->place.ifindex;

	if (meter_view(location->place.pins, &meter) == 0 && is_on(meter, NULL, &ifindex))
		return 0;
	meter_close(TAKE_PTR(meter));
	if (any_meter(is_on, &ifindex, &location->place, &meter))
		return 0;
	return check_place(&location->place, problem);
}

/* ---- in another ------------------------------------------------------------------------------------------
 */

static bool is_here(void *data)
{
	uint32_t ifindex;

	return meter_presence(data, &ifindex) == METER_HERE;
}

bool locate_enter(const struct meter *meter, char ret_interface[static IF_NAMESIZE])
{
	uint32_t ifindex;

	if (!netns_search(is_here, (void *)meter))
		return false;
	(void)meter_presence(meter, &ifindex);
	return if_indextoname(ifindex, ret_interface);
}

struct wanted {
	const char *interface;
	uint64_t netns_cookie;
	char ids[160]; /* of meters in other network namespaces whose interfaces have this name */
};

/* It was here when it was seen last, by this name; or it is named by its place. */
static bool was_here(const struct meter *meter, const struct place *place, void *data)
{
	struct wanted *wanted = data;
	size_t used = strlen(wanted->ids);
	uint32_t ifindex;

	if (strcmp(place->id, wanted->interface) == 0)
		return true;
	if (strcmp(meter_interface(meter), wanted->interface) != 0)
		return false;
	if (meter_identity(meter)->netns_cookie == wanted->netns_cookie)
		return meter_has_links(meter) && meter_presence(meter, &ifindex) == METER_ELSEWHERE;
	if (used + strlen(place->id) + 3 < sizeof(wanted->ids))
		snprintf(wanted->ids + used, sizeof(wanted->ids) - used, "%s%s", used ? ", " : "", place->id);
	return false;
}

static int locate_moved(const char *interface, struct location *location, struct json_problem *problem)
{
	struct wanted wanted = {.interface = interface};
	_cleanup_view_ struct meter *meter = NULL;
	int r = place_netns_cookie(&wanted.netns_cookie);

	if (r < 0)
		return r;
	if (!any_meter(was_here, &wanted, &location->place, &meter)) {
		if (*wanted.ids)
			json_problem_set(problem, "interface",
					 "there is no interface \"%.40s\" here; meters of interfaces of this "
					 "name in other network namespaces: %s (wiretoll meter show ID, or "
					 "stop ID)",
					 interface, wanted.ids);
		return -ENODEV;
	}
	snprintf(location->interface, IF_NAMESIZE, "%s", meter_interface(meter));
	location->unreachable = !locate_enter(meter, location->interface);
	return 0;
}

int locate(const char *interface, struct location *ret_location, struct json_problem *problem)
{
	struct location location = {0};
	int r = place_find(interface, &location.place, problem);

	snprintf(location.interface, IF_NAMESIZE, "%s", interface);
	if (r == 0)
		r = locate_here(&location, problem);
	else if (r == -ENODEV)
		r = locate_moved(interface, &location, problem);
	if (r == 0)
		*ret_location = location;
	return r;
}
