// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/guard.h"
#include "base/ip.h"
#include "base/json.h"
#include "base/spawn.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STRINGIFY(x) #x
#define TEXT_OF(x)   STRINGIFY(x)
#define GROUP        TEXT_OF(GUARD_LINK_GROUP)

/*
 * A packet carries the bit from the bridge to the first look at it behind connection tracking, where it is
 * taken off again: before anybody's mangle and nat chains, which may overwrite whole marks. Nobody who works
 * earlier uses it; see docs/netns-driver.md.
 */
#define MARK       "0x2000"
#define OTHER_BITS "0xffffdfff"

/* Each rule has it: by it the rules of this version are known. A change of the rules changes the number. */
#define VERSION "wiretoll 2"
#define SAYS    " comment \"" VERSION "\"\n"

#define NEIGHBOURS "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept" SAYS

/*
 * Where a packet comes in, a bridge knows the port, and only IP knows what is the host's own address: so the
 * one marks and the other judges. Neighbour discovery stays, as the host may be the VPC's router.
 *
 * What goes to many is judged as it leaves the bridge for the host: with br_netfilter the IP chain also sees
 * what is bridged to others. And of the reserved group addresses some pass no chain of the bridge at all, but
 * come up from the port itself.
 *
 * Made anew in one transaction, whatever is there: the old rules hold until the new ones do.
 */
// clang-format off
static const char rules[] =
	"table bridge wiretoll_host { }\n"
	"table inet wiretoll_host { }\n"
	"delete table bridge wiretoll_host\n"
	"delete table inet wiretoll_host\n"
	"table bridge wiretoll_host {\n"
	"	counter refused { }\n"
	"	chain prerouting {\n"
	"		type filter hook prerouting priority -1; policy accept;\n"
	"		iifgroup " GROUP " meta mark set meta mark or " MARK SAYS
	"	}\n"
	"	chain input {\n"
	"		type filter hook input priority filter; policy accept;\n"
	"		iifgroup != " GROUP " accept" SAYS
	"		ether type arp accept" SAYS
	"		" NEIGHBOURS
	"		meta pkttype { broadcast, multicast } counter name refused drop" SAYS
	"	}\n"
	"}\n"
	"table inet wiretoll_host {\n"
	"	counter refused { }\n"
	"	chain prerouting {\n"
	"		type filter hook prerouting priority -199; policy accept;\n"
	"		iifgroup " GROUP " counter name refused drop" SAYS
	"		meta mark and " MARK " == 0 accept" SAYS
	"		meta mark set meta mark and " OTHER_BITS SAYS
	"		ct state established,related accept" SAYS
	"		" NEIGHBOURS
	"		fib daddr type { local, anycast } counter name refused drop" SAYS
	"		fib daddr . iif type { local, anycast } counter name refused drop" SAYS
	"		meta pkttype != { broadcast, multicast } fib daddr type { broadcast, multicast } counter name refused drop" SAYS
	"	}\n"
	"}\n";
// clang-format on

static const char removal[] = "table bridge wiretoll_host { }\ndelete table bridge wiretoll_host\n"
			      "table inet wiretoll_host { }\ndelete table inet wiretoll_host\n";

static const char *const families[] = {"bridge", "inet"};

static int run_nft(const char *text, char *error, size_t error_size)
{
	static const char *const argv[] = {"nft", "-f", "-", NULL};
	_cleanup_free_ char *words = NULL;
	struct spawn spawn = {.argv = argv, .new_session = true};
	int r = spawn_run(spawn, text, NULL, &words);

	if (r == 0)
		return 0;
	snprintf(error, error_size, "nft: %s", r < 0 ? strerror(-r) : words);
	return r < 0 ? r : -EIO;
}

static size_t count_rules(const char *text)
{
	size_t n = 0;

	for (text = strstr(text, VERSION); text; text = strstr(text + 1, VERSION))
		n++;
	return n;
}

/* A table that cannot be listed is taken for one that is not there: making it will tell the reason. */
static bool stands(void)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		const char *const argv[] = {"nft", "list", "table", families[i], "wiretoll_host", NULL};
		_cleanup_free_ char *listing = NULL;
		struct spawn spawn = {.argv = argv, .new_session = true};

		if (spawn_run(spawn, NULL, &listing, NULL) != 0)
			return false;
		n += count_rules(listing);
	}
	return n == count_rules(rules);
}

int guard_install(char *error, size_t error_size)
{
	return stands() ? 0 : run_nft(rules, error, error_size);
}

/* Of this worker or of another one. */
static bool has_links(void)
{
	static const char *const arguments[] = {"link", "show", "group", GROUP, NULL};
	_cleanup_json_ json_t *links = NULL;
	const json_t *link;
	size_t index;

	if (ip_query(NULL, arguments, &links) < 0)
		return true;
	/* Links that the filter leaves out are empty objects. */
	json_array_foreach (links, index, link)
		if (json_object_get(link, "ifname"))
			return true;
	return false;
}

int guard_keep(char *error, size_t error_size)
{
	int r;

	if (!has_links() || stands())
		return 0;
	r = run_nft(rules, error, error_size);
	return r == 0 ? 1 : r;
}

void guard_remove(void)
{
	char error[256];

	/* What stays harms nobody: the rules are about links that are not there. */
	if (has_links() || run_nft(removal, error, sizeof(error)) < 0)
		return;
	/* Another worker makes its link before it asks for the rules, so one of both sees the other's step.
	 */
	if (guard_keep(error, sizeof(error)) < 0)
		return;
}

int guard_listen(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1 << (NFNLGRP_NFTABLES - 1)};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}
