// SPDX-License-Identifier: BSD-2-Clause
#include "cli/session.h"

#include "base/json.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_SIZE 200

int session_fail(struct session *session, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(session->problem, sizeof(session->problem), format, args);
	va_end(args);
	return error;
}

int session_no_memory(struct session *session)
{
	return session_fail(session, -ENOMEM, "out of memory");
}

void cleanup_session(struct session *session)
{
	http_close(session->http);
	session->http = NULL;
	cleanup_config(&session->config);
}

int session_open(struct session *session)
{
	_cleanup_free_ char *path = NULL;
	int r;

	if (config_path(&path) < 0)
		return session_fail(session, -ENOENT, "neither WIRETOLL_CONFIG nor HOME is set");
	r = config_load(&session->config);
	if (r == -ENOENT)
		return session_fail(session, r, "not logged in: run `wiretoll login URL` first");
	if (r == -EBADMSG)
		return session_fail(session, r, "%s is damaged: run `wiretoll login URL` again", path);
	if (r < 0)
		return session_fail(session, r, "could not read %s: %s", path, strerror(-r));
	r = http_open(session->config.url, session->config.ca_pem, session->config.token, &session->http);
	return r < 0 ? session_no_memory(session) : 0;
}

int session_open_anonymous(struct session *session, const char *url, const char *ca_pem)
{
	session->config.url = strdup(url);
	session->config.ca_pem = strdup(ca_pem);
	if (!session->config.url || !session->config.ca_pem ||
	    http_open(url, ca_pem, NULL, &session->http) < 0)
		return session_no_memory(session);
	return 0;
}

/* The detail of a problem document, or else its title, or else the status. */
static int take_problem(struct session *session, const struct http_reply *reply)
{
	_cleanup_json_ json_t *document = reply->is_json ? json_loads(reply->body, 0, NULL) : NULL;
	const char *detail = json_string_value(json_object_get(document, "detail"));

	if (!detail || !*detail)
		detail = json_string_value(json_object_get(document, "title"));
	if (!detail || !*detail)
		return session_fail(session, -EREMOTEIO, "the server answers %ld", reply->status);
	return session_fail(
		session, -EREMOTEIO, "%s%s", detail,
		reply->status == 401 && session->config.token ? " (`wiretoll login URL` logs in again)" : "");
}

static int exchange(struct session *session, const char *method, const char *path, const json_t *body,
		    struct http_reply *ret_reply)
{
	_cleanup_secret_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	_cleanup_reply_ struct http_reply reply = {0};
	int r;

	session->status = 0;
	if (body && !text)
		return session_no_memory(session);
	r = http_request(session->http, method, path, text, &reply, session->problem);
	if (r == -ENOMEM)
		return session_no_memory(session);
	if (r < 0)
		return r;
	session->status = reply.status;
	if (reply.status >= 300)
		return take_problem(session, &reply);
	*ret_reply = reply;
	reply.body = NULL;
	return 0;
}

int session_call(struct session *session, const char *method, const char *path, const json_t *body,
		 json_t **ret_json)
{
	_cleanup_reply_ struct http_reply reply = {0};
	json_t *json = NULL;
	int r;

	r = exchange(session, method, path, body, &reply);
	if (r < 0 || !ret_json)
		return r;
	if (reply.length > 0) {
		json = json_loads(reply.body, 0, NULL);
		if (!json)
			return session_fail(session, -EBADMSG, "the server's answer to %s %s is not JSON",
					    method, path);
	}
	*ret_json = json;
	return 0;
}

int session_text(struct session *session, const char *path, char **ret_text)
{
	_cleanup_reply_ struct http_reply reply = {0};
	int r;

	r = exchange(session, "GET", path, NULL, &reply);
	if (r < 0)
		return r;
	*ret_text = TAKE_PTR(reply.body);
	return 0;
}

/* Fetches one page behind `cursor` (NULL: the first) and adds its items. */
static int add_page(struct session *session, const char *path, uint64_t count, const char *cursor,
		    json_t *items, char **ret_next)
{
	_cleanup_free_ char *page_path = NULL, *behind = NULL;
	_cleanup_json_ json_t *page = NULL;
	const json_t *added;
	const char *next;
	int r;

	behind = cursor ? path_format("&after=%s", cursor) : strdup("");
	if (!behind || asprintf(&page_path, "%s%climit=%" PRIu64 "%s", path, strchr(path, '?') ? '&' : '?',
				count, behind) < 0)
		return session_no_memory(session);
	r = session_call(session, "GET", page_path, NULL, &page);
	if (r < 0)
		return r;
	added = json_object_get(page, "items");
	if (!json_is_array(added))
		return session_fail(session, -EBADMSG, "the server's answer to GET %s is no list", path);
	if (json_array_extend(items, (json_t *)added) < 0)
		return session_no_memory(session);
	next = json_array_size(added) > 0 ? json_string_value(json_object_get(page, "next")) : NULL;
	*ret_next = next ? strdup(next) : NULL;
	return next && !*ret_next ? session_no_memory(session) : 0;
}

int session_list(struct session *session, const char *path, const char *after, uint64_t limit,
		 json_t **ret_items, bool *ret_more)
{
	_cleanup_json_ json_t *items = json_array();
	_cleanup_free_ char *cursor = after ? strdup(after) : NULL;
	int r;

	if (!items || (after && !cursor))
		return session_no_memory(session);
	do {
		uint64_t missing = limit ? limit - json_array_size(items) : PAGE_SIZE;
		char *next = NULL;

		r = add_page(session, path, missing < PAGE_SIZE ? missing : PAGE_SIZE, cursor, items, &next);
		if (r < 0)
			return r;
		free(cursor);
		cursor = next;
	} while (cursor && (!limit || json_array_size(items) < limit));
	*ret_items = TAKE_PTR(items);
	*ret_more = cursor != NULL;
	return 0;
}

char *path_format(const char *format, ...)
{
	char *path = NULL;
	size_t length;
	FILE *stream = open_memstream(&path, &length);
	bool complete = true;
	va_list args;

	if (!stream)
		return NULL;
	va_start(args, format);
	for (const char *c = format; *c; c++) {
		if (c[0] != '%') {
			fputc(*c, stream);
			continue;
		}
		char *escaped = curl_easy_escape(NULL, va_arg(args, const char *), 0);

		complete = complete && escaped;
		fputs(escaped ? escaped : "", stream);
		curl_free(escaped);
		c++;
	}
	va_end(args);
	if (fclose(stream) != 0 || !complete) {
		free(path);
		return NULL;
	}
	return path;
}
