// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll peer list, show, edit, enable, disable, delete, config; peer add is in peer_add.c */
#include "base/file.h"
#include "base/key.h"
#include "cli/commands.h"
#include "cli/peer.h"
#include "cli/resource.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEER_COLUMNS                                                                                         \
	"name,kind,tunnel_ip=TUNNEL "                                                                        \
	"IP,state,upload_bytes,download_bytes,last_handshake,current_endpoint=ENDPOINT"

int peer_argument(struct session *session, const struct arguments *arguments, struct peer_name *ret_name)
{
	if (peer_name_parse(arguments->positional[0], ret_name) < 0)
		return session_fail(session, WRONG_USAGE, "the peer is \"%.80s\"; accepted is GATEWAY/PEER",
				    arguments->positional[0]);
	return 0;
}

char *peer_path(const struct peer_name *name)
{
	return path_format("/v1/gateways/%s/peers/%s", name->gateway, name->peer);
}

void warn_of_readers(void)
{
	struct stat target;

	if (fstat(STDOUT_FILENO, &target) == 0 && S_ISREG(target.st_mode) && (target.st_mode & S_IRWXO))
		fputs("wiretoll: warning: the output holds a secret and goes to a file that everybody may "
		      "read; "
		      "consider `umask 077`\n",
		      stderr);
}

int peer_config(struct session *session, const struct peer_name *name, char **ret_text)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s/peers/%s/config", name->gateway, name->peer);

	if (!path)
		return session_no_memory(session);
	return session_text(session, path, ret_text);
}

static int load_preshared_key(struct session *session, const char *path, json_t *body)
{
	_cleanup_secret_ char *text = NULL;
	struct key WT_CLEANUP(key_wipe) key;
	size_t length;
	int r;

	r = file_read(path, 4096, &text, &length);
	if (r < 0)
		return session_fail(session, r, "could not read %s: %s", path, strerror(-r));
	while (length > 0 && strchr(" \t\r\n", text[length - 1]))
		text[--length] = '\0';
	if (key_parse(text, &key) < 0)
		return session_fail(
			session, -EINVAL,
			"%s holds no preshared key; accepted is what `wg genpsk` prints: 44 characters "
			"of base64",
			path);
	if (json_object_set_new(body, "preshared_key", json_string(text)) < 0)
		return session_no_memory(session);
	return 0;
}

int peer_preshared_key(struct session *session, const struct arguments *arguments, json_t *body)
{
	const char *path = argument_value(arguments, "preshared-key-file");

	if (argument_given(arguments, "no-preshared-key") &&
	    (path || argument_given(arguments, "generate-preshared-key")))
		return session_fail(session, WRONG_USAGE,
				    "--no-preshared-key goes with no other preshared key");
	if (!argument_given(arguments, "generate-preshared-key"))
		return path ? load_preshared_key(session, path, body) : 0;
	if (path)
		return session_fail(session, WRONG_USAGE,
				    "--preshared-key-file and --generate-preshared-key exclude each other");
	return json_object_set(body, "preshared_key", json_true()) < 0 ? session_no_memory(session) : 0;
}

int run_peer_config(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_secret_ char *text = NULL;
	struct peer_name name;
	int r;

	(void)command;
	r = peer_argument(session, arguments, &name);
	if (r != 0)
		return r;
	r = peer_config(session, &name, &text);
	if (r < 0)
		return r;
	if (strstr(text, "PresharedKey"))
		warn_of_readers();
	fputs(text, stdout);
	return 0;
}

int run_peer_list(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s/peers", arguments->positional[0]);

	(void)command;
	return list_path(session, arguments, path, PEER_COLUMNS);
}

/* One request about one peer; what it answers with is printed. */
static int peer_request(struct session *session, const struct arguments *arguments, const char *method,
			const json_t *body)
{
	_cleanup_free_ char *path = NULL;
	struct peer_name name;
	int r;

	r = peer_argument(session, arguments, &name);
	if (r != 0)
		return r;
	path = peer_path(&name);
	return send_and_show(session, arguments, method, path, body);
}

int run_peer_show(struct session *session, const struct command *command, const struct arguments *arguments)
{
	(void)command;
	return peer_request(session, arguments, "GET", NULL);
}

int run_peer_delete(struct session *session, const struct command *command, const struct arguments *arguments)
{
	(void)command;
	return peer_request(session, arguments, "DELETE", NULL);
}

static int set_enabled(struct session *session, const struct arguments *arguments, bool enabled)
{
	_cleanup_json_ json_t *body = json_pack("{s:b}", "enabled", enabled);

	return peer_request(session, arguments, "PATCH", body);
}

int run_peer_enable(struct session *session, const struct command *command, const struct arguments *arguments)
{
	(void)command;
	return set_enabled(session, arguments, true);
}

int run_peer_disable(struct session *session, const struct command *command,
		     const struct arguments *arguments)
{
	(void)command;
	return set_enabled(session, arguments, false);
}

int run_peer_edit(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	(void)command;
	r = request_body(session, arguments, &body);
	if (r == 0)
		r = peer_preshared_key(session, arguments, body);
	if (r != 0)
		return r;
	if (json_object_size(body) == 0)
		return session_fail(session, WRONG_USAGE, "nothing to change is given");
	return peer_request(session, arguments, "PATCH", body);
}
