/* SPDX-License-Identifier: BSD-2-Clause */
/* A logged-in conversation with the API. Nothing here prints: a failure's text is left in `problem`. */
#ifndef WIRETOLL_CLI_SESSION_H
#define WIRETOLL_CLI_SESSION_H

#include "base/base.h"
#include "cli/config.h"
#include "cli/http_client.h"

#include <jansson.h>

struct session {
	struct config config;
	struct http_client *http;
	long status; /* of the last answer; 0 when none came */
	char problem[HTTP_PROBLEM_SIZE];
};

/* Reads the stored login. Returns -errno with a problem. */
WT_MUST_CHECK int session_open(struct session *session);

/* Talks to a server with no token yet, for login. The texts are copied. Returns -errno with a problem. */
WT_MUST_CHECK int session_open_anonymous(struct session *session, const char *url, const char *ca_pem);

void cleanup_session(struct session *session);
#define _cleanup_session_ WT_CLEANUP(cleanup_session)

/* Leaves a problem and returns `error`. */
int session_fail(struct session *session, int error, const char *format, ...) WT_PRINTF(3, 4);

/* The same for a failed allocation. */
int session_no_memory(struct session *session);

/*
 * One request. `body` may be NULL. The answer's JSON goes to *ret_json (NULL when it has none); ret_json may
 * be NULL. A problem document, or any status of 400 and above, is -EREMOTEIO with its detail as the problem.
 */
WT_MUST_CHECK int session_call(struct session *session, const char *method, const char *path,
			       const json_t *body, json_t **ret_json);

/* GET of something that is not JSON. The caller wipes and frees the text (secret_free). */
WT_MUST_CHECK int session_text(struct session *session, const char *path, char **ret_text);

/*
 * Follows the pages of a list from behind `after` (NULL: the beginning), up to `limit` items (0: all). `path`
 * may have a query. The answer is an array; *ret_more says whether the list goes on behind it.
 */
WT_MUST_CHECK int session_list(struct session *session, const char *path, const char *after, uint64_t limit,
			       json_t **ret_items, bool *ret_more);

/*
 * "/v1/gateways/%s" with each %s (the only conversion) escaped. The caller frees it; NULL without memory.
 */
char *path_format(const char *format, ...) WT_PRINTF(1, 2);

#endif
