/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this host knows of a deployment without asking anybody: written before the first effect, so that
 * whatever exists can be found and taken down again.
 */
#ifndef WIRETOLL_DEPLOY_RECORD_H
#define WIRETOLL_DEPLOY_RECORD_H

#include "deploy/paths.h"

struct deploy_record {
	struct deploy_spec *spec;
	bool kernel_wireguard; /* this deployment has no wireguard-go */
	bool ready;            /* every step of it is done: its programs can run */
};

/* -ENOENT when nothing is recorded. Release with record_clear(). */
WT_MUST_CHECK int record_read(const struct deploy_host *host, const char *gateway,
			      struct deploy_record *ret_record);
WT_MUST_CHECK int record_write(const struct deploy_host *host, const struct deploy_record *record);
void record_clear(struct deploy_record *record);
#define _cleanup_record_ WT_CLEANUP(record_clear)

#endif
