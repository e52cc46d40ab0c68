// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll login, logout, whoami */
#include "base/file.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/resource.h"
#include "cli/values.h"

#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define MAX_TOKEN 512

/* Reads up to the end of a line, byte by byte: what follows belongs to the next question. */
static int read_line(char *line, size_t size)
{
	size_t used = 0;

	for (;;) {
		ssize_t got = read(STDIN_FILENO, line + used, 1);

		if (got < 0)
			return -errno;
		if (got == 0 || line[used] == '\n')
			break;
		if (++used == size)
			return -EFBIG;
	}
	line[used] = '\0';
	return 0;
}

static void interrupt_read(int signal)
{
	(void)signal;
}

/* Ctrl-C ends the question, not the program: the terminal must show again what is typed. */
static int ask_hidden(const char *question, char *line, size_t size)
{
	struct sigaction interrupt = {.sa_handler = interrupt_read}, before;
	struct termios shown, hidden;
	int r;

	if (tcgetattr(STDIN_FILENO, &shown) < 0)
		return -errno;
	hidden = shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	if (sigaction(SIGINT, &interrupt, &before) < 0)
		return -errno;
	/* Hidden before it is asked for: an answer pasted at once would else be shown, and lost. */
	r = tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) < 0 ? -errno : 0;
	if (r == 0) {
		fputs(question, stderr);
		r = read_line(line, size);
	}
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
	(void)sigaction(SIGINT, &before, NULL);
	fputc('\n', stderr);
	return r;
}

static void trim(char *text)
{
	size_t length = strlen(text);

	while (length > 0 && strchr(" \t\r\n", text[length - 1]))
		text[--length] = '\0';
}

static int read_token(struct session *session, const char *path, char token[static MAX_TOKEN])
{
	_cleanup_secret_ char *text = NULL;
	int r;

	if (path) {
		r = file_read(path, MAX_TOKEN - 1, &text, NULL);
		if (r < 0)
			return session_fail(session, r, "could not read the token from %s: %s", path,
					    strerror(-r));
		snprintf(token, MAX_TOKEN, "%s", text);
	} else {
		r = isatty(STDIN_FILENO) ? ask_hidden("One-time token: ", token, MAX_TOKEN)
					 : read_line(token, MAX_TOKEN);
		if (r < 0)
			return session_fail(session, r, "could not read the token from standard input: %s",
					    strerror(-r));
	}
	trim(token);
	if (*token == '\0')
		return session_fail(session, -EINVAL, "the one-time token is empty; it is read from %s",
				    path ? path : "standard input, or the file of --token-file");
	return 0;
}

static int ask_fingerprint(struct session *session, const char *url, const char *fingerprint)
{
	char answer[16];

	if (!isatty(STDIN_FILENO))
		return session_fail(
			session, -EPERM,
			"the server's CA is not known yet: give its fingerprint with --ca-fingerprint "
			"(`wiretoll up` prints it), or log in on a terminal");
	fprintf(stderr,
		"The CA of %s has the SHA-256 fingerprint\n  %s\nIt must be the one that the server's "
		"operator "
		"gave you. Trust it? [y/N] ",
		url, fingerprint);
	if (read_line(answer, sizeof(answer)) < 0 ||
	    (strcmp(answer, "y") != 0 && strcmp(answer, "Y") != 0 && strcmp(answer, "yes") != 0))
		return session_fail(session, -EPERM,
				    "the server's CA is not trusted; nothing was sent to it");
	return 0;
}

static int check_fingerprint(struct session *session, const char *url, const char *expected,
			     const uint8_t found[static 32])
{
	uint8_t wanted[32];
	char text[65];

	sodium_bin2hex(text, sizeof(text), found, 32);
	if (!expected)
		return ask_fingerprint(session, url, text);
	if (fingerprint_parse(expected, wanted) < 0)
		return session_fail(session, WRONG_USAGE,
				    "--ca-fingerprint is \"%.80s\"; accepted are 64 hexadecimal digits",
				    expected);
	if (memcmp(wanted, found, 32) != 0)
		return session_fail(
			session, -EPERM,
			"the CA of %s has the fingerprint %s, not the one given; nothing was sent to it", url,
			text);
	return 0;
}

static int trade_token(struct session *session, const char *one_time_token)
{
	_cleanup_json_ json_t *body = json_pack("{s:s}", "one_time_token", one_time_token), *answer = NULL;
	const char *token;
	int r;

	if (!body)
		return session_fail(session, -EINVAL, "the one-time token is not UTF-8 text");
	r = session_call(session, "POST", "/v1/login", body, &answer);
	if (r < 0)
		return r;
	token = json_string_value(json_object_get(answer, "token"));
	if (!token)
		return session_fail(session, -EBADMSG, "the server's answer to POST /v1/login has no token");
	session->config.token = strdup(token);
	if (!session->config.token)
		return session_no_memory(session);
	r = config_save(&session->config);
	if (r < 0)
		return session_fail(session, r, "could not store the login: %s", strerror(-r));
	fprintf(stderr, "Logged in to %s until ", session->config.url);
	text_print(stderr, json_string_value(json_object_get(answer, "expires")) ?: "further notice");
	fputs(".\n", stderr);
	return 0;
}

/* "https://host:port" without what may follow. */
static int check_url(struct session *session, const char *text, char **ret_url)
{
	static const char scheme[] = "https://";
	char *url = strdup(text);
	size_t length;

	if (!url)
		return session_no_memory(session);
	length = strlen(url);
	while (length > 0 && url[length - 1] == '/')
		url[--length] = '\0';
	if (strncmp(url, scheme, strlen(scheme)) != 0 || length == strlen(scheme) ||
	    strpbrk(url + strlen(scheme), "/?#@ ")) {
		free(url);
		return session_fail(session, WRONG_USAGE,
				    "URL is \"%.80s\"; accepted is https://HOST or https://HOST:PORT", text);
	}
	*ret_url = url;
	return 0;
}

int run_login(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *url = NULL, *ca_pem = NULL;
	uint8_t fingerprint[32];
	char token[MAX_TOKEN];
	int r;

	(void)command;
	r = check_url(session, arguments->positional[0], &url);
	if (r != 0)
		return r;
	r = http_fetch_ca(url, &ca_pem, fingerprint, session->problem);
	if (r == -ENOMEM)
		return session_no_memory(session);
	if (r < 0)
		return r;
	r = check_fingerprint(session, url, argument_value(arguments, "ca-fingerprint"), fingerprint);
	if (r != 0)
		return r;
	r = session_open_anonymous(session, url, ca_pem);
	if (r < 0)
		return r;
	r = read_token(session, argument_value(arguments, "token-file"), token);
	if (r == 0)
		r = trade_token(session, token);
	sodium_memzero(token, sizeof(token));
	return r;
}

int run_logout(struct session *session, const struct command *command, const struct arguments *arguments)
{
	_cleanup_free_ char *path = NULL;
	int r;

	(void)command;
	(void)arguments;
	r = session_call(session, "POST", "/v1/logout", NULL, NULL);
	/* A token that the server does not know any more needs no revoking. */
	if (r < 0 && session->status != 401)
		return r;
	if (config_path(&path) < 0)
		return session_no_memory(session);
	if (unlink(path) < 0 && errno != ENOENT)
		return session_fail(session, -errno, "could not remove %s: %s", path, strerror(errno));
	return 0;
}

int run_whoami(struct session *session, const struct command *command, const struct arguments *arguments)
{
	(void)command;
	return show_path(session, arguments, "/v1/me");
}
