// SPDX-License-Identifier: BSD-2-Clause
#include "cli/config.h"

#include "base/file.h"
#include "base/json.h"

#include <errno.h>
#include <libgen.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CONFIG (256 * 1024)

void secret_free(char *text)
{
	if (text)
		sodium_memzero(text, strlen(text));
	free(text);
}

void cleanup_secret(char **text)
{
	secret_free(*text);
}

void cleanup_config(struct config *config)
{
	free(config->url);
	free(config->ca_pem);
	secret_free(config->token);
	*config = (struct config){0};
}

int config_path(char **ret_path)
{
	const char *named = getenv("WIRETOLL_CONFIG"), *home = getenv("HOME");
	const struct passwd *user;
	char *path = NULL;

	if (named && *named) {
		path = strdup(named);
	} else {
		user = home && *home ? NULL : getpwuid(getuid());
		home = user ? user->pw_dir : home;
		if (!home || !*home)
			return -ENOENT;
		if (asprintf(&path, "%s/.config/wiretoll/config.json", home) < 0)
			path = NULL;
	}
	if (!path)
		return -ENOMEM;
	*ret_path = path;
	return 0;
}

static int config_read(const json_t *root, struct config *ret_config)
{
	_cleanup_config_ struct config config = {0};
	const char *url, *ca_pem, *token;

	if (json_unpack((json_t *)root, "{s:s, s:s, s:s}", "url", &url, "ca_pem", &ca_pem, "token", &token) <
	    0)
		return -EBADMSG;
	config.url = strdup(url);
	config.ca_pem = strdup(ca_pem);
	config.token = strdup(token);
	if (!config.url || !config.ca_pem || !config.token)
		return -ENOMEM;
	*ret_config = config;
	config = (struct config){0};
	return 0;
}

int config_load(struct config *ret_config)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_secret_ char *text = NULL;
	_cleanup_json_ json_t *root = NULL;
	int r;

	r = config_path(&path);
	if (r < 0)
		return r;
	r = file_read(path, MAX_CONFIG, &text, NULL);
	if (r < 0)
		return r;
	root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!root)
		return -EBADMSG;
	return config_read(root, ret_config);
}

int config_save(const struct config *config)
{
	_cleanup_free_ char *path = NULL, *copy = NULL;
	_cleanup_secret_ char *text = NULL;
	_cleanup_json_ json_t *root = json_pack("{s:s, s:s, s:s}", "url", config->url, "ca_pem",
						config->ca_pem, "token", config->token);
	int r;

	r = config_path(&path);
	if (r < 0)
		return r;
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	copy = strdup(path);
	if (!text || !copy)
		return -ENOMEM;
	r = file_make_folder(dirname(copy), 0700);
	if (r < 0)
		return r;
	return file_replace(path, text, strlen(text), 0600);
}
