// SPDX-License-Identifier: BSD-2-Clause
#include "cli/options.h"

#include "cli/values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void cleanup_arguments(struct arguments *arguments)
{
	json_decref(arguments->fields);
	arguments->fields = NULL;
}

static bool is_flag(const struct cli_option *option)
{
	return option->kind == OPTION_FLAG || option->kind == OPTION_NULL;
}

static const struct cli_option *find_option(const struct cli_option *const *tables, const char *name,
					    size_t length)
{
	for (; *tables; tables++) {
		for (const struct cli_option *option = *tables; option->name; option++) {
			if (strncmp(option->name, name, length) == 0 && option->name[length] == '\0')
				return option;
		}
	}
	return NULL;
}

static int wrong_value(const struct cli_option *option, const char *text, const char *accepted,
		       struct json_problem *problem)
{
	json_problem_set(problem, option->name, "--%s is \"%.80s\"; accepted is %s", option->name, text,
			 accepted);
	return -EINVAL;
}

static int list_append(json_t *fields, const struct cli_option *option, json_t *item)
{
	json_t *list = json_object_get(fields, option->field);

	if (!list) {
		list = json_array();
		if (json_object_set_new(fields, option->field, list) < 0) {
			json_decref(item);
			return -ENOMEM;
		}
	}
	return item && json_array_append_new(list, item) < 0 ? -ENOMEM : 0;
}

static int append_words(json_t *fields, const struct cli_option *option, const char *text,
			struct json_problem *problem)
{
	_cleanup_free_ char *copy = strdup(text);
	char *rest = copy, *word;
	int r;

	if (!copy)
		return -ENOMEM;
	if (*text == '\0')
		return list_append(fields, option, NULL);
	while ((word = strsep(&rest, ","))) {
		if (*word == '\0')
			return wrong_value(option, text, "words with single commas between them", problem);
		r = list_append(fields, option, json_string(word));
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_integer(const struct cli_option *option, const char *text, json_t **ret,
			struct json_problem *problem)
{
	int64_t number;

	if (integer_parse(text, &number) < 0)
		return wrong_value(option, text, "a whole number, 0 or more", problem);
	*ret = json_integer(number);
	return 0;
}

static int read_choice(const struct cli_option *option, const char *text, json_t **ret,
		       struct json_problem *problem)
{
	_cleanup_free_ char *word = NULL;
	int r = choice_parse(option->value, text, &word);

	if (r == -EINVAL)
		return wrong_value(option, text, option->value, problem);
	if (r < 0)
		return r;
	*ret = json_string(word);
	return 0;
}

/* The JSON of a value that stands alone. */
static int read_value(const struct cli_option *option, const char *text, json_t **ret,
		      struct json_problem *problem)
{
	bool on;

	switch (option->kind) {
	case OPTION_FLAG:
		*ret = json_true();
		return 0;
	case OPTION_NULL:
		*ret = json_null();
		return 0;
	case OPTION_INTEGER:
		return read_integer(option, text, ret, problem);
	case OPTION_AMOUNT:
		if (amount_check(text) < 0)
			return wrong_value(option, text, "a decimal such as 10.5, at most 9 places", problem);
		break;
	case OPTION_SWITCH:
		if (switch_parse(text, &on) < 0)
			return wrong_value(option, text, "on or off", problem);
		*ret = json_boolean(on);
		return 0;
	case OPTION_CHOICE:
		return read_choice(option, text, ret, problem);
	default:
		break;
	}
	*ret = json_string(text);
	if (!*ret)
		return wrong_value(option, "…", "UTF-8 text", problem);
	return 0;
}

static int set_field(json_t *fields, const struct cli_option *option, const char *text,
		     struct json_problem *problem)
{
	json_t *value = NULL;
	int r;

	if (option->kind == OPTION_LIST)
		return append_words(fields, option, text, problem);
	if (option->kind == OPTION_SUBNET || option->kind == OPTION_PUBLIC_SUBNET) {
		r = subnet_parse(text, option->kind == OPTION_PUBLIC_SUBNET, &value, problem);
		return r < 0 ? r : list_append(fields, option, value);
	}
	if (json_object_get(fields, option->field)) {
		json_problem_set(problem, option->field, "--%s: %s is set twice", option->name,
				 option->field);
		return -EINVAL;
	}
	r = read_value(option, text, &value, problem);
	if (r < 0)
		return r;
	return json_object_set_new(fields, option->field, value) < 0 ? -ENOMEM : 0;
}

/* Values for the command itself are checked, too; only fields are kept as JSON. */
static int take_value(struct arguments *arguments, const struct cli_option *option, const char *text,
		      struct json_problem *problem)
{
	_cleanup_json_ json_t *checked = NULL;

	if (arguments->given_count == MAX_GIVEN) {
		json_problem_set(problem, "", "more than %d options", MAX_GIVEN);
		return -EINVAL;
	}
	arguments->given[arguments->given_count++] = (struct given_option){option, text};
	if (option->field)
		return set_field(arguments->fields, option, text, problem);
	if (!is_flag(option) && *text == '\0')
		return wrong_value(option, text, "a value that is not empty", problem);
	return read_value(option, text, &checked, problem);
}

/* Takes one option, at argv[*index], and its value. */
static int take_option(struct arguments *arguments, int argc, char **argv, int *index,
		       const struct cli_option *const *tables, struct json_problem *problem)
{
	const char *name = argv[*index] + 2, *value = "";
	const char *equals = strchr(name, '=');
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	const struct cli_option *option = find_option(tables, name, length);

	if (strncmp(argv[*index], "--", 2) != 0 || !option) {
		/* Behind an equals sign may stand a secret that was never to be here. */
		json_problem_set(problem, "", "unknown option %.*s", (int)(length + 2), argv[*index]);
		return -EINVAL;
	}
	if (equals && is_flag(option)) {
		json_problem_set(problem, option->name, "--%s takes no value", option->name);
		return -EINVAL;
	}
	if (equals) {
		value = equals + 1;
	} else if (!is_flag(option)) {
		if (++*index >= argc) {
			json_problem_set(problem, option->name, "--%s needs a value: %s", option->name,
					 option->value);
			return -EINVAL;
		}
		value = argv[*index];
	}
	return take_value(arguments, option, value, problem);
}

int arguments_parse(int argc, char **argv, const struct cli_option *const *tables, struct arguments *ret,
		    struct json_problem *problem)
{
	_cleanup_arguments_ struct arguments arguments = {.fields = json_object()};
	bool options_ended = false;
	int r;

	if (!arguments.fields)
		return -ENOMEM;
	for (int i = 0; i < argc; i++) {
		if (!options_ended && strcmp(argv[i], "--") == 0) {
			options_ended = true;
		} else if (!options_ended && argv[i][0] == '-' && argv[i][1] != '\0') {
			r = take_option(&arguments, argc, argv, &i, tables, problem);
			if (r < 0)
				return r;
		} else if (arguments.positional_count == MAX_POSITIONALS) {
			json_problem_set(problem, "", "too many arguments");
			return -EINVAL;
		} else {
			arguments.positional[arguments.positional_count++] = argv[i];
		}
	}
	*ret = arguments;
	arguments.fields = NULL;
	return 0;
}

const char *argument_value(const struct arguments *arguments, const char *option)
{
	for (unsigned i = arguments->given_count; i-- > 0;) {
		if (strcmp(arguments->given[i].option->name, option) == 0)
			return arguments->given[i].value;
	}
	return NULL;
}

bool argument_given(const struct arguments *arguments, const char *option)
{
	return argument_value(arguments, option) != NULL;
}
