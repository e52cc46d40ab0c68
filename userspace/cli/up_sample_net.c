// SPDX-License-Identifier: BSD-2-Clause
/*
 * The sample's networks: a public bridge with this host on it, a VPC's bridge, a server in the VPC, and a
 * laptop somewhere on the internet. RUNDIR/sample/networks is written before the first of them is made: with
 * it, what has these names is ours.
 */
#include "base/cidr.h"
#include "base/file.h"
#include "base/ip.h"
#include "base/namespace.h"
#include "cli/up_sample.h"
#include "cli/up_sample_parts.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define OWNED_FILE   "sample/networks"
#define NAMES        "/run/netns"
#define ADVICE       "; remove it, or stop what made it, and try again"

static const char *const bridges[] = {SAMPLE_PUBLIC_BRIDGE, SAMPLE_PRIVATE_BRIDGE};

static const struct sample_host {
	const char *name, *bridge, *address;
} hosts[] = {
	{SAMPLE_SERVER, SAMPLE_PRIVATE_BRIDGE, SAMPLE_SERVER_ADDRESS},
	{SAMPLE_LAPTOP, SAMPLE_PUBLIC_BRIDGE, SAMPLE_LAPTOP_ADDRESS},
};

const char *sample_netns(const char *name, up_path path)
{
	return up_join(NAMES, name, path);
}

/* ---- whose they are -------------------------------------------------------------------------------------
 */

bool up_sample_exists(const struct up *up)
{
	_cleanup_free_ char *boot = NULL, *owned = NULL;
	up_path path;

	return file_read(BOOT_ID_FILE, 64, &boot, NULL) == 0 &&
	       file_read(up_join(up->run, OWNED_FILE, path), 64, &owned, NULL) == 0 &&
	       strcmp(boot, owned) == 0;
}

static int take_ownership(const struct up *up)
{
	_cleanup_free_ char *boot = NULL;
	up_path path;
	int r = up_make_folder(up_join(up->run, "sample", path), 0, 0700);

	if (r < 0)
		return r;
	r = file_read(BOOT_ID_FILE, 64, &boot, NULL);
	if (r == 0)
		r = file_replace(up_join(up->run, OWNED_FILE, path), boot, strlen(boot), 0600);
	return r < 0 ? up_fail(r, "could not write %s: %s", path, strerror(-r)) : 0;
}

/* ---- conflicts ------------------------------------------------------------------------------------------
 */

static int check_link(const char *name)
{
	if (if_nametoindex(name) == 0)
		return 0;
	return up_fail(-EEXIST, "the interface %s exists and is not this sample's" ADVICE, name);
}

static int check_names(void)
{
	up_path path;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(bridges); i++)
		r = check_link(bridges[i]);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(hosts); i++) {
		r = check_link(hosts[i].name);
		if (r == 0 && access(sample_netns(hosts[i].name, path), F_OK) == 0)
			r = up_fail(-EEXIST,
				    "the network namespace %s exists and is not this sample's" ADVICE,
				    hosts[i].name);
	}
	return r;
}

