// SPDX-License-Identifier: BSD-2-Clause
/* A request's query is as strict as its body: what is not known is a mistake, and not what was meant. */
#include "base/text.h"
#include "exchange.h"
#include "resources/form.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_PARAMETERS 8

struct query_check {
	const char *accepted;
	struct response *response;
	const char *seen[MAX_PARAMETERS];
	size_t n_seen;
	int error;
};

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

static bool was_seen(const struct query_check *check, const char *name)
{
	for (size_t i = 0; i < check->n_seen; i++) {
		if (strcmp(check->seen[i], name) == 0)
			return true;
	}
	return false;
}

static int check_parameter(struct query_check *check, const char *name, const char *value, size_t size)
{
	char words[200];

	if (!is_accepted(check->accepted, name))
		return refuse(check->response, 422, name,
			      "\"%.64s\" is no parameter of this query; accepted are: %s", name,
			      list_words(check->accepted, words, sizeof(words)));
	if (was_seen(check, name) || check->n_seen == MAX_PARAMETERS)
		return refuse(check->response, 422, name,
			      "%s is in the query more than once; accepted is one value", name);
	check->seen[check->n_seen++] = name;
	if (!value)
		return refuse(check->response, 422, name, "%s has no value; accepted is %s=VALUE", name,
			      name);
	if (strlen(value) != size || !text_is_printable(value))
		return refuse(check->response, 422, name,
			      "%s is \"%.64s\"; accepted are printable characters in UTF-8", name, value);
	return 0;
}

static enum MHD_Result on_parameter(void *context, enum MHD_ValueKind kind, const char *name,
				    size_t name_size, const char *value, size_t value_size)
{
	struct query_check *check = context;

	(void)kind;
	(void)name_size;
	/* "?a=1&" and "?&a=1" have nothing between. */
	if (!*name && !value)
		return MHD_YES;
	check->error = check_parameter(check, name, value, value_size);
	return check->error == 0 ? MHD_YES : MHD_NO;
}

int request_check_query(const struct request *request, const char *accepted, struct response *response)
{
	const struct exchange *exchange = request->transport;
	struct query_check check = {.accepted = accepted ? accepted : "", .response = response};

	if (strcmp(check.accepted, QUERY_ANY) == 0)
		return 0;
	(void)MHD_get_connection_values_n(exchange->connection, MHD_GET_ARGUMENT_KIND, on_parameter, &check);
	return check.error;
}
