// SPDX-License-Identifier: BSD-2-Clause
#include "base/ip.h"
#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGUMENTS 16

void ip_batch_add(struct ip_batch *batch, const char *format, ...)
{
	char line[512], *grown;
	va_list args;
	size_t length;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	length = strlen(line);
	grown = realloc(batch->text, batch->length + length + 2);
	if (!grown) {
		batch->failed = true;
		return;
	}
	batch->text = grown;
	memcpy(grown + batch->length, line, length);
	memcpy(grown + batch->length + length, "\n", 2);
	batch->length += length + 1;
}

void ip_batch_clear(struct ip_batch *batch)
{
	free(batch->text);
	*batch = (struct ip_batch){0};
}

static int open_netns(const char *netns, int *ret_fd)
{
	int fd = netns ? open(netns, O_RDONLY | O_CLOEXEC) : 0;

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int ip_batch_run(const struct ip_batch *batch, const char *netns, char *error, size_t error_size)
{
	static const char *const argv[] = {"ip", "-batch", "-", NULL};
	_cleanup_free_ char *words = NULL;
	/* A terminal's Ctrl-C must not leave half of it. */
	struct spawn spawn = {.argv = argv, .new_session = true};
	int fd = 0, r;

	if (batch->failed)
		return -ENOMEM;
	if (batch->length == 0)
		return 0;
	r = open_netns(netns, &fd);
	if (r < 0) {
		snprintf(error, error_size, "network namespace %s: %s", netns, strerror(-r));
		return r;
	}
	spawn.net_namespace = fd;
	r = spawn_run(spawn, batch->text, NULL, &words);
	if (fd > 0)
		close(fd);
	if (r == 0)
		return 0;
	snprintf(error, error_size, "ip: %s", r < 0 ? strerror(-r) : words);
	return r < 0 ? r : -EIO;
}

int ip_query(const char *netns, const char *const *arguments, json_t **ret_json)
{
	const char *argv[MAX_ARGUMENTS + 3] = {"ip", "-json"};
	_cleanup_free_ char *output = NULL;
	struct spawn spawn = {.argv = argv, .new_session = true};
	size_t n = 2;
	json_t *json;
	int fd = 0, r;

	while (*arguments && n < MAX_ARGUMENTS + 2)
		argv[n++] = *arguments++;
	r = open_netns(netns, &fd);
	if (r < 0)
		return r;
	spawn.net_namespace = fd;
	r = spawn_run(spawn, NULL, &output, NULL);
	if (fd > 0)
		close(fd);
	if (r != 0)
		return r < 0 ? r : -EIO;
	json = output[0] ? json_loads(output, 0, NULL) : json_array();
	if (!json)
		return -EPROTO;
	*ret_json = json;
	return 0;
}
