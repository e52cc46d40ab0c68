/* SPDX-License-Identifier: BSD-2-Clause */
/* A blocking HTTPS client that trusts one certificate, given in memory. */
#ifndef WIRETOLL_CLI_HTTP_CLIENT_H
#define WIRETOLL_CLI_HTTP_CLIENT_H

#include "base/base.h"

#define HTTP_PROBLEM_SIZE 512

struct http_client;

struct http_reply {
	long status;
	char *body; /* with a NUL behind it; never NULL in a reply that came */
	size_t length;
	bool is_json;
};

/*
 * Prepares a client for one server. `url` has no path; `token` may be NULL. Nothing is sent yet. The caller
 * closes it. Returns -ENOMEM.
 */
WT_MUST_CHECK int http_open(const char *url, const char *ca_pem, const char *token,
			    struct http_client **ret_client);

/* Closes and wipes; takes NULL. */
void http_close(struct http_client *client);

/* How long a request may take from now on, instead of a minute. */
void http_set_patience(struct http_client *client, unsigned seconds);

/*
 * Sends one request and waits for its answer, a minute at most. `body` is JSON, or NULL for none. Any status
 * is success here. Returns -EIO with the reason in `problem`, -EFBIG for an answer over 64 MB, -ENOMEM.
 */
WT_MUST_CHECK int http_request(struct http_client *client, const char *method, const char *path,
			       const char *body, struct http_reply *ret_reply,
			       char problem[static HTTP_PROBLEM_SIZE]);

/*
 * Shakes hands with a server that nothing is known of, sends nothing, and returns the last certificate of the
 * chain that it shows: its CA, or itself when it stands alone. Not to be trusted before somebody has compared
 * the SHA-256 of its DER form. The caller frees the PEM text. Returns -EIO with the reason in `problem`.
 */
WT_MUST_CHECK int http_fetch_ca(const char *url, char **ret_pem, uint8_t ret_fingerprint[static 32],
				char problem[static HTTP_PROBLEM_SIZE]);

void cleanup_reply(struct http_reply *reply);
#define _cleanup_reply_ WT_CLEANUP(cleanup_reply)

#endif
