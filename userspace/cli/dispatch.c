// SPDX-License-Identifier: BSD-2-Clause
#include "cli/commands.h"

#include "base/json.h"
#include "cli/help.h"
#include "cli/output.h"

#include <curl/curl.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE 2

static int complain(const char *problem, int exit_code)
{
	fputs("wiretoll: ", stderr);
	text_print(stderr, problem);
	fputc('\n', stderr);
	return exit_code;
}

static int wrong_usage(const struct command *command, const char *problem)
{
	complain(problem, EXIT_USAGE);
	help_usage(stderr, command);
	return EXIT_USAGE;
}

/* Whether the argument count fits "NAME GB" or "[NAME]". */
static bool count_fits(const struct command *command, unsigned count)
{
	unsigned least = 0, most = 0;

	for (const char *word = command->arguments; *word; word += strspn(word, " ")) {
		least += *word != '[';
		most++;
		word += strcspn(word, " ");
	}
	return count >= least && count <= most;
}

/* An empty name would ask for the list that its path begins with. */
static bool has_empty_argument(const struct arguments *arguments)
{
	for (unsigned i = 0; i < arguments->positional_count; i++) {
		if (*arguments->positional[i] == '\0')
			return true;
	}
	return false;
}

static int run(const struct command *command, const struct arguments *arguments)
{
	_cleanup_session_ struct session session = {0};
	int r = 0;

	if (!(command->flags & COMMAND_ANONYMOUS))
		r = session_open(&session);
	if (r == 0)
		r = command->run(&session, command, arguments);
	if (r == WRONG_USAGE)
		return wrong_usage(command, session.problem);
	if (r < 0)
		return complain(session.problem, EXIT_FAILURE);
	if (fflush(stdout) != 0 || ferror(stdout))
		return complain("could not write the output", EXIT_FAILURE);
	return EXIT_SUCCESS;
}

static bool asks_for_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	}
	return false;
}

/* argv begins behind the command's words. */
static int parse_and_run(const struct command *command, int argc, char **argv)
{
	_cleanup_arguments_ struct arguments arguments = {0};
	const struct cli_option *tables[MAX_TABLES];
	struct json_problem problem;
	char text[160];
	int r;

	if (asks_for_help(argc, argv)) {
		help_command(stdout, command);
		return EXIT_SUCCESS;
	}
	command_options(command, tables);
	r = arguments_parse(argc, argv, tables, &arguments, &problem);
	if (r == -ENOMEM)
		return complain("out of memory", EXIT_FAILURE);
	if (r < 0)
		return wrong_usage(command, problem.message);
	if (!count_fits(command, arguments.positional_count)) {
		snprintf(text, sizeof(text), "%s%s%s takes %s, not %u argument%s", command->noun,
			 command->verb ? " " : "", command->verb ? command->verb : "",
			 *command->arguments ? command->arguments : "no arguments",
			 arguments.positional_count, arguments.positional_count == 1 ? "" : "s");
		return wrong_usage(command, text);
	}
	if (has_empty_argument(&arguments)) {
		snprintf(text, sizeof(text), "an argument is empty; accepted is %s", command->arguments);
		return wrong_usage(command, text);
	}
	return run(command, &arguments);
}

/* The entry for noun and verb. *ret_knows_noun says whether another verb would have fitted. */
static const struct command *find_command(const char *noun, const char *verb, bool *ret_knows_noun)
{
	*ret_knows_noun = false;
	for (const struct command *command = COMMANDS; command->noun; command++) {
		if (strcmp(command->noun, noun) != 0)
			continue;
		*ret_knows_noun = true;
		if (!command->verb || (verb && strcmp(command->verb, verb) == 0))
			return command;
	}
	return NULL;
}

static int unknown_command(const char *noun, const char *verb, bool knows_noun)
{
	char text[160];

	if (!knows_noun) {
		snprintf(text, sizeof(text), "unknown command \"%.60s\"; `wiretoll --help` lists them", noun);
		return complain(text, EXIT_USAGE);
	}
	if (verb && asks_for_help(1, (char **)&verb)) {
		help_noun(stdout, noun);
		return EXIT_SUCCESS;
	}
	if (verb)
		snprintf(text, sizeof(text), "%s has no verb \"%.60s\"", noun, verb);
	else
		snprintf(text, sizeof(text), "%s needs a verb", noun);
	complain(text, EXIT_USAGE);
	fprintf(stderr, "`wiretoll %s --help` lists its verbs.\n", noun);
	return EXIT_USAGE;
}

static int dispatch(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[2] : NULL;
	const struct command *command;
	bool knows_noun;

	command = find_command(argv[1], verb, &knows_noun);
	if (!command)
		return unknown_command(argv[1], verb, knows_noun);
	if (command->program)
		return command->program(argc - 1, argv + 1);
	return command->verb ? parse_and_run(command, argc - 3, argv + 3)
			     : parse_and_run(command, argc - 2, argv + 2);
}

int cli_run(int argc, char **argv)
{
	int exit_code;

	if (argc < 2) {
		help_all(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		help_all(stdout);
		return EXIT_SUCCESS;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("wiretoll " WIRETOLL_VERSION);
		return EXIT_SUCCESS;
	}
	json_wipe_what_is_freed();
	if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return complain("could not start the libraries for keys and HTTPS", EXIT_FAILURE);
	exit_code = dispatch(argc, argv);
	curl_global_cleanup();
	return exit_code;
}
