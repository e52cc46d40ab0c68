// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/record.h"
#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RECORD_SIZE (1024 * 1024)

int record_read(const struct deploy_host *host, const char *gateway, struct deploy_record *ret_record)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_free_ char *spec_text = NULL;
	_cleanup_json_ json_t *json = NULL;
	struct json_problem problem;
	struct gateway_paths paths;
	struct deploy_spec *spec;
	int r;

	gateway_paths(host, gateway, &paths);
	r = file_read(paths.record, MAX_RECORD_SIZE, &text, NULL);
	if (r < 0)
		return r;
	json = json_loads(text, 0, NULL);
	spec_text = json_dumps(json_object_get(json, "spec"), JSON_COMPACT);
	if (!spec_text)
		return -EBADMSG;
	r = deploy_spec_parse(spec_text, &spec, &problem);
	if (r < 0)
		return r == -EINVAL ? -EBADMSG : r;
	ret_record->spec = spec;
	ret_record->kernel_wireguard = json_is_true(json_object_get(json, "kernel_wireguard"));
	ret_record->ready = json_is_true(json_object_get(json, "ready"));
	return 0;
}

int record_write(const struct deploy_host *host, const struct deploy_record *record)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *json = NULL;
	struct gateway_paths paths;

	json = json_pack("{s:O, s:b, s:b}", "spec", record->spec->json, "kernel_wireguard",
			 record->kernel_wireguard, "ready", record->ready);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	if (!text)
		return -ENOMEM;
	gateway_paths(host, record->spec->gateway, &paths);
	return file_replace(paths.record, text, strlen(text), 0600);
}

void record_clear(struct deploy_record *record)
{
	deploy_spec_free(TAKE_PTR(record->spec));
}
