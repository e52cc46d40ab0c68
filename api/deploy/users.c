// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/users.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "deploy/spec.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_UID     1000000000U
#define RANGES        256
#define DEFAULT_STATE "/var/lib/wiretoll"

/* A state of before there were ranges has gateways, whose files belong to the first one's uids. */
static bool has_gateways(const char *state)
{
	char path[PATH_MAX];
	const struct dirent *entry;
	bool found = false;
	DIR *gateways;

	snprintf(path, sizeof(path), "%s/gw", state);
	gateways = opendir(path);
	while (gateways && !found && (entry = readdir(gateways)))
		found = deploy_gateway_id_valid(entry->d_name);
	if (gateways)
		closedir(gateways);
	return found;
}

/* By the path: the same again when the state is made anew. */
static uid_t choose(const char *state)
{
	char resolved[PATH_MAX];
	uint32_t range = 0;

	if (strcmp(state, DEFAULT_STATE) != 0 && !has_gateways(state) && realpath(state, resolved))
		range = 1 + crc32c(0, resolved, strlen(resolved)) % (RANGES - 1);
	return FIRST_UID + range * UID_NUMBERS;
}

int users_first(const char *state, uid_t *ret_first)
{
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX], line[16];
	unsigned long first;
	int r;

	snprintf(path, sizeof(path), "%s/first_uid", state);
	r = file_read(path, 64, &text, NULL);
	if (r == -ENOENT) {
		*ret_first = choose(state);
		snprintf(line, sizeof(line), "%u\n", *ret_first);
		return file_replace(path, line, strlen(line), 0644);
	}
	if (r < 0)
		return r;
	first = strtoul(text, NULL, 10);
	if (first < FIRST_UID || first > FIRST_UID + (unsigned long)(RANGES - 1) * UID_NUMBERS)
		return -EBADMSG;
	*ret_first = (uid_t)first;
	return 0;
}
