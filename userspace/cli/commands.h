/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands. One table (commands.c) drives dispatch and help; each entry's function is in the file of its
 * noun.
 */
#ifndef WIRETOLL_CLI_COMMANDS_H
#define WIRETOLL_CLI_COMMANDS_H

#include "base/base.h"
#include "cli/options.h"
#include "cli/session.h"

#define WIRETOLL_VERSION "0.1"

/* Returned by a command for arguments that do not go together: exit code 2, with the command's usage. */
#define WRONG_USAGE 2

/* What a command takes besides its own options. */
#define COMMAND_JSON      1  /* --json */
#define COMMAND_LIMIT     2  /* --limit */
#define COMMAND_BODY      4  /* --json-file */
#define COMMAND_WAIT      8  /* --wait, --timeout */
#define COMMAND_ANONYMOUS 16 /* runs without a stored login */

struct command;
struct resource;

/* Returns 0, WRONG_USAGE, or -errno; the latter two with a problem in the session. */
typedef int command_fn(struct session *session, const struct command *command,
		       const struct arguments *arguments);

struct command {
	const char *noun;
	const char *verb;      /* NULL for a noun that stands alone */
	const char *arguments; /* "NAME GB"; those in brackets may be missing */
	const char *summary;
	command_fn *run;
	const struct cli_option *options; /* NULL for none */
	unsigned flags;
	const struct resource *resource;       /* for the verbs that all plain nouns share */
	const char *note;                      /* shown below the options */
	int (*program)(int argc, char **argv); /* instead of run: reads its own arguments */
};

/* Ends with an entry without a noun. */
extern const struct command COMMANDS[];

/* Options by flag, for dispatch and help. The table of flag 1 << i. */
extern const struct cli_option *const COMMON_OPTIONS[4];

/* Runs what argv names; returns the exit code: 0 done, 1 failed, 2 wrong usage. */
int cli_run(int argc, char **argv);

/* `wiretoll up`, which reads its own arguments. argv[0] is "up". Returns the exit code. */
int cmd_up(int argc, char **argv);

command_fn run_login, run_logout, run_whoami;
command_fn run_list, run_show, run_create, run_edit, run_delete;
command_fn run_vpc_edit, run_vpc_put, run_user_login_token, run_session_list;
command_fn run_gateway_create, run_gateway_delete, run_gateway_retry, run_gateway_extra, run_gateway_suspend,
	run_gateway_resume, run_gateway_log, run_gateway_top;
command_fn run_peer_add, run_peer_list, run_peer_show, run_peer_edit, run_peer_enable, run_peer_disable,
	run_peer_delete, run_peer_config;
command_fn run_usage, run_report, run_ledger;
command_fn run_journal_show, run_journal_verify;
command_fn run_meter, run_meter_show, run_meter_stop, run_top;

#endif
