// SPDX-License-Identifier: BSD-2-Clause
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "base/file.h"

#define FILE_MAX (16u << 20)

int epoch_file_read(const struct agent *agent, const char *name, json_t **ret_object)
{
	json_t *object _cleanup_json_ = NULL;
	char path[PATH_MAX], epoch[UUID_TEXT_SIZE], *text _cleanup_free_ = NULL;
	const char *of;
	size_t length;
	int r;

	snprintf(path, sizeof(path), "%s/%s", agent->base, name);
	r = file_read(path, FILE_MAX, &text, &length);
	if (r < 0)
		return r;
	object = json_loadb(text, length, 0, NULL);
	of = json_string_value(json_object_get(object, "epoch"));
	if (!of)
		return -EINVAL;
	if (strcmp(of, uuid_format(meter_identity(agent->meter)->map_uuid, epoch)) != 0)
		return -ENOENT;
	*ret_object = TAKE_PTR(object);
	return 0;
}
