/* SPDX-License-Identifier: BSD-2-Clause */
/* The body of a report, apart from its records (docs/agent-protocol.md, 3). */
#ifndef WIRETOLL_BILLING_REPORT_H
#define WIRETOLL_BILLING_REPORT_H

#include "base/json.h"

/*
 * Checks the type and the range of every field, so that the database can take the batch as it is. Returns
 * -EINVAL with the first problem, its field named like "records[3].hour".
 */
WT_MUST_CHECK int report_check(const json_t *body, struct json_problem *problem);

#endif
