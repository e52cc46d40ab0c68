/* SPDX-License-Identifier: BSD-2-Clause */
/* A checked report as rows for PostgreSQL's COPY, one buffer for each of the temporary tables of migration
 * 0006: in its binary form, without its frame, where there are many rows, and else as text. */
#ifndef WIRETOLL_BILLING_ROWS_H
#define WIRETOLL_BILLING_ROWS_H

#include "billing/samples.h"
#include "route.h"

enum report_table { REPORT_IN, SAMPLE_IN, COUNTER_IN, STATE_IN, SEEN_IN, N_REPORT_TABLES };

/* What the request says of a report beside its body. */
struct report_frame {
	int64_t n; /* names the batch within its transaction */
	uint32_t crc;
	uint64_t kept_from; /* 0: not said */
	bool over;
};

struct report_rows {
	char *data[N_REPORT_TABLES];
	size_t length[N_REPORT_TABLES];
	size_t n_samples;
};

bool report_table_is_binary(enum report_table table);

/* The body has passed report_check(); its records are the list's. -ENOMEM. */
WT_MUST_CHECK int report_rows_write(const json_t *body, const struct sample_list *list,
				    const struct principal *agent, const struct report_frame *frame,
				    struct report_rows *ret_rows);
void report_rows_free(struct report_rows *rows);

#endif
