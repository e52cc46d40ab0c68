/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of `wiretoll up`. */
#ifndef WIRETOLL_CLI_UP_OPTIONS_H
#define WIRETOLL_CLI_UP_OPTIONS_H

#include "cli/up_control.h"

#include <stdio.h>

enum up_action { UP_ACTION_UP, UP_ACTION_DOWN, UP_ACTION_HELP };

void up_usage(FILE *stream);

/* Fills in `up`, zero before, defaults included; says what is wrong and returns -EINVAL. argv must stay. */
WT_MUST_CHECK int up_parse(int argc, char **argv, struct up *up, enum up_action *action);

#endif
