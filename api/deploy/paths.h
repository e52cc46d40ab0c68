/* SPDX-License-Identifier: BSD-2-Clause */
/* Where a gateway of the driver `netns` has its things; see docs/netns-driver.md. */
#ifndef WIRETOLL_DEPLOY_PATHS_H
#define WIRETOLL_DEPLOY_PATHS_H

#include "deploy/driver.h"

#define PATHS_NETNS_FOLDER "/run/netns"

struct gateway_paths {
	char base[PATH_MAX];  /* STATE/gw/UUID: keys and journal; the gateway's own */
	char logs[PATH_MAX];  /* STATE/log/UUID: what its programs say; root's, as all below but the last two
			       */
	char token[PATH_MAX]; /* STATE/token/UUID: how long its one-time token is good for */
	char run[PATH_MAX];   /* RUNDIR/gw/UUID */
	char bpf[PATH_MAX + 32];   /* mount point of its BPF file system */
	char mount[PATH_MAX + 32]; /* pinned mount namespace */
	char record[PATH_MAX + 32];
	char bootstrap[PATH_MAX + 32]; /* in BASE */
	char identity[PATH_MAX + 32];  /* agent.json, the agent's after enrolment */
};

void gateway_paths(const struct deploy_host *host, const char *gateway, struct gateway_paths *ret_paths);

/* "wt-GGGGGGGG-N" and its path under /run/netns. */
void netns_name(const struct deploy_spec *spec, char name[static 32]);
void netns_path(const char *name, char path[static PATH_MAX]);

/*
 * The host's end of a gateway's link: its id's first digits, the attempt's last two and 'p' for the public
 * link or the number of the VPC's. Two attempts never stand side by side for long, so two digits tell them
 * apart.
 */
void link_name(const struct deploy_spec *spec, int vpc_index, char name[static IFNAMSIZ]);

#endif
