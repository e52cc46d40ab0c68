/* SPDX-License-Identifier: BSD-2-Clause */
/* The life of the agent, from its files to its exit status. */
#ifndef WIRETOLL_AGENT_RUN_H
#define WIRETOLL_AGENT_RUN_H

#include <stdint.h>

struct run_options {
	const char *base;
	const char *bpf_folder;
	int64_t settle_seconds; /* see meter/audit.h */
	uint64_t journal_bytes; /* the bound of the journal of reports */
};

/* Runs until the gateway is deleted (returns 0), or the agent is stopped or cannot go on (returns 1). */
int run_agent(const struct run_options *options);

#endif
