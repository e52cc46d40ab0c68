/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes this host what the database says of it: adopts, repairs, routes, and reaps. */
#ifndef WIRETOLL_DEPLOY_UPKEEP_H
#define WIRETOLL_DEPLOY_UPKEEP_H

#include "base/base.h"

struct task;
struct worker;

/*
 * Compares what is assigned with what is here and adds the tasks for what differs; with `reap` also for what
 * is here and assigned to nobody. Nothing is reaped while the operator lacks one of our hypervisors: then
 * "nobody" is not known.
 */
WT_MUST_CHECK int upkeep(struct worker *worker, bool reap);

/* Remembers which routes a finished task has put in force; forgets them, so that they are looked at again. */
void upkeep_note_routes(struct worker *worker, struct task *task);
void upkeep_forget_routes(struct worker *worker, const char *gateway);

void upkeep_clear(struct worker *worker);

#endif
