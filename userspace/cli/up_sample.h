/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `wiretoll up --sample`: a small cloud on this host with an operator, a customer, a gateway and a client
 * whose traffic never ends. All calls say themselves what went wrong.
 */
#ifndef WIRETOLL_CLI_UP_SAMPLE_H
#define WIRETOLL_CLI_UP_SAMPLE_H

#include "cli/up_control.h"

/*
 * Makes the sample's networks, or what is missing of them after a crash. -EEXIST, before anything is made,
 * when an interface, a namespace or an address that they need is somebody else's.
 */
WT_MUST_CHECK int up_sample_prepare(const struct up *up);

/*
 * Starts a child that fills in the sample data over the API, connects the client, prints how to sign in, and
 * keeps the traffic going until SIGTERM. Its exit status is 1 when it could not set all up.
 */
WT_MUST_CHECK int up_sample_start(const struct up *up, pid_t *ret_pid);

/* Whether the sample's networks were made for this run folder. */
bool up_sample_exists(const struct up *up);

/* Removes the networks. The child must have ended, and the gateways be destroyed. */
WT_MUST_CHECK int up_sample_remove(const struct up *up);

#endif
