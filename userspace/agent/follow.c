// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* The API answers after at most 50 s. */
#define TIMEOUT_SECONDS 60

static void on_retry(void *data, int result)
{
	struct agent *agent = data;

	(void)result;
	agent->follow.attempts.retry = 0;
	follow_begin(agent);
}

static void retry_later(struct agent *agent, const char *reason)
{
	attempts_failed(agent, &agent->follow.attempts, "ask the API for the desired state", reason, on_retry,
			agent);
}

static void take_state(struct agent *agent, const struct http_answer *answer)
{
	json_t *body _cleanup_json_ = json_loadb(answer->body, answer->length, 0, NULL);
	struct json_problem problem = {.message = "the answer is not JSON"};
	struct desired *desired = NULL;
	bool grants_are_ours = agent->follow.request_knows_epoch;
	int r = body ? desired_parse(body, &desired, &problem) : -EINVAL;

	if (r < 0) {
		cannot_clear(agent);
		cannot_add(agent, "state", "%s", r == -EINVAL ? problem.message : strerror(-r));
		retry_later(agent, "it cannot be applied");
		return;
	}
	agent->follow.attempts.failures = 0;
	agent->follow.have = desired->revision;
	agent->follow.events->state(agent, desired, grants_are_ours);
	if (agent->leaving == STAYING)
		follow_begin(agent);
}

static void on_answer(const struct http_answer *answer, void *data)
{
	struct agent *agent = data;
	char reason[64];

	agent->follow.request = NULL;
	switch (answer->status) {
	case 200:
		take_state(agent, answer);
		break;
	case 204:
		agent->follow.attempts.failures = 0;
		follow_begin(agent);
		break;
	case 410:
		agent->follow.events->gone(agent);
		break;
	case 0:
		retry_later(agent, answer->error);
		break;
	default:
		snprintf(reason, sizeof(reason), "status %d", answer->status);
		retry_later(agent, reason);
	}
}

void follow_begin(struct agent *agent)
{
	struct follow *follow = &agent->follow;
	char path[64];
	struct http_call call = attempts_call(agent, &follow->attempts);
	int r;

	if (follow->request || follow->attempts.retry || agent->leaving != STAYING)
		return;
	snprintf(path, sizeof(path), "/v1/agent/state?have=%" PRIu64, follow->have);
	call.path = path;
	call.timeout_seconds = TIMEOUT_SECONDS;
	follow->request_knows_epoch = agent->epoch.known;
	r = http_begin(agent->http, &call, on_answer, agent, &follow->request);
	if (r < 0)
		retry_later(agent, strerror(-r));
}

void follow_stop(struct agent *agent)
{
	http_cancel(TAKE_PTR(agent->follow.request));
	loop_cancel(agent->loop, agent->follow.attempts.retry);
	agent->follow.attempts.retry = 0;
}

void follow_again(struct agent *agent)
{
	follow_stop(agent);
	agent->follow.have = 0;
	follow_begin(agent);
}
