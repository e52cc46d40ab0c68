// SPDX-License-Identifier: BSD-2-Clause
#include "cli/help.h"

#include "cli/resource.h"

#include <string.h>

#define LEFT_WIDTH 40

void command_options(const struct command *command, const struct cli_option *ret_tables[static MAX_TABLES])
{
	unsigned used = 0;

	if (command->options)
		ret_tables[used++] = command->options;
	if (command->resource && (command->flags & COMMAND_BODY))
		ret_tables[used++] = command->resource->fields;
	for (unsigned i = 0; i < ARRAY_SIZE(COMMON_OPTIONS); i++) {
		if (command->flags & (1u << i))
			ret_tables[used++] = COMMON_OPTIONS[i];
	}
	ret_tables[used] = NULL;
}

static int print_name(FILE *file, const struct command *command)
{
	return fprintf(file, "%s%s%s%s%s", command->noun, command->verb ? " " : "",
		       command->verb ? command->verb : "", *command->arguments ? " " : "",
		       command->arguments);
}

static void print_summary(FILE *file, int used, const char *summary)
{
	if (used >= LEFT_WIDTH)
		fprintf(file, "\n%*s", LEFT_WIDTH, "");
	else
		fprintf(file, "%*s", LEFT_WIDTH - used, "");
	fprintf(file, "%s\n", summary);
}

static void print_command(FILE *file, const struct command *command)
{
	fputs("  ", file);
	print_summary(file, 2 + print_name(file, command), command->summary);
}

static void print_option(FILE *file, const struct cli_option *option)
{
	int used = fprintf(file, "  --%s", option->name);

	if (option->value)
		used += fprintf(file, " %s", option->value);
	print_summary(file, used, option->help);
}

/* "plan list|show|create|edit|delete": one line for all verbs of a noun. Returns its last entry. */
static const struct command *print_noun(FILE *file, const struct command *command)
{
	fprintf(file, "  %-12s", command->noun);
	for (;; command++) {
		fprintf(file, " %s", command->verb);
		if (!command[1].noun || strcmp(command[1].noun, command->noun) != 0)
			break;
	}
	fputc('\n', file);
	return command;
}

void help_all(FILE *file)
{
	fputs("Usage: wiretoll COMMAND [OPTIONS]\n\nMetered WireGuard gateways.\n\n", file);
	for (const struct command *command = COMMANDS; command->noun; command++) {
		if (!command->verb)
			print_command(file, command);
	}
	fputs("\n  NOUN         VERB\n", file);
	for (const struct command *command = COMMANDS; command->noun; command++) {
		if (command->verb)
			command = print_noun(file, command);
	}
	fputs("\nEverywhere a name or an id will do; a peer is named GATEWAY/PEER. Reads take --json.\n"
	      "Of a word to choose as much is enough as makes it unique: --kind site.\n"
	      "`wiretoll COMMAND --help` shows a command's options; `wiretoll --version` the version.\n",
	      file);
}

void help_noun(FILE *file, const char *noun)
{
	fprintf(file, "Usage: wiretoll %s VERB [OPTIONS]\n\n", noun);
	for (const struct command *command = COMMANDS; command->noun; command++) {
		if (strcmp(command->noun, noun) == 0)
			print_command(file, command);
	}
	fprintf(file, "\n`wiretoll %s VERB --help` shows a verb's options.\n", noun);
}

/* "Usage: wiretoll gateway extra NAME GB [OPTIONS]" and what options there are. */
static void print_usage(FILE *file, const struct command *command,
			const struct cli_option *ret_tables[static MAX_TABLES])
{
	command_options(command, ret_tables);
	fputs("Usage: wiretoll ", file);
	print_name(file, command);
	fputs(ret_tables[0] ? " [OPTIONS]\n" : "\n", file);
}

void help_usage(FILE *file, const struct command *command)
{
	const struct cli_option *tables[MAX_TABLES];

	print_usage(file, command, tables);
	fprintf(file, "`wiretoll %s%s%s --help` shows more.\n", command->noun, command->verb ? " " : "",
		command->verb ? command->verb : "");
}

void help_command(FILE *file, const struct command *command)
{
	const struct cli_option *tables[MAX_TABLES];

	print_usage(file, command, tables);
	for (unsigned i = 0; tables[i]; i++) {
		if (i == 0)
			fputc('\n', file);
		for (const struct cli_option *option = tables[i]; option->name; option++)
			print_option(file, option);
	}
	if (command->note)
		fprintf(file, "\n%s", command->note);
}
