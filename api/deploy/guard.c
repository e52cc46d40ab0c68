// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/guard.h"
#include "base/ip.h"
#include "base/json.h"
#include "base/spawn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STRINGIFY(x) #x
#define TEXT_OF(x)   STRINGIFY(x)

/* A packet carries it from the bridge to the routing decision of the same host, where it is taken off again.
 */
#define MARK       "0x20000000"
#define OTHER_BITS "0xdfffffff"

/*
 * Where a packet comes in, a bridge knows the port, and only IP knows what is the host's own address: so the
 * one marks and the other judges. Neighbour discovery stays, as the host may be the VPC's router.
 */
static const char rules[] =
	"table bridge wiretoll_host {\n"
	"\tchain prerouting { type filter hook prerouting priority filter; policy accept; }\n"
	"}\n"
	"table inet wiretoll_host {\n"
	"\tcounter refused { }\n"
	"\tchain prerouting { type filter hook prerouting priority mangle; policy accept; }\n"
	"}\n"
	"flush table bridge wiretoll_host\n"
	"flush table inet wiretoll_host\n"
	"table bridge wiretoll_host {\n"
	"\tchain prerouting { iifgroup " TEXT_OF(
		GUARD_LINK_GROUP) " meta mark set meta mark or " MARK "; }\n"
				  "}\n"
				  "table inet wiretoll_host {\n"
				  "\tchain prerouting {\n"
				  "\t\tmeta mark and " MARK " == 0 accept\n"
				  "\t\tmeta mark set meta mark and " OTHER_BITS "\n"
				  "\t\tct state established,related accept\n"
				  "\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit "
				  "255 accept\n"
				  "\t\tfib daddr type { local, broadcast, multicast, anycast } counter name "
				  "refused drop\n"
				  "\t\tfib daddr . iif type { local, anycast } counter name refused drop\n"
				  "\t}\n"
				  "}\n";

static const char removal[] = "table bridge wiretoll_host { }\ndelete table bridge wiretoll_host\n"
			      "table inet wiretoll_host { }\ndelete table inet wiretoll_host\n";

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

int guard_install(char *error, size_t error_size)
{
	return run_nft(rules, error, error_size);
}

void guard_remove(void)
{
	static const char *const arguments[] = {"link", "show", "group", TEXT_OF(GUARD_LINK_GROUP), NULL};
	_cleanup_json_ json_t *links = NULL;
	const json_t *link;
	char error[256];
	size_t index;

	if (ip_query(NULL, arguments, &links) < 0)
		return;
	/* Links that the filter leaves out are empty objects. */
	json_array_foreach (links, index, link)
		if (json_object_get(link, "ifname"))
			return;
	/* What stays harms nobody: the rules are about links that are not there. */
	if (run_nft(removal, error, sizeof(error)) < 0)
		return;
}
