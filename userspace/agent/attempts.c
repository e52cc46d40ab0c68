// SPDX-License-Identifier: BSD-2-Clause
#include <sodium.h>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/log.h"

#define FIRST_MILLISECONDS 200
#define LAST_MILLISECONDS  10000

static int64_t wait_ns(unsigned failures)
{
	uint32_t bound = FIRST_MILLISECONDS;

	for (unsigned i = 1; i < failures && bound < LAST_MILLISECONDS; i++)
		bound *= 2;
	if (bound > LAST_MILLISECONDS)
		bound = LAST_MILLISECONDS;
	/* Full jitter: agents that lost the API together do not come back together. */
	return (int64_t)(randombytes_uniform(bound) + 1) * 1000000;
}

void attempts_failed(struct agent *agent, struct attempts *attempts, const char *what, const char *reason,
		     loop_fn again, void *data)
{
	if (attempts->failures++ == 0)
		log_warning("could not %s, trying again: %s", what, reason);
	attempts->api = (attempts->api + 1) % agent->config.n_apis;
	if (loop_at_boot(agent->loop, clock_boot_ns() + wait_ns(attempts->failures), again, data,
			 &attempts->retry) < 0)
		agent_exit(agent, 1);
}

struct http_call attempts_call(const struct agent *agent, const struct attempts *attempts)
{
	const struct config_api *api = &agent->config.apis[attempts->api];

	return (struct http_call){.address = api->address, .port = api->port};
}
