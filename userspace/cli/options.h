/* SPDX-License-Identifier: BSD-2-Clause */
/* Options and arguments of a command, read by table. */
#ifndef WIRETOLL_CLI_OPTIONS_H
#define WIRETOLL_CLI_OPTIONS_H

#include "base/base.h"
#include "base/json.h"

#define MAX_POSITIONALS 3
#define MAX_GIVEN       1024

enum option_kind {
	OPTION_FLAG,
	OPTION_NULL, /* a flag that makes its field null */
	OPTION_TEXT,
	OPTION_INTEGER,
	OPTION_AMOUNT, /* a decimal of at most 9 places, sent as a string */
	OPTION_SWITCH, /* on or off */
	OPTION_CHOICE, /* one of the words of `value` */
	OPTION_LIST,   /* words with commas between, and may come again; "" for none */
	OPTION_SUBNET, /* may come again */
	OPTION_PUBLIC_SUBNET,
};

struct cli_option {
	const char *name; /* without the dashes; NULL ends a table */
	enum option_kind kind;
	const char *field; /* the member of the request's body that it sets; NULL: for the command itself */
	const char *value; /* how help calls the value; NULL for flags */
	const char *help;
};

struct given_option {
	const struct cli_option *option;
	const char *value;
};

/* What was given. Texts are those of argv. */
struct arguments {
	const char *positional[MAX_POSITIONALS];
	unsigned positional_count;
	struct given_option given[MAX_GIVEN];
	unsigned given_count;
	json_t *fields; /* of options that have a field */
};

/*
 * Reads what stands behind the command's words by the tables (several, NULL at the end). Options and
 * arguments may come in any order, "--name value" or "--name=value"; "--" ends the options. Values of fields
 * are checked and put into ret->fields. Returns -EINVAL with a message, -ENOMEM.
 */
WT_MUST_CHECK int arguments_parse(int argc, char **argv, const struct cli_option *const *tables,
				  struct arguments *ret, struct json_problem *problem);

void cleanup_arguments(struct arguments *arguments);
#define _cleanup_arguments_ WT_CLEANUP(cleanup_arguments)

/* The value given last; "" for a flag; NULL when it was not given. */
const char *argument_value(const struct arguments *arguments, const char *option);

bool argument_given(const struct arguments *arguments, const char *option);

#endif
