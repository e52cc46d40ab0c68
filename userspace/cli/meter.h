/* SPDX-License-Identifier: BSD-2-Clause */
/* wiretoll meter and wiretoll top: an interface of this host, without any API. */
#ifndef WIRETOLL_CLI_METER_H
#define WIRETOLL_CLI_METER_H

#include "cli/commands.h"
#include "standalone/station.h"

#include <stdio.h>

/* What `wiretoll meter run` was asked for. */
struct meter_request {
	struct station_options options;
	int64_t interval_ns;
	int64_t count; /* samples; 0: without end */
	bool json;
	const char *prometheus; /* NULL: no server */
	struct names names;
	struct peer_limit limits[MAX_GIVEN];
};

/* Reads the arguments; texts are those of argv. Returns -EINVAL and others with a problem. */
WT_MUST_CHECK int meter_request_read(const struct arguments *arguments, struct meter_request *ret_request,
				     struct json_problem *problem);
void meter_request_free(struct meter_request *request);

/* "1", "0.5": seconds from 0.1 to 86400, at most three decimals. Returns -EINVAL. */
WT_MUST_CHECK int interval_parse(const char *text, int64_t *ret_ns);

/* Whether this process has the rights; leaves a problem and returns -EPERM otherwise. */
WT_MUST_CHECK int meter_check_rights(struct session *session);

/* A sample as the one object that --json promises. NULL without memory. */
json_t *meter_sample_json(const struct station *station);

/* The same for people. Returns -ENOMEM. */
WT_MUST_CHECK int meter_sample_print(FILE *file, const struct station *station);

/* "3.2 GB of 50 GB/month", or "" without a limit. */
#define LIMIT_TEXT_SIZE 96
const char *limit_format(const struct limit *limit, uint64_t used, char buffer[static LIMIT_TEXT_SIZE]);

/* The peer's name, or its public key. */
const char *peer_title(const struct record *record, char key[static KEY_TEXT_SIZE]);

#endif
