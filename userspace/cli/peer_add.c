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

/* The configuration with the private key in the placeholder's stead. The caller wipes and frees it. */
static int fill_in_key(struct session *session, const char *config, const struct key *private_key,
		       char **ret_text)
{
	const char *placeholder = strstr(config, PLACEHOLDER);
	char key[KEY_TEXT_SIZE], *text = NULL;
	int length;

	if (!placeholder)
		return session_fail(session, -EBADMSG, "the downloaded configuration has no " PLACEHOLDER);
	key_format(private_key, key);
	length = asprintf(&text, "%.*s%s%s", (int)(placeholder - config), config, key,
			  placeholder + strlen(PLACEHOLDER));
	sodium_memzero(key, sizeof(key));
	if (length < 0)
		return session_no_memory(session);
	*ret_text = text;
	return 0;
}

/* With --json the peer's object, with the configuration as its member `config`; else that alone. */
static int write_config(struct session *session, const struct arguments *arguments, json_t *peer,
			const char *config)
{
	bool written;

	warn_of_readers();
	/* A reader that is gone is an error to act on, not the end of the program. */
	(void)signal(SIGPIPE, SIG_IGN);
	if (argument_given(arguments, "json")) {
		if (json_object_set_new(peer, "config", json_string(config)) < 0)
			return session_no_memory(session);
		written = json_dumpf(peer, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF;
	} else {
		written = fputs(config, stdout) >= 0;
	}
	return written && fflush(stdout) == 0
		       ? 0
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

static int show_config(struct session *session, const struct arguments *arguments,
		       const struct peer_name *name, json_t *peer, const struct key *private_key)
{
	_cleanup_secret_ char *config = NULL, *text = NULL;
	int r;

	r = peer_config(session, name, &config);
	if (r == 0)
		r = fill_in_key(session, config, private_key, &text);
	return r < 0 ? r : write_config(session, arguments, peer, text);
}

static int add_with_new_key(struct session *session, const struct arguments *arguments,
			    const struct peer_name *name, json_t *body)
{
	struct key WT_CLEANUP(key_wipe) private_key;
	_cleanup_json_ json_t *peer = NULL;
	char public_text[KEY_TEXT_SIZE];
	struct key public_key;
	int r;

	key_generate_private(&private_key);
	r = key_public(&private_key, &public_key);
	if (r < 0)
		return session_fail(session, r, "could not make a key pair");
	if (json_object_set_new(body, "public_key", json_string(key_format(&public_key, public_text))) < 0)
		return session_no_memory(session);
	r = add_peer(session, name, body, &peer);
	if (r < 0)
		return r;
	r = show_config(session, arguments, name, peer, &private_key);
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
		return add_with_new_key(session, arguments, &name, body);
	r = add_peer(session, &name, body, &peer);
	return r < 0 ? r : print_object(session, arguments, peer);
}
