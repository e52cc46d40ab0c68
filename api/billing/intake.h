/* SPDX-License-Identifier: BSD-2-Clause */
/* Reports on their way into the database: written as rows by a worker each, and committed together
 * (docs/decisions/ingestion.md). */
#ifndef WIRETOLL_BILLING_INTAKE_H
#define WIRETOLL_BILLING_INTAKE_H

#include "route.h"

/* `POST /v1/agent/report`: one batch of usage (docs/agent-protocol.md, 3). */
int post_report(struct request *request, struct response *response);

#endif
