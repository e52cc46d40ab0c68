/* SPDX-License-Identifier: BSD-2-Clause */
/* The records of a report, read as agents write them, without a tree of JSON values: they are nearly all of
 * it. */
#ifndef WIRETOLL_BILLING_RECORDS_H
#define WIRETOLL_BILLING_RECORDS_H

#include "billing/samples.h"

/*
 * Reads the records out of a report's body, in the agent's own form (docs/agent-protocol.md): no white space,
 * the fields in order. `ret_rest` is the body with an empty array in their place, allocated. What is accepted
 * means the same as JSON and passes report_check(). -ENODATA: another form, or wrong: to be read as any JSON;
 * -ENOMEM.
 */
WT_MUST_CHECK int records_take(const char *body, size_t length, struct sample_list *ret_list, char **ret_rest,
			       size_t *ret_rest_length);

#endif
