// SPDX-License-Identifier: BSD-2-Clause
/* A command line of any words: options by table. */
#include "fuzz.h"

#include "cli/options.h"

#include <errno.h>

#define WORDS 40

static const struct cli_option table[] = {
	{"all", OPTION_FLAG, NULL, NULL, ""},
	{"none", OPTION_NULL, "limit", NULL, ""},
	{"name", OPTION_TEXT, "name", "NAME", ""},
	{"count", OPTION_INTEGER, "count", "N", ""},
	{"price", OPTION_AMOUNT, "price", "AMOUNT", ""},
	{"masquerade", OPTION_SWITCH, "masquerade", "on|off", ""},
	{"kind", OPTION_CHOICE, "kind", "road_warrior|site_to_site", ""},
	{"allow", OPTION_LIST, "allow", "CIDR,…", ""},
	{"subnet", OPTION_SUBNET, "subnets", "CIDR,…", ""},
	{"public", OPTION_PUBLIC_SUBNET, "public", "CIDR,…", ""},
	{0},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct cli_option *const tables[] = {table, NULL};
	char *text = text_of(data, size), *rest = text, *words[WORDS];
	struct json_problem problem = {0};
	struct arguments arguments;
	int count = 0, r;

	while (count < WORDS && (words[count] = strsep(&rest, "\n")))
		count++;
	r = arguments_parse(count, words, tables, &arguments, &problem);
	CLAIM(r == 0 || r == -EINVAL);
	if (r == 0) {
		CLAIM(arguments.positional_count <= MAX_POSITIONALS);
		CLAIM((int)(arguments.positional_count + arguments.given_count) <= count);
		for (unsigned i = 0; i < arguments.given_count; i++)
			CLAIM(argument_given(&arguments, arguments.given[i].option->name));
		cleanup_arguments(&arguments);
	} else {
		CLAIM(problem.message[0]);
	}
	free(text);
	return 0;
}
