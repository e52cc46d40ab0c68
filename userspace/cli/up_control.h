/* SPDX-License-Identifier: BSD-2-Clause */
/* A whole control plane on this host: what the files of `wiretoll up` share. */
#ifndef WIRETOLL_CLI_UP_CONTROL_H
#define WIRETOLL_CLI_UP_CONTROL_H

#include "base/base.h"
#include "base/spawn.h"

#include <limits.h>

#define UP_MAX_LISTEN      16
#define UP_MAX_HYPERVISORS 16

/* Nobody logs in with these: the API's, and that of the one who changes the schema. */
#define UP_API_UID     999000001U
#define UP_MIGRATE_UID 999000002U

#define UP_PATH_SIZE (PATH_MAX / 4)

struct up {
	char state[UP_PATH_SIZE], run[UP_PATH_SIZE];
	char programs[UP_PATH_SIZE]; /* the folder of this program and its siblings */
	const char *listen[UP_MAX_LISTEN];
	size_t n_listen;
	const char *hypervisors[UP_MAX_HYPERVISORS];
	size_t n_hypervisors;
	bool sample;
	bool remove_state, remove_run; /* with the sample: the folder is this run's own */
};

/* A path below one of the folders above. */
typedef char up_path[PATH_MAX];
const char *up_join(const char *folder, const char *name, up_path path);

/* Says on standard error what went wrong, after "wiretoll up: ". Returns `error`. */
int up_fail(int error, const char *format, ...) WT_PRINTF(2, 3);

/* A line about what is being done for the sample. */
void sample_say(const char *format, ...) WT_PRINTF(1, 2);

/* Waits; -EINTR when a signal asks to stop. */
WT_MUST_CHECK int sample_wait(int milliseconds);

/* A folder with this owner and mode, whatever it was before. */
WT_MUST_CHECK int up_make_folder(const char *path, uid_t uid, mode_t mode);

/* Removes a folder with all in it; mounts in it stay. */
WT_MUST_CHECK int up_remove_folder(const char *path);

/*
 * Runs `wiretoll-api ARGUMENTS…` (a list ended by NULL) to its end. The caller frees the output, which may be
 * secret.
 */
WT_MUST_CHECK int up_run_api(const struct up *up, uid_t uid, const char *const *arguments, char **ret_output);

/* The URL to ask oneself at: for a wildcard address the loopback's. */
void up_own_url(const struct up *up, char url[static 128]);

#endif
