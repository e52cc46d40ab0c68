/* SPDX-License-Identifier: BSD-2-Clause */
/* What Prometheus reads from a replica: its own counts, and what the database says of all gateways. */
#ifndef WIRETOLL_API_METRICS_H
#define WIRETOLL_API_METRICS_H

#include <stddef.h>

/* A report was answered with this status. */
void metrics_count_report(unsigned status);

/* So many reports were committed in one transaction. */
void metrics_count_group(size_t n_reports);

#endif
