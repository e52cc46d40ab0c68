// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

void cannot_clear(struct agent *agent)
{
	json_decref(agent->cannot_apply);
	agent->cannot_apply = NULL;
}

void cannot_add(struct agent *agent, const char *what, const char *format, ...)
{
	char reason[400];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	log_error("could not apply %s: %s", what, reason);
	if (!agent->cannot_apply)
		agent->cannot_apply = json_array();
	/* Without memory the log has it. */
	if (json_array_append_new(agent->cannot_apply,
				  json_pack("{s:s, s:s}", "what", what, "reason", reason)) < 0)
		log_error("could not put this into the report: out of memory");
}

bool cannot_has(const struct agent *agent, const char *what)
{
	const json_t *item;
	size_t i;

	json_array_foreach (agent->cannot_apply, i, item)
		if (strcmp(json_string_value(json_object_get(item, "what")), what) == 0)
			return true;
	return false;
}

void cannot_remove(struct agent *agent, const char *what)
{
	json_t *item;
	size_t i = 0;

	if (!cannot_has(agent, what))
		return;

	while ((item = json_array_get(agent->cannot_apply, i))) {
		if (strcmp(json_string_value(json_object_get(item, "what")), what) == 0)
			json_array_remove(agent->cannot_apply, i);
		else
			i++;
	}
	log_info("no longer in the way: %s", what);
}
