/* SPDX-License-Identifier: BSD-2-Clause */
/* libmicrohttpd: one daemon for each address that is listened on. */
#ifndef WIRETOLL_API_HTTP_H
#define WIRETOLL_API_HTTP_H

#include "base/base.h"
#include "work.h"

struct http;

/*
 * Listens and serves with the certificate chain and key of the PEM text, which must outlive it. Logs why an
 * address cannot be listened on. `connections` is the limit of each address.
 */
WT_MUST_CHECK int http_start(const char *const *listen, size_t n_listen, const char *pem,
			     unsigned connections, struct server *server, struct work *work,
			     struct http **ret_http);

/* Accepts no connections any more; requests on open ones are answered with 503 once the pool has stopped. */
void http_quiesce(struct http *http);

/* Waits up to `seconds` for answers to be sent, then closes everything. All exchanges must be done. */
void http_stop(struct http *http, unsigned seconds);

#endif
