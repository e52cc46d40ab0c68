/* SPDX-License-Identifier: BSD-2-Clause */
/* libmicrohttpd: one daemon for each address that is listened on. */
#ifndef WIRETOLL_API_HTTP_H
#define WIRETOLL_API_HTTP_H

#include "base/base.h"
#include "work.h"

struct http;

struct http_settings {
	const char *const *listen;
	size_t n_listen;
	unsigned connections;             /* open at once, for each of these */
	unsigned connections_per_address; /* of a client */
	unsigned connections_per_second;  /* new ones of such an address */
	unsigned request_seconds;         /* for a request to arrive, and for its answer to be taken */
};

/*
 * Listens and serves with the certificate of identity_load(), which comes first. Handlers get the key, which
 * has to outlive the server. Logs why an address cannot be listened on.
 */
WT_MUST_CHECK int http_start(const struct http_settings *settings, const struct sealing_key *sealing_key,
			     struct work *work, struct http **ret_http);

/* Accepts no connections any more; requests on open ones are answered with 503 once the pool has stopped. */
void http_quiesce(struct http *http);

/* Waits up to `seconds` for answers to be sent, then closes everything. All exchanges must be done. */
void http_stop(struct http *http, unsigned seconds);

#endif
