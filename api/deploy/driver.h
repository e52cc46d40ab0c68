/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every kind of host can do. Calls marked "in a child" run in a process of their own with a deadline,
 * may block, and can be killed and repeated at any point: each step finds out what is there already.
 */
#ifndef WIRETOLL_DEPLOY_DRIVER_H
#define WIRETOLL_DEPLOY_DRIVER_H

#include "base/base.h"
#include "deploy/spec.h"

#include <limits.h>

/* This host, as the command line names it. */
struct deploy_host {
	char state[PATH_MAX / 2]; /* STATE: gateways' folders are in gw/ */
	char run[PATH_MAX / 2];   /* RUNDIR */
	char ca_file[PATH_MAX];
	char agent[PATH_MAX];
	uint16_t api_port;
	bool kernel_wireguard; /* set by the driver's setup, as is the next */
	uid_t first_uid;       /* gateways have the uids from here on */
};

/* The processes of a gateway that this host has to keep running. */
enum deploy_program { DEPLOY_WIREGUARD, DEPLOY_AGENT, DEPLOY_PROGRAMS };

/* Where a driver call tells what it does, and in the end why it failed. */
struct deploy_progress {
	int fd; /* read by the worker; -1: nobody does */
	char step[64];
};

/* Begins a step. Written at once: a worker that is told to stop does so between two steps. */
void progress_step(struct deploy_progress *progress, const char *step);
/* Something is left out while the call goes on, `what` and why: for who owns the gateway to see. */
void progress_refused(const char *what, const char *reason, void *progress);
/* Says why the call fails, in words for the task's log. Returns `error` for the caller to return. */
int progress_fail(struct deploy_progress *progress, int error, const char *format, ...) WT_PRINTF(3, 4);

/* One deployment that has left traces on this host. */
typedef void (*deploy_found_fn)(const char *gateway, unsigned attempt, void *data);

struct deploy_driver {
	const char *name;

	/* Once, when the worker starts, and when it ends with no gateway left. */
	int (*setup)(struct deploy_host *host);
	void (*teardown)(const struct deploy_host *host);

	/* Whether the deployment still needs a one-time token, or has one that it can trade, or its own. */
	bool (*needs_token)(const struct deploy_host *host, const struct deploy_spec *spec);

	/* In a child. `token` may be NULL, see needs_token. -EAGAIN: a transient cause. */
	int (*deploy)(const struct deploy_host *host, const struct deploy_spec *spec, const char *token,
		      struct deploy_progress *progress);
	/* In a child. Takes everything down, whichever attempt it is; with `forget` also what a later
	 * deployment would begin with (keys, journal). */
	int (*destroy)(const struct deploy_host *host, const char *gateway, bool forget,
		       struct deploy_progress *progress);
	/* In a child. Makes the VPC's routes what the specification says (G9). */
	int (*routes)(const struct deploy_host *host, const struct deploy_spec *spec,
		      struct deploy_progress *progress);

	/* Starts a program of a deployed gateway as a child of the caller, without waiting for it; or finds
	 * the process of an earlier start, whoever made it: -ENOENT. `has` is false for what this deployment
	 * does not need. */
	bool (*has)(const struct deploy_host *host, const char *gateway, enum deploy_program program);
	int (*start)(const struct deploy_host *host, const char *gateway, enum deploy_program program,
		     pid_t *ret_pid);
	int (*find)(const struct deploy_host *host, const char *gateway, enum deploy_program program,
		    pid_t *ret_pid);

	/* Whether the logs of a gateway's programs have outgrown their bound; in a child: begins them anew.
	 */
	bool (*logs_full)(const struct deploy_host *host, const char *gateway);
	int (*rotate_logs)(const struct deploy_host *host, const char *gateway,
			   struct deploy_progress *progress);

	/* Whether something of deleted gateways is still to be removed; in a child: removes it, or a part. */
	bool (*has_trash)(const struct deploy_host *host);
	int (*empty_trash)(const struct deploy_host *host, struct deploy_progress *progress);

	/* What others may take away from under all gateways: a descriptor that becomes readable when that may
	 * have happened; in a child: puts it back. */
	int (*listen)(void);
	int (*restore)(const struct deploy_host *host, struct deploy_progress *progress);

	/* Names every deployment of which something exists here; attempt 0: only its folder. */
	int (*list)(const struct deploy_host *host, deploy_found_fn found, void *data);
};

extern const struct deploy_driver driver_netns;

#endif
