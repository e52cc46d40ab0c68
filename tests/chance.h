/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers by chance that are the same in every run (xorshift64); a test may begin elsewhere. */
#ifndef WIRETOLL_TESTS_CHANCE_H
#define WIRETOLL_TESTS_CHANCE_H

#include <stdint.h>

static uint64_t random_state = 88172645463325252ULL;

static uint32_t random_below(uint32_t bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state >> 16) % bound);
}

#endif
