// SPDX-License-Identifier: BSD-2-Clause
#include <sodium.h>

#include "agent/agent.h"

#define FIRST_MILLISECONDS 200
#define LAST_MILLISECONDS  10000

int64_t backoff_ns(unsigned failures)
{
	uint32_t bound = FIRST_MILLISECONDS;

	for (unsigned i = 1; i < failures && bound < LAST_MILLISECONDS; i++)
		bound *= 2;
	if (bound > LAST_MILLISECONDS)
		bound = LAST_MILLISECONDS;
	/* Full jitter: agents that lost the API together do not come back together. */
	return (int64_t)(randombytes_uniform(bound) + 1) * 1000000;
}
