// SPDX-License-Identifier: BSD-2-Clause
#include "agent/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#include <wiretoll/report.h>

#define ANSWER_MAX              (32u << 20)
#define CONNECT_TIMEOUT_SECONDS 3L
#define MAX_IDLE_CONNECTIONS    4L
#define SERVER_NAME             "wiretoll-api"

struct http {
	struct loop *loop;
	CURLM *multi;
	struct curl_blob ca;
	char *authorization; /* a whole header line, or NULL */
	loop_tag timer;
	bool muted;
	struct http_request *requests;
};

/* One of libcurl's sockets. Polls are for one event each: libcurl wants levels, not edges. */
struct http_socket {
	struct http *http;
	curl_socket_t fd;
	int wanted; /* CURL_POLL_* */
	loop_tag poll;
	bool in_action; /* libcurl is at work on it: it may be removed in the meantime */
	bool removed;
};

struct http_request {
	struct http *http;
	struct http_request *next;
	CURL *easy;
	struct curl_slist *headers;
	struct curl_slist *connect_to;
	char error[CURL_ERROR_SIZE];
	char *answer;
	size_t length, size;
	http_fn fn;
	void *data;
};

static void free_request(struct http_request *request)
{
	struct http_request **link = &request->http->requests;

	while (*link && *link != request)
		link = &(*link)->next;
	if (*link)
		*link = request->next;
	if (request->easy) {
		curl_multi_remove_handle(request->http->multi, request->easy);
		curl_easy_cleanup(request->easy);
	}
	/* The token's header is one of them. */
	for (struct curl_slist *header = request->headers; header; header = header->next)
		sodium_memzero(header->data, strlen(header->data));
	curl_slist_free_all(request->headers);
	curl_slist_free_all(request->connect_to);
	/* The answer may hold a token or preshared keys. */
	if (request->answer)
		sodium_memzero(request->answer, request->size);
	free(request->answer);
	free(request);
}

/* Hands finished requests to their callers. A handler may begin and cancel others. */
static void finish_requests(struct http *http)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left))) {
		struct http_request *request;
		struct http_answer answer = {0};
		CURLcode code = message->data.result;
		char *pointer = NULL;
		long status = 0;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
		request = (struct http_request *)pointer;
		curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
		if (code == CURLE_OK)
			answer.status = (int)status;
		else
			answer.error = request->error[0] ? request->error : curl_easy_strerror(code);
		answer.body = request->answer ? request->answer : "";
		answer.length = request->length;
		/* Out of libcurl first: its handler may begin another. */
		curl_multi_remove_handle(http->multi, request->easy);
		if (!http->muted)
			request->fn(&answer, request->data);
		free_request(request);
	}
}

static void on_socket(void *data, int events);

static void poll_socket(struct http_socket *sock)
{
	short events = 0;

	if (sock->wanted & CURL_POLL_IN)
		events |= POLLIN;
	if (sock->wanted & CURL_POLL_OUT)
		events |= POLLOUT;
	loop_cancel(sock->http->loop, sock->poll);
	sock->poll = 0;
	/* Without memory for a poll the request runs into its timeout. */
	if (events && loop_poll_once(sock->http->loop, sock->fd, events, on_socket, sock, &sock->poll) < 0)
		sock->poll = 0;
}

static void on_socket(void *data, int events)
{
	struct http_socket *sock = data;
	struct http *http = sock->http;
	int action = 0, running;

	sock->poll = 0;
	if (events < 0 || events & (POLLERR | POLLHUP))
		action |= CURL_CSELECT_ERR;
	if (events > 0 && events & POLLIN)
		action |= CURL_CSELECT_IN;
	if (events > 0 && events & POLLOUT)
		action |= CURL_CSELECT_OUT;
	sock->in_action = true;
	curl_multi_socket_action(http->multi, sock->fd, action, &running);
	sock->in_action = false;
	if (sock->removed)
		free(sock);
	else if (sock->poll == 0)
		poll_socket(sock);
	finish_requests(http);
}

static int socket_wanted(CURL *easy, curl_socket_t fd, int wanted, void *data, void *socket_data)
{
	struct http *http = data;
	struct http_socket *sock = socket_data;

	(void)easy;
	if (wanted == CURL_POLL_REMOVE) {
		if (!sock)
			return 0;
		loop_cancel(http->loop, sock->poll);
		sock->poll = 0;
		curl_multi_assign(http->multi, fd, NULL);
		sock->removed = true;
		if (!sock->in_action)
			free(sock);
		return 0;
	}
	if (!sock) {
		sock = calloc(1, sizeof(*sock));
		if (!sock)
			return -1;
		sock->http = http;
		sock->fd = fd;
		curl_multi_assign(http->multi, fd, sock);
	}
	sock->wanted = wanted;
	poll_socket(sock);
	return 0;
}

static void on_timer(void *data, int result)
{
	struct http *http = data;
	int running;

	(void)result;
	http->timer = 0;
	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finish_requests(http);
}

/* Never acts at once: libcurl must not be called from its own callback. */
static int timer_wanted(CURLM *multi, long milliseconds, void *data)
{
	struct http *http = data;

	(void)multi;
	loop_cancel(http->loop, http->timer);
	http->timer = 0;
	if (milliseconds < 0)
		return 0;
	return loop_at_boot(http->loop, clock_boot_ns() + milliseconds * 1000000, on_timer, http,
			    &http->timer) < 0
		       ? -1
		       : 0;
}

