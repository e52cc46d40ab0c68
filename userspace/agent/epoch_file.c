// SPDX-License-Identifier: BSD-2-Clause
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/file.h"

#define FILE_MAX (16u << 20)

static void path_of(const struct agent *agent, const char *name, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s", agent->base, name);
}

int epoch_file_read(const struct agent *agent, const struct epoch *epoch, const char *name,
		    json_t **ret_object)
{
	json_t *object _cleanup_json_ = NULL;
	char path[PATH_MAX], id[UUID_TEXT_SIZE], *text _cleanup_free_ = NULL;
	const char *of;
	size_t length;
	int r;

	path_of(agent, name, path);
	r = file_read(path, FILE_MAX, &text, &length);
	if (r < 0)
		return r;
	object = json_loadb(text, length, 0, NULL);
	of = json_string_value(json_object_get(object, "epoch"));
	if (!of)
		return -EINVAL;
	if (strcmp(of, uuid_format(meter_identity(epoch->meter)->map_uuid, id)) != 0)
		return -ENOENT;
	*ret_object = TAKE_PTR(object);
	return 0;
}

int epoch_file_write(const struct agent *agent, const struct epoch *epoch, const char *name, json_t *content)
{
	json_t *rest _cleanup_json_ = content;
	char id[UUID_TEXT_SIZE], path[PATH_MAX], *text _cleanup_free_ = NULL;
	json_t *object _cleanup_json_ =
		json_pack("{s:s}", "epoch", uuid_format(meter_identity(epoch->meter)->map_uuid, id));

	if (json_object_update(object, rest) < 0)
		return -ENOMEM;
	text = json_dumps(object, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	path_of(agent, name, path);
	return file_replace(path, text, strlen(text), 0600);
}

int epoch_file_remove(const struct agent *agent, const char *name)
{
	char path[PATH_MAX];

	path_of(agent, name, path);
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}
