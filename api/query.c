// SPDX-License-Identifier: BSD-2-Clause
/* A request's query is as strict as its body: what is not known is a mistake, and not what was meant. */
#include "base/text.h"
#include "exchange.h"
#include "resources/form.h"
#include "url.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Whether url_decode() takes it. */
static bool is_encoded(const char *text)
{
	static const char digits[] = "0123456789abcdefABCDEF";

	while ((text = strchr(text, '%'))) {
		if (strspn(text + 1, digits) < 2 || strncmp(text + 1, "00", 2) == 0)
			return false;
		text++;
	}
	return true;
}

/* As forms write it: "+" is a space. Returns false, and changes nothing, where it is malformed. */
static bool decode(char *text)
{
	if (!is_encoded(text))
		return false;
	for (char *plus = text; (plus = strchr(plus, '+'));)
		*plus = ' ';
	return url_decode(text) == 0;
}

void query_read(struct exchange *exchange)
{
	char *rest = exchange->query, *name, *value;

	while ((name = strsep(&rest, "&"))) {
		struct parameter *parameter = &exchange->parameters[exchange->n_parameters];
		bool good;

		/* "?a=1&" and "?&a=1" have nothing between. */
		if (!*name)
			continue;
		if (exchange->n_parameters == MAX_PARAMETERS) {
			exchange->has_more_parameters = true;
			return;
		}
		value = strchr(name, '=');
		if (value)
			*value++ = '\0';
		good = decode(name);
		if (value && !decode(value))
			good = false;
		*parameter = (struct parameter){.name = name, .value = value, .is_malformed = !good};
		exchange->n_parameters++;
	}
}

const char *request_query(const struct request *request, const char *name)
{
	const struct exchange *exchange = request->transport;

	for (size_t i = 0; i < exchange->n_parameters; i++) {
		if (strcmp(exchange->parameters[i].name, name) == 0)
			return exchange->parameters[i].value;
	}
	return NULL;
}

/* Whether the name is one of the words of `accepted`. */
static bool is_accepted(const char *accepted, const char *name)
{
	size_t length = strlen(name);

	while (length > 0 && *accepted) {
		size_t word = strcspn(accepted, " ");

		if (word == length && memcmp(accepted, name, word) == 0)
			return true;
		accepted += word + strspn(accepted + word, " ");
	}
	return false;
}

/* "limit after" as "limit, after". */
static const char *list_words(const char *accepted, char *buffer, size_t size)
{
	size_t used = 0;

	for (; *accepted && used + 3 < size; accepted++) {
		if (*accepted == ' ')
			buffer[used++] = ',';
		buffer[used++] = *accepted;
	}
	buffer[used] = '\0';
	return used > 0 ? buffer : "none";
}

static bool was_seen(const struct exchange *exchange, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (strcmp(exchange->parameters[i].name, exchange->parameters[index].name) == 0)
			return true;
	}
	return false;
}

static int check_parameter(const struct exchange *exchange, size_t index, const char *accepted,
			   struct response *response)
{
	const struct parameter *parameter = &exchange->parameters[index];
	const char *name = parameter->name, *value = parameter->value;
	char words[200];

	if (!is_accepted(accepted, name))
		return refuse(response, 422, name,
			      "\"%.64s\" is no parameter of this query; accepted are: %s", name,
			      list_words(accepted, words, sizeof(words)));
	if (was_seen(exchange, index))
		return refuse(response, 422, name, "%s is in the query more than once; accepted is one value",
			      name);
	if (!value)
		return refuse(response, 422, name, "%s has no value; accepted is %s=VALUE", name, name);
	if (parameter->is_malformed)
		return refuse(response, 422, name,
			      "%s is \"%.64s\", with a %% that begins no character; accepted are printable "
			      "characters in UTF-8, a %% as %%25",
			      name, value);
	if (!text_is_printable(value))
		return refuse(response, 422, name,
			      "%s is \"%.64s\"; accepted are printable characters in UTF-8", name, value);
	return 0;
}

int request_check_query(const struct request *request, const char *accepted, struct response *response)
{
	const struct exchange *exchange = request->transport;
	char words[200];
	int r = 0;

	accepted = accepted ? accepted : "";
	if (strcmp(accepted, QUERY_ANY) == 0)
		return 0;
	for (size_t i = 0; i < exchange->n_parameters && r == 0; i++)
		r = check_parameter(exchange, i, accepted, response);
	if (r == 0 && exchange->has_more_parameters)
		r = refuse(response, 422, NULL, "the query has more than %d parameters; accepted are: %s",
			   MAX_PARAMETERS, list_words(accepted, words, sizeof(words)));
	return r;
}
