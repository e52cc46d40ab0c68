/* SPDX-License-Identifier: BSD-2-Clause */
/* The counts as Prometheus scrapes them: http://ADDR:PORT/metrics, served between other work by one thread.
 */
#ifndef WIRETOLL_STANDALONE_PROMETHEUS_H
#define WIRETOLL_STANDALONE_PROMETHEUS_H

#include "standalone/station.h"

struct prometheus;

/* Called before an answer is written, to bring the station up to date. */
typedef void (*prometheus_refresh_fn)(void *data);

/* Whether the address has the form that prometheus_open() takes; -EINVAL with a message if not. */
WT_MUST_CHECK int prometheus_check(const char *address, struct json_problem *problem);

/*
 * Listens at "127.0.0.1:9586" or "[::1]:9586". Returns -EINVAL for another form, or what keeps it from
 * listening, with a message.
 */
WT_MUST_CHECK int prometheus_open(const char *address, const struct station *station,
				  prometheus_refresh_fn refresh, void *data, struct prometheus **ret_server,
				  struct json_problem *problem);
void prometheus_close(struct prometheus *server); /* NULL is accepted */

/* Polls readable when prometheus_serve() has something to do; it also has after so many milliseconds (-1:
 * not). */
int prometheus_fd(const struct prometheus *server);
int prometheus_timeout_ms(const struct prometheus *server);
void prometheus_serve(struct prometheus *server);

/* The text of an answer; the caller frees it. NULL without memory. */
char *prometheus_text(const struct station *station);

#endif
