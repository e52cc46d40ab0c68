/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HTTPS to the API on the event loop: libcurl's multi interface, its sockets polled through the ring. The
 * server's certificate must be signed by the CA given and be for `wiretoll-api`, whatever the address.
 */
#ifndef WIRETOLL_AGENT_HTTP_H
#define WIRETOLL_AGENT_HTTP_H

#include "agent/loop.h"
#include "base/base.h"

#define HTTP_ERROR_SIZE 256

struct http;
struct http_request;

WT_MUST_CHECK int http_open(struct loop *loop, const char *ca_pem, struct http **ret_http);
void http_close(struct http *http); /* requests end without an answer; NULL is accepted */

/* No request is answered any more, those under way end silently; NULL is accepted. */
void http_mute(struct http *http);

/* The header "Authorization: Bearer TOKEN" of all requests from now on; NULL: none. Copied, wiped at the end.
 */
WT_MUST_CHECK int http_set_token(struct http *http, const char *token);

struct http_call {
	const char *address; /* of the API */
	uint16_t port;
	const char *path; /* "/v1/agent/report" */
	const void *body; /* NULL: GET; else POST, and it must live until the answer */
	size_t length;
	bool has_checksum;
	uint32_t checksum;  /* of the body, for the batch's header */
	uint64_t kept_from; /* for its header; 0: none */
	bool epoch_over;    /* for its header */
	unsigned timeout_seconds;
};

struct http_answer {
	int status;        /* 0: none, see error */
	const char *error; /* libcurl's words */
	const char *body;  /* with a NUL behind it; gone after the call */
	size_t length;
};

typedef void (*http_fn)(const struct http_answer *answer, void *data);

/* fn is called once, later, unless the request is cancelled; the request is gone when fn is called. */
WT_MUST_CHECK int http_begin(struct http *http, const struct http_call *call, http_fn fn, void *data,
			     struct http_request **ret_request);
void http_cancel(struct http_request *request); /* NULL is accepted */

#endif
