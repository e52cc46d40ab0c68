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

enum connection_fault {
	CONNECTION_OF_TOO_MANY,       /* its address holds as many as it may */
	CONNECTION_WITHOUT_HANDSHAKE, /* not in time */
	CONNECTION_TOO_SLOW,          /* a request, or taking its answer, took too long */
	N_CONNECTION_FAULTS,
};

/* A connection was refused or ended. */
void metrics_count_connection(enum connection_fault fault);

/* A connection is to wait, as its address has begun too many. */
void metrics_count_delayed(void);

#endif
