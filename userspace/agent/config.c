// SPDX-License-Identifier: BSD-2-Clause
#include "agent/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

#define FILE_MAX             (1u << 20)
#define REPORT_EVERY_DEFAULT 10
#define REPORT_EVERY_MAX     3600

static int path_of(const char *base, const char *name, char path[static PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void wipe_text(char **text)
{
	if (*text)
		sodium_memzero(*text, strlen(*text));
	free(*text);
	*text = NULL;
}

void config_free(struct config *config)
{
	wipe_text(&config->one_time_token);
	wipe_text(&config->token);
	free(config->ca_pem);
	*config = (struct config){0};
}

static int read_text(const json_t *object, const char *field, bool required, char **ret_text,
		     struct json_problem *problem)
{
	const char *text = NULL;
	int r = json_read_string(object, field, &text, problem);

	if (r == -ENOENT && !required)
		return 0;
	r = json_require(r, field, problem);
	if (r < 0)
		return r;
	*ret_text = strdup(text);
	return *ret_text ? 0 : -ENOMEM;
}

static int read_api(const json_t *object, struct config_api *api, struct json_problem *problem)
{
	const char *address = NULL;
	uint8_t bytes[16];
	int64_t port = 0;
	int r = json_require(json_read_string(object, "address", &address, problem), "api.address", problem);

	if (r < 0)
		return r;
	if (inet_pton(AF_INET, address, bytes) != 1 && inet_pton(AF_INET6, address, bytes) != 1) {
		json_problem_set(problem, "api.address",
				 "api.address is \"%.50s\"; accepted is an IP address", address);
		return -EINVAL;
	}
	snprintf(api->address, sizeof(api->address), "%s", address);
	r = json_require(json_read_int(object, "port", 1, UINT16_MAX, &port, problem), "api.port", problem);
	api->port = (uint16_t)port;
	return r;
}

static int read_apis(const json_t *object, struct config *config, struct json_problem *problem)
{
	const json_t *array = NULL;
	int r = json_require(json_read_array(object, "api", &array, problem), "api", problem);

	if (r < 0)
		return r;
	if (json_array_size(array) < 1 || json_array_size(array) > CONFIG_APIS_MAX) {
		json_problem_set(problem, "api", "api has %zu entries; accepted is 1 to %d",
				 json_array_size(array), CONFIG_APIS_MAX);
		return -EINVAL;
	}
	while (r == 0 && config->n_apis < json_array_size(array)) {
		r = read_api(json_array_get(array, config->n_apis), &config->apis[config->n_apis], problem);
		config->n_apis++;
	}
	return r;
}

static int read_identity(const json_t *object, struct config *config, struct json_problem *problem)
{
	const char *text = NULL;
	int r = json_require(json_read_string(object, "gateway", &text, problem), "gateway", problem);

	if (r == 0 && uuid_parse(text, config->gateway) < 0) {
		json_problem_set(problem, "gateway", "gateway is \"%.40s\"; accepted is a UUID", text);
		return -EINVAL;
	}
	if (r == 0)
		r = json_require(json_read_int(object, "attempt", 1, INT64_MAX, &config->attempt, problem),
				 "attempt", problem);
	if (r == 0)
		r = json_require(json_read_string(object, "interface", &text, problem), "interface", problem);
	if (r == 0 && (strlen(text) == 0 || strlen(text) >= sizeof(config->interface) || strchr(text, '/'))) {
		json_problem_set(problem, "interface",
				 "interface is \"%.40s\"; accepted is a name of 1 to %d bytes", text,
				 IF_NAMESIZE - 1);
		return -EINVAL;
	}
	if (r == 0)
		snprintf(config->interface, sizeof(config->interface), "%s", text);
	return r;
}

static int read_outgoing(const json_t *object, struct config *config, struct json_problem *problem)
{
	const char *meter = NULL;
	int r = json_read_string(object, "outgoing_meter", &meter, problem);

	if (r == 0 && uuid_parse(meter, config->outgoing) < 0) {
		json_problem_set(problem, "outgoing_meter", "outgoing_meter is \"%.40s\"; accepted is a UUID",
				 meter);
		return -EINVAL;
	}
	if (r == 0)
		r = json_read_bool(object, "outgoing_is_full", &config->outgoing_is_full, problem);
	return r == -ENOENT ? 0 : r;
}

static int read_enrolled(const json_t *object, struct config *config, struct json_problem *problem)
{
	const char *since = NULL;
	int r = json_read_string(object, "active_since", &since, problem);

	if (r == 0 && clock_parse(since, &config->active_since_ns) < 0) {
		json_problem_set(problem, "active_since",
				 "active_since is \"%.40s\"; accepted is an RFC 3339 instant", since);
		return -EINVAL;
	}
	if (r == 0 || r == -ENOENT)
		r = read_outgoing(object, config, problem);
	return r < 0 ? r : config_take_token(config, object, problem);
}

static int parse_file(const json_t *object, bool enrolled, struct config *config,
		      struct json_problem *problem)
{
	int r = read_identity(object, config, problem);

	if (r == 0)
		r = read_apis(object, config, problem);
	if (r == 0)
		r = read_text(object, "ca_pem", true, &config->ca_pem, problem);
	if (r == 0 && enrolled)
		r = read_enrolled(object, config, problem);
	else if (r == 0)
		r = read_text(object, "one_time_token", true, &config->one_time_token, problem);
	return r;
}

static int load_file(const char *base, const char *name, bool enrolled, struct config *ret_config,
		     struct json_problem *problem)
{
	json_t *object _cleanup_json_ = NULL;
	struct config config = {0};
	char path[PATH_MAX], *text = NULL;
	size_t length = 0;
	int r = path_of(base, name, path);

	if (r == 0)
		r = file_read(path, FILE_MAX, &text, &length);
	if (r < 0)
		return r;
	object = json_loadb(text, length, 0, NULL);
	sodium_memzero(text, length);
	free(text);
	if (!json_is_object(object)) {
		json_problem_set(problem, name, "%s is not a JSON object", name);
		return -EINVAL;
	}
	r = parse_file(object, enrolled, &config, problem);
	if (r < 0) {
		config_free(&config);
		return r;
	}
	*ret_config = config;
	return 0;
}

int config_load(const char *base, struct config *ret_config, struct json_problem *problem)
{
	struct config enrolled = {0}, bootstrap = {0};
	int kept = load_file(base, "agent.json", true, &enrolled, problem);
	int fresh;

	if (kept < 0 && kept != -ENOENT)
		return kept;
	fresh = load_file(base, "bootstrap.json", false, &bootstrap, problem);
	if (fresh < 0 && (fresh != -ENOENT || kept < 0)) {
		config_free(&enrolled);
		return fresh;
	}
	if (fresh == 0 && (kept < 0 || bootstrap.attempt > enrolled.attempt)) {
		config_free(&enrolled);
		*ret_config = bootstrap;
		return 0;
	}
	config_free(&bootstrap);
	*ret_config = enrolled;
	return 0;
}

int config_take_token(struct config *config, const json_t *answer, struct json_problem *problem)
{
	int64_t report_every = REPORT_EVERY_DEFAULT;
	int r = read_text(answer, "token", true, &config->token, problem);

	if (r == 0)
		r = json_require(
			json_read_int(answer, "generation", 0, INT64_MAX, &config->generation, problem),
			"generation", problem);
	if (r == 0)
		r = json_read_int(answer, "report_every", 1, REPORT_EVERY_MAX, &report_every, problem);
	if (r < 0 && r != -ENOENT)
		return r;
	/* The value goes into a header line. */
	if (strpbrk(config->token, "\r\n")) {
		json_problem_set(problem, "token", "token holds a line break, which is not accepted");
		return -EINVAL;
	}
	config->report_every = report_every;
	/* It is traded. */
	wipe_text(&config->one_time_token);
	return 0;
}

static json_t *apis_json(const struct config *config)
{
	json_t *apis = json_array();

	for (size_t i = 0; apis && i < config->n_apis; i++)
		if (json_array_append_new(apis, json_pack("{s:s, s:i}", "address", config->apis[i].address,
							  "port", (int)config->apis[i].port)) < 0) {
			json_decref(apis);
			return NULL;
		}
	return apis;
}

int config_save(const char *base, const struct config *config)
{
	json_t *object _cleanup_json_ = NULL;
	char gateway[UUID_TEXT_SIZE], outgoing[UUID_TEXT_SIZE], since[CLOCK_TEXT_SIZE], path[PATH_MAX], *text;
	int r;

	object = json_pack("{s:s, s:I, s:s, s:o, s:s, s:s, s:I, s:I, s:s?, s:s, s:b}", "gateway",
			   uuid_format(config->gateway, gateway), "attempt", (json_int_t)config->attempt,
			   "interface", config->interface, "api", apis_json(config), "ca_pem", config->ca_pem,
			   "token", config->token, "generation", (json_int_t)config->generation,
			   "report_every", (json_int_t)config->report_every, "active_since",
			   config->active_since_ns ? clock_format(config->active_since_ns, since) : NULL,
			   "outgoing_meter", uuid_format(config->outgoing, outgoing), "outgoing_is_full",
			   config->outgoing_is_full);
	text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
	if (!text)
		return -ENOMEM;
	r = path_of(base, "agent.json", path);
	if (r == 0)
		r = file_replace(path, text, strlen(text), 0600);
	wipe_text(&text);
	if (r == 0)
		r = path_of(base, "bootstrap.json", path);
	if (r == 0 && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

static int make_private_key(const char *path, struct key *ret_key)
{
	char text[KEY_TEXT_SIZE + 1];
	int r;

	key_generate_private(ret_key);
	key_format(ret_key, text);
	text[KEY_TEXT_SIZE - 1] = '\n';
	r = file_replace(path, text, KEY_TEXT_SIZE, 0600);
	sodium_memzero(text, sizeof(text));
	return r;
}

int config_private_key(const char *base, struct key *ret_key)
{
	char path[PATH_MAX], *text = NULL;
	size_t length = 0;
	int r = path_of(base, "private.key", path);

	if (r < 0)
		return r;
	r = file_read(path, KEY_TEXT_SIZE, &text, &length);
	if (r == -ENOENT)
		return make_private_key(path, ret_key);
	if (r < 0)
		return r;
	if (length > 0 && text[length - 1] == '\n')
		text[length - 1] = '\0';
	r = key_parse(text, ret_key);
	sodium_memzero(text, length);
	free(text);
	return r;
}
