/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's own files: the bootstrap file, what it became (agent.json), and the private key. */
#ifndef WIRETOLL_AGENT_CONFIG_H
#define WIRETOLL_AGENT_CONFIG_H

#include <net/if.h>

#include "base/uuid.h"
#include "base/json.h"
#include "base/key.h"

#define CONFIG_APIS_MAX 8

struct config_api {
	char address[46]; /* INET6_ADDRSTRLEN */
	uint16_t port;
};

struct config {
	uint8_t gateway[UUID_SIZE];
	int64_t attempt;
	char interface[IF_NAMESIZE];
	struct config_api apis[CONFIG_APIS_MAX];
	size_t n_apis;
	char *ca_pem;
	char *one_time_token; /* until it is traded */
	char *token;          /* NULL: not enrolled yet */
	int64_t generation;
	int64_t report_every;    /* seconds */
	int64_t active_since_ns; /* UTC; 0: not yet */
	/* The meter that the next start has to put a new one in the place of; zero: none. */
	uint8_t outgoing[UUID_SIZE];
	bool outgoing_is_full; /* and a larger one */
};

/*
 * Reads BASE/agent.json, or BASE/bootstrap.json when that is there and of a later attempt. Returns -ENOENT
 * when neither is there, -EINVAL with the problem for a file that cannot be used.
 */
WT_MUST_CHECK int config_load(const char *base, struct config *ret_config, struct json_problem *problem);

/* Writes BASE/agent.json (0600), then removes the bootstrap file: its token is traded. */
WT_MUST_CHECK int config_save(const char *base, const struct config *config);

/* Takes the answer of the enrolment. Returns -EINVAL with the problem. */
WT_MUST_CHECK int config_take_token(struct config *config, const json_t *answer,
				    struct json_problem *problem);

/* Wipes the tokens. */
void config_free(struct config *config);

/* Reads BASE/private.key, or makes it. */
WT_MUST_CHECK int config_private_key(const char *base, struct key *ret_key);

#endif
