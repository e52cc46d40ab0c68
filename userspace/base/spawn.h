/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting another program with exactly the rights, namespaces and descriptors that it is to have. */
#ifndef WIRETOLL_BASE_SPAWN_H
#define WIRETOLL_BASE_SPAWN_H

#include "base/base.h"

#include <sys/types.h>

/* Everything left out is inherited, except descriptors: only 0, 1 and 2 reach the program. */
struct spawn {
	const char *const *argv; /* argv[0] is a path, or a name looked up in PATH */
	uid_t uid;               /* 0: stay what we are. Supplementary groups are dropped. */
	gid_t gid;               /* 0: the number of the uid */
	uint64_t capabilities; /* bits 1 << CAP_…: all that a program with a uid has, ambient and bounding */
	int net_namespace;     /* descriptors to enter; 0: none */
	int mount_namespace;
	const char *output; /* standard output and error are appended to this file (0600, the uid's) */
	int input_fd, output_fd, error_fd; /* 0: standard input is /dev/null, the others as `output` says */
	bool new_session;                  /* out of our session and process group, working folder / */
	const char *pid_file;              /* written, before the program begins, for spawn_find() */
	int parent_death_signal;           /* 0: the program outlives us */
	unsigned max_processes;            /* of its uid, threads included; 0: as many as we may have */
	int (*confine)(void);              /* called last, with the program's rights; may be NULL */
};

/*
 * Starts the program and returns when it is executing, or with the -errno of what failed before. The child is
 * the caller's to wait for. It has no_new_privs unless it runs as root.
 */
WT_MUST_CHECK int spawn_start(const struct spawn *spawn, pid_t *ret_pid);

/*
 * Starts the program without waiting until it executes: a process of its uid may stop it before that, and the
 * caller is not to stand still for it. What fails is said on its standard error, and it ends with 127. Its
 * pid file is there when this returns.
 */
WT_MUST_CHECK int spawn_launch(const struct spawn *spawn, pid_t *ret_pid);

/*
 * The process of this pid file, if it still runs: the file holds pid and start time, so that a reused
 * pid is not mistaken for it. -ENOENT otherwise.
 */
WT_MUST_CHECK int spawn_find(const char *pid_file, pid_t *ret_pid);

/*
 * Runs a program to its end with `input` (may be NULL) on its standard input. What it writes to standard
 * output and error goes to new strings of at most 8 MiB (ret_… may be NULL: discarded). Returns the exit
 * status (0 … 255), -EINTR when a signal ended it, or -errno when it could not be started.
 */
WT_MUST_CHECK int spawn_run(struct spawn spawn, const char *input, char **ret_output, char **ret_error);

#endif
