/* SPDX-License-Identifier: BSD-2-Clause */
/* Configuring links, addresses and routes through one `ip -batch` a namespace; why: docs/decisions. */
#ifndef WIRETOLL_BASE_IP_H
#define WIRETOLL_BASE_IP_H

#include "base/base.h"
#include "base/json.h"

/* The commands of one batch, a line each. */
struct ip_batch {
	char *text;
	size_t length;
	bool failed; /* out of memory */
};

void ip_batch_add(struct ip_batch *batch, const char *format, ...) WT_PRINTF(2, 3);
void ip_batch_clear(struct ip_batch *batch);
#define _cleanup_ip_ WT_CLEANUP(ip_batch_clear)

/*
 * Runs the batch in the network namespace pinned at `netns` (NULL: ours), stopping at the first command that
 * fails: then -EIO, with ip's own words in `error`. An empty batch does nothing.
 */
WT_MUST_CHECK int ip_batch_run(const struct ip_batch *batch, const char *netns, char *error,
			       size_t error_size);

/* Runs `ip -json ARGUMENTS…` (a list ended by NULL) and parses what it prints. */
WT_MUST_CHECK int ip_query(const char *netns, const char *const *arguments, json_t **ret_json);

#endif
