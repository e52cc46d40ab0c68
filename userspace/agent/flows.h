/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that were allowed and are no longer: the firewall lets pass what is established, whatever its
 * rules say by now, and a tunnel address that is given anew would inherit them.
 */
#ifndef WIRETOLL_AGENT_FLOWS_H
#define WIRETOLL_AGENT_FLOWS_H

#include "agent/agent.h"

/* Prefixes that a peer had and has no longer: gone, disabled, moved or withdrawn. */
struct flows {
	struct cidr *revoked;
	size_t n_revoked;
	bool vpc_changed; /* or not known: nothing was applied before */
};

/* Before the change. Returns -ENOMEM. */
WT_MUST_CHECK int flows_collect(const struct agent *agent, const struct desired *desired,
				struct flows *ret_flows);
/* After it, once WireGuard and the firewall refuse what is new. */
WT_MUST_CHECK int flows_end(const struct flows *flows, const struct desired *desired);

void flows_free(struct flows *flows);
#define _cleanup_flows_ WT_CLEANUP(flows_free)

#endif
