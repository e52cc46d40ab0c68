// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define TIMEOUT_SECONDS 10

struct enrolment {
	struct agent *agent;
	void (*done)(struct agent *agent);
	char *body;
	struct attempts attempts;
};

static void try_enroll(struct enrolment *enrolment);

static void on_retry(void *data, int result)
{
	(void)result;
	try_enroll(data);
}

static void retry_later(struct enrolment *enrolment, const char *reason)
{
	attempts_failed(enrolment->agent, &enrolment->attempts, "enrol", reason, on_retry, enrolment);
}

static void finish(struct enrolment *enrolment)
{
	sodium_memzero(enrolment->body, strlen(enrolment->body));
	free(enrolment->body);
	free(enrolment);
}

static void enrolled(struct enrolment *enrolment, const struct http_answer *answer)
{
	struct agent *agent = enrolment->agent;
	json_t *body _cleanup_json_ = json_loadb(answer->body, answer->length, 0, NULL);
	struct json_problem problem = {.message = "the answer is not JSON"};
	void (*done)(struct agent *) = enrolment->done;
	int r = body ? config_take_token(&agent->config, body, &problem) : -EINVAL;

	if (r < 0) {
		retry_later(enrolment, r == -EINVAL ? problem.message : strerror(-r));
		return;
	}
	finish(enrolment);
	/* Before anything is done with the token: the one-time token is traded, and there is no second one.
	 */
	r = config_save(agent->base, &agent->config);
	if (r == 0)
		r = http_set_token(agent->http, agent->config.token);
	if (r < 0) {
		log_error("could not keep the token: %s", strerror(-r));
		agent_exit(agent, 1);
		return;
	}
	log_info("enrolled");
	done(agent);
}

static void on_answer(const struct http_answer *answer, void *data)
{
	struct enrolment *enrolment = data;
	char reason[64];

	switch (answer->status) {
	case 201:
		enrolled(enrolment, answer);
		break;
	case 403:
	case 409:
		log_error("could not enrol: the API answers %d, the one-time token is not accepted",
			  answer->status);
		agent_exit(enrolment->agent, 1);
		finish(enrolment);
		break;
	case 0:
		retry_later(enrolment, answer->error);
		break;
	default:
		snprintf(reason, sizeof(reason), "status %d", answer->status);
		retry_later(enrolment, reason);
	}
}

static void try_enroll(struct enrolment *enrolment)
{
	struct http_call call = attempts_call(enrolment->agent, &enrolment->attempts);
	struct http_request *request;
	int r;

	call.path = "/v1/agent/enroll";
	call.body = enrolment->body;
	call.length = strlen(enrolment->body);
	call.timeout_seconds = TIMEOUT_SECONDS;
	r = http_begin(enrolment->agent->http, &call, on_answer, enrolment, &request);
	if (r < 0)
		retry_later(enrolment, strerror(-r));
}

static char *make_body(const struct agent *agent)
{
	char gateway[UUID_TEXT_SIZE], key[KEY_TEXT_SIZE];
	json_t *body _cleanup_json_ =
		json_pack("{s:s, s:I, s:s, s:s}", "gateway", uuid_format(agent->config.gateway, gateway),
			  "attempt", (json_int_t)agent->config.attempt, "one_time_token",
			  agent->config.one_time_token, "public_key", key_format(&agent->public_key, key));

	return body ? json_dumps(body, JSON_COMPACT) : NULL;
}

void enroll_begin(struct agent *agent, void (*done)(struct agent *agent))
{
	struct enrolment *enrolment = calloc(1, sizeof(*enrolment));

	if (enrolment)
		*enrolment = (struct enrolment){.agent = agent, .done = done, .body = make_body(agent)};
	if (!enrolment || !enrolment->body) {
		log_error("could not enrol: out of memory");
		free(enrolment);
		agent_exit(agent, 1);
		return;
	}
	try_enroll(enrolment);
}
