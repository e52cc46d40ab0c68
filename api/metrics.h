/* SPDX-License-Identifier: BSD-2-Clause */
/* What Prometheus reads from a replica: its own counts, and what the database says of all gateways. */
#ifndef WIRETOLL_API_METRICS_H
#define WIRETOLL_API_METRICS_H

#include <stddef.h>

/* A report was answered with this status. */
void metrics_count_report(unsigned status);

/* So many reports were committed in one transaction. */
void metrics_count_group(size_t n_reports);

/* A request that was refused as too many of an enum share_kind wait; N_SHARE_KINDS: of all together. */
void metrics_count_refused(unsigned kind);

#endif