/* `text` is an address or a destination on this host; "default" and the like are none. */
static int check_range(const char *what, const char *text, const char *device)
{
	static const char *const ranges[] = {SAMPLE_PUBLIC, SAMPLE_PRIVATE};
	struct cidr range, found;

	if (!text || cidr_parse(text, &found) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		if (cidr_parse(ranges[i], &range) == 0 && cidr_overlaps(&range, &found))
			return up_fail(
				-EEXIST,
				"the %s %s on the interface %s is in %s, which the sample needs" ADVICE, what,
				text, device ?: "?", ranges[i]);
	return 0;
}

static int check_addresses(void)
{
	static const char *const words[] = {"-4", "address", "show", NULL};
	_cleanup_json_ json_t *links = NULL;
	json_t *link, *address;
	size_t i, j;
	int r = ip_query(NULL, words, &links);

	if (r < 0)
		return up_fail(r, "could not list this host's addresses: %s", strerror(-r));
	json_array_foreach (links, i, link)
		json_array_foreach (json_object_get(link, "addr_info"), j, address) {
			r = check_range("address", json_string_value(json_object_get(address, "local")),
					json_string_value(json_object_get(link, "ifname")));
			if (r < 0)
				return r;
		}
	return 0;
}

/* A route of length 0 overlaps all and hides nothing: ours are longer. */
static int check_routes(void)
{
	static const char *const words[] = {"-4", "route", "show", NULL};
	_cleanup_json_ json_t *routes = NULL;
	json_t *route;
	size_t i;
	int r = ip_query(NULL, words, &routes);

	if (r < 0)
		return up_fail(r, "could not list this host's routes: %s", strerror(-r));
	json_array_foreach (routes, i, route) {
		const char *destination = json_string_value(json_object_get(route, "dst"));

		if (destination && strcmp(destination, "0.0.0.0/0") != 0)
			r = check_range("route to", destination,
					json_string_value(json_object_get(route, "dev")));
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_conflicts(void)
{
	int r = check_names();

	if (r == 0)
		r = check_addresses();
	return r == 0 ? check_routes() : r;
}

/* ---- making and removing --------------------------------------------------------------------------------
 */

static int run_batch(const struct ip_batch *batch, const char *netns)
{
	char error[400];
	int r = ip_batch_run(batch, netns, error, sizeof(error));

	return r < 0 ? up_fail(r, "could not set up the sample's networks: %s", error) : 0;
}

static int make_bridges(void)
{
	_cleanup_ip_ struct ip_batch batch = {0};

	/*
	 * With an address of its own: otherwise a bridge has its ports' lowest, another one as they come and
	 * go, and who knows the one before is unheard for seconds.
	 */
	for (size_t i = 0; i < ARRAY_SIZE(bridges); i++) {
		if (if_nametoindex(bridges[i]) == 0)
			ip_batch_add(&batch, "link add %s address 02:77:74:00:00:%02zx type bridge",
				     bridges[i], i + 1);
		ip_batch_add(&batch, "link set %s up", bridges[i]);
	}
	ip_batch_add(&batch, "address replace " SAMPLE_HOST "/24 dev " SAMPLE_PUBLIC_BRIDGE);
	return run_batch(&batch, NULL);
}

static int make_host(const struct sample_host *host)
{
	_cleanup_ip_ struct ip_batch outside = {0}, inside = {0};
	up_path netns;
	int r = namespace_make_net(sample_netns(host->name, netns));

	if (r < 0)
		return up_fail(r, "could not make the network namespace %s: %s", host->name, strerror(-r));
	if (if_nametoindex(host->name) == 0)
		ip_batch_add(&outside, "link add %s type veth peer name eth0 netns %s", host->name,
			     host->name);
	ip_batch_add(&outside, "link set %s master %s up", host->name, host->bridge);
	ip_batch_add(&inside, "link set lo up");
	ip_batch_add(&inside, "link set eth0 up");
	ip_batch_add(&inside, "address replace %s/24 dev eth0", host->address);
	r = run_batch(&outside, NULL);
	return r == 0 ? run_batch(&inside, netns) : r;
}

int up_sample_prepare(const struct up *up)
{
	int r = 0;

	if (!up_sample_exists(up)) {
		r = check_conflicts();
		if (r == 0)
			r = take_ownership(up);
	}
	if (r < 0)
		return r;
	sample_say("networks " SAMPLE_PUBLIC " and " SAMPLE_PRIVATE ", a server and a laptop");
	r = file_make_folder(NAMES, 0755);
	if (r == 0)
		r = namespace_hold_names(NAMES);
	if (r < 0)
		return up_fail(r, "could not make the folder " NAMES ": %s", strerror(-r));
	r = make_bridges();
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(hosts); i++)
		r = make_host(&hosts[i]);
	return r;
}

int up_sample_remove(const struct up *up)
{
	_cleanup_ip_ struct ip_batch batch = {0};
	up_path path;
	int r;

	if (!up_sample_exists(up))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
		if (if_nametoindex(hosts[i].name) != 0)
			ip_batch_add(&batch, "link delete %s", hosts[i].name);
	for (size_t i = 0; i < ARRAY_SIZE(bridges); i++)
		if (if_nametoindex(bridges[i]) != 0)
			ip_batch_add(&batch, "link delete %s", bridges[i]);
	r = run_batch(&batch, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		int unmounted = namespace_unmount(sample_netns(hosts[i].name, path));

		if (unmounted < 0)
			r = up_fail(unmounted, "could not remove %s: %s", path, strerror(-unmounted));
	}
	namespace_release_names(NAMES);
	/* The mark of ownership last: whoever is interrupted before comes again. */
	return r == 0 ? up_remove_folder(up_join(up->run, "sample", path)) : r;
}
