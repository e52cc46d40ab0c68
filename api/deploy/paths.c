// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/paths.h"

#include <stdio.h>

void gateway_paths(const struct deploy_host *host, const char *gateway, struct gateway_paths *ret_paths)
{
	struct gateway_paths *p = ret_paths;

	snprintf(p->base, sizeof(p->base), "%s/gw/%s", host->state, gateway);
	snprintf(p->logs, sizeof(p->logs), "%s/log/%s", host->state, gateway);
	snprintf(p->token, sizeof(p->token), "%s/token/%s", host->state, gateway);
	snprintf(p->run, sizeof(p->run), "%s/gw/%s", host->run, gateway);
	snprintf(p->bpf, sizeof(p->bpf), "%s/bpf", p->run);
	snprintf(p->mount, sizeof(p->mount), "%s/mnt", p->run);
	snprintf(p->record, sizeof(p->record), "%s/record.json", p->run);
	snprintf(p->bootstrap, sizeof(p->bootstrap), "%s/bootstrap.json", p->base);
	snprintf(p->identity, sizeof(p->identity), "%s/agent.json", p->base);
}

void netns_name(const struct deploy_spec *spec, char name[static 32])
{
	snprintf(name, 32, "wt-%.8s-%u", spec->gateway, spec->attempt);
}

void netns_path(const char *name, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s", PATHS_NETNS_FOLDER, name);
}

void link_name(const struct deploy_spec *spec, int vpc_index, char name[static IFNAMSIZ])
{
	static const char numbers[] = "0123456789abcdefghijklmnoqrstuvw"; /* no 'p' */
	char which = vpc_index < 0 ? 'p' : numbers[vpc_index];

	snprintf(name, IFNAMSIZ, "wt%.8s-%02u%c", spec->gateway, spec->attempt % 100, which);
}
