/* SPDX-License-Identifier: BSD-2-Clause */
/* What a program that holds keys or tokens does first. */
#ifndef WIRETOLL_BASE_GUARD_H
#define WIRETOLL_BASE_GUARD_H

#include "base/base.h"

/*
 * No core dump holds this process's memory, and no other process of its user traces or reads it. The core
 * limit is inherited by the programs that it runs.
 */
WT_MUST_CHECK int guard_memory(void);

#endif
