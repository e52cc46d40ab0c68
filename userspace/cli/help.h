/* SPDX-License-Identifier: BSD-2-Clause */
/* Help, written from the command table. */
#ifndef WIRETOLL_CLI_HELP_H
#define WIRETOLL_CLI_HELP_H

#include "base/base.h"
#include "cli/commands.h"

#include <stdio.h>

/* All commands. */
void help_all(FILE *file);

/* The commands of one noun. */
void help_noun(FILE *file, const char *noun);

/* One command's usage in one line, and where the rest is. */
void help_usage(FILE *file, const struct command *command);

/* One command: usage, options, note. */
void help_command(FILE *file, const struct command *command);

/*
 * The tables of the options that a command takes, NULL at the end: its own or its fields, then the common
 * ones.
 */
#define MAX_TABLES 7
void command_options(const struct command *command, const struct cli_option *ret_tables[static MAX_TABLES]);

#endif
