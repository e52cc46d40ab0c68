// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll peer add: with --keygen the private key is made here and stays here. */
#include "base/file.h"
#include "base/key.h"
#include "cli/commands.h"
#include "cli/peer.h"
#include "cli/resource.h"

#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACEHOLDER "[YOUR_PRIVATE_KEY]"

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

	if (!argument_given(arguments, "generate-preshared-key"))
		return path ? load_preshared_key(session, path, body) : 0;
	if (path)
		return session_fail(session, WRONG_USAGE,
				    "--preshared-key-file and --generate-preshared-key exclude each other");
	return json_object_set(body, "preshared_key", json_true()) < 0 ? session_no_memory(session) : 0;
}

static int make_body(struct session *session, const struct arguments *arguments, const struct peer_name *name,
		     json_t **ret_body)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = request_body(session, arguments, &body);
	if (r < 0)
		return r;
	if (json_object_set_new(body, "name", json_string(name->peer)) < 0)
		return session_fail(session, WRONG_USAGE, "the peer's name is not UTF-8 text");
	if (!json_object_get(body, "kind") &&
	    json_object_set_new(body, "kind", json_string("road_warrior")) < 0)
		return session_no_memory(session);
	r = peer_preshared_key(session, arguments, body);
	if (r != 0)
		return r;
	if (argument_given(arguments, "keygen") == (json_object_get(body, "public_key") != NULL))
		return session_fail(session, WRONG_USAGE, "either --public-key or --keygen is needed");
	*ret_body = TAKE_PTR(body);
	return 0;
}

static int add_peer(struct session *session, const struct peer_name *name, const json_t *body,
		    json_t **ret_peer)
{
	_cleanup_free_ char *path = path_format("/v1/gateways/%s/peers", name->gateway);

	if (!path)
		return session_no_memory(session);
	return session_call(session, "POST", path, body, ret_peer);
}

/* Writes the configuration with the private key in the placeholder's stead. */
static int write_config(struct session *session, const char *config, const struct key *private_key)
{
	const char *placeholder = strstr(config, PLACEHOLDER);
	char text[KEY_TEXT_SIZE];
	bool written;

	if (!placeholder)
		return session_fail(session, -EBADMSG, "the downloaded configuration has no " PLACEHOLDER);
	warn_of_readers();
	/* A reader that is gone is an error to act on, not the end of the program. */
	(void)signal(SIGPIPE, SIG_IGN);
	key_format(private_key, text);
	written =
		fwrite(config, 1, (size_t)(placeholder - config), stdout) == (size_t)(placeholder - config) &&
		fputs(text, stdout) >= 0 && fputs(placeholder + strlen(PLACEHOLDER), stdout) >= 0 &&
		fflush(stdout) == 0;
	sodium_memzero(text, sizeof(text));
	return written ? 0
		       : session_fail(session, -EIO, "could not write the configuration: %s",
				      strerror(errno));
}

/* A peer whose private key nobody has would only be in the way: it is removed, and the first problem told. */
static void take_back(struct session *session, const struct peer_name *name)
{
	_cleanup_free_ char *path = peer_path(name);
	char problem[HTTP_PROBLEM_SIZE];

	memcpy(problem, session->problem, sizeof(problem));
	if (path && session_call(session, "DELETE", path, NULL, NULL) == 0)
		session_fail(session, 0, "%.400s; the peer was removed again", problem);
	else
		session_fail(session, 0, "%.350s; the peer without a private key is left: delete it",
			     problem);
}

static int add_with_new_key(struct session *session, const struct peer_name *name, json_t *body)
{
	struct key WT_CLEANUP(key_wipe) private_key;
	_cleanup_secret_ char *config = NULL;
	char public_text[KEY_TEXT_SIZE];
	struct key public_key;
	int r;

	key_generate_private(&private_key);
	r = key_public(&private_key, &public_key);
	if (r < 0)
		return session_fail(session, r, "could not make a key pair");
	if (json_object_set_new(body, "public_key", json_string(key_format(&public_key, public_text))) < 0)
		return session_no_memory(session);
	r = add_peer(session, name, body, NULL);
	if (r < 0)
		return r;
	r = peer_config(session, name, &config);
	if (r == 0)
		r = write_config(session, config, &private_key);
	if (r < 0)
		take_back(session, name);
	return r;
}

int run_peer_add(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_json_ json_t *body = NULL, *peer = NULL;
	struct peer_name name;
	int r;

	(void)command;
	r = peer_argument(session, arguments, &name);
	if (r == 0)
		r = make_body(session, arguments, &name, &body);
	if (r != 0)
		return r;
	if (argument_given(arguments, "keygen"))
		return add_with_new_key(session, &name, body);
	r = add_peer(session, &name, body, &peer);
	return r < 0 ? r : print_object(session, arguments, peer);
}