int http_open(struct loop *loop, const char *ca_pem, struct http **ret_http)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http)
		return -ENOMEM;
	http->loop = loop;
	http->ca = (struct curl_blob){strdup(ca_pem), strlen(ca_pem), CURL_BLOB_NOCOPY};
	if (!http->ca.data || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 ||
	    !(http->multi = curl_multi_init())) {
		http_close(http);
		return -ENOMEM;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, MAX_IDLE_CONNECTIONS);
	*ret_http = http;
	return 0;
}

void http_mute(struct http *http)
{
	if (http)
		http->muted = true;
}

static void wipe_authorization(struct http *http)
{
	if (http->authorization)
		sodium_memzero(http->authorization, strlen(http->authorization));
	free(http->authorization);
	http->authorization = NULL;
}

void http_close(struct http *http)
{
	if (!http)
		return;
	while (http->requests)
		free_request(http->requests);
	if (http->multi)
		curl_multi_cleanup(http->multi);
	loop_cancel(http->loop, http->timer);
	wipe_authorization(http);
	free(http->ca.data);
	free(http);
}

int http_set_token(struct http *http, const char *token)
{
	char *line = NULL;

	if (token && asprintf(&line, "Authorization: Bearer %s", token) < 0)
		return -ENOMEM;
	wipe_authorization(http);
	http->authorization = line;
	return 0;
}

static size_t take_answer(char *bytes, size_t one, size_t length, void *data)
{
	struct http_request *request = data;

	(void)one;
	if (length > ANSWER_MAX - request->length)
		return 0;
	if (request->length + length + 1 > request->size) {
		size_t size = 2 * (request->length + length) + 1024;
		/* Not realloc(): a moved block would leave secrets behind. */
		char *larger = malloc(size);

		if (!larger)
			return 0;
		if (request->answer) {
			memcpy(larger, request->answer, request->length);
			sodium_memzero(request->answer, request->size);
			free(request->answer);
		}
		request->answer = larger;
		request->size = size;
	}
	memcpy(request->answer + request->length, bytes, length);
	request->length += length;
	request->answer[request->length] = '\0';
	return length;
}

static int add_header(struct http_request *request, const char *line)
{
	struct curl_slist *longer = curl_slist_append(request->headers, line);

	if (!longer)
		return -ENOMEM;
	request->headers = longer;
	return 0;
}

static int set_headers(struct http_request *request, const struct http_call *call)
{
	char line[64];
	int r;

	snprintf(line, sizeof(line), WT_HEADER_PROTOCOL ": %u", WT_REPORT_PROTOCOL);
	r = add_header(request, line);

	if (r == 0 && request->http->authorization)
		r = add_header(request, request->http->authorization);
	if (r == 0 && call->body)
		r = add_header(request, "Content-Type: application/json");
	/* No waiting for "100 Continue" before a large body. */
	if (r == 0 && call->body)
		r = add_header(request, "Expect:");
	if (r == 0 && call->has_checksum) {
		snprintf(line, sizeof(line), WT_HEADER_CRC ": %u", call->checksum);
		r = add_header(request, line);
	}
	if (r == 0 && call->kept_from) {
		snprintf(line, sizeof(line), WT_HEADER_KEPT_FROM ": %" PRIu64, call->kept_from);
		r = add_header(request, line);
	}
	if (r == 0 && call->epoch_over)
		r = add_header(request, WT_HEADER_EPOCH_OVER ": true");
	return r;
}

static int set_target(struct http_request *request, const struct http_call *call)
{
	uint8_t six[16];
	bool is_six = inet_pton(AF_INET6, call->address, six) == 1;
	char url[256], connect_to[256];

	snprintf(url, sizeof(url), "https://" SERVER_NAME ":%u%s", call->port, call->path);
	snprintf(connect_to, sizeof(connect_to), "::%s%s%s:%u", is_six ? "[" : "", call->address,
		 is_six ? "]" : "", call->port);
	request->connect_to = curl_slist_append(NULL, connect_to);
	if (!request->connect_to)
		return -ENOMEM;
	curl_easy_setopt(request->easy, CURLOPT_URL, url);
	curl_easy_setopt(request->easy, CURLOPT_CONNECT_TO, request->connect_to);
	return 0;
}

static void set_options(struct http_request *request, const struct http_call *call)
{
	CURL *easy = request->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_SECONDS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)call->timeout_seconds);
	/* Only the CA given: none of the system's. */
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &request->http->ca);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	if (call->body) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->length);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
	}
}

int http_begin(struct http *http, const struct http_call *call, http_fn fn, void *data,
	       struct http_request **ret_request)
{
	struct http_request *request = calloc(1, sizeof(*request));

	if (!request)
		return -ENOMEM;
	*request = (struct http_request){
		.http = http, .next = http->requests, .easy = curl_easy_init(), .fn = fn, .data = data};
	http->requests = request;
	if (!request->easy || set_headers(request, call) < 0 || set_target(request, call) < 0) {
		free_request(request);
		return -ENOMEM;
	}
	set_options(request, call);
	if (curl_multi_add_handle(http->multi, request->easy) != CURLM_OK) {
		free_request(request);
		return -ENOMEM;
	}
	*ret_request = request;
	return 0;
}

void http_cancel(struct http_request *request)
{
	if (request)
		free_request(request);
}
