// SPDX-License-Identifier: BSD-2-Clause
/* What handlers ask of the request that they answer, and how they hand it back: it touches its exchange only.
 */
#include "base/clock.h"
#include "exchange.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JSON_DEPTH 32

const char *request_header(const struct request *request, const char *name)
{
	const struct exchange *exchange = request->transport;

	return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

/* jansson recurses; its own bound is in the thousands. */
static bool is_too_deep(const char *text, size_t length)
{
	unsigned depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < length; i++) {
		if (in_string && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			in_string = !in_string;
		else if (!in_string && (text[i] == '{' || text[i] == '[') && ++depth > MAX_JSON_DEPTH)
			return true;
		else if (!in_string && (text[i] == '}' || text[i] == ']') && depth > 0)
			depth--;
	}
	return false;
}

static const char *name_error(enum json_error_code code)
{
	switch (code) {
	case json_error_duplicate_key:
		return "a member that was there before ends";
	case json_error_numeric_overflow:
		return "a number that is too large (accepted are integers of 64 bits) ends";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "a NUL character that is not accepted ends";
	case json_error_invalid_utf8:
		return "there is no UTF-8";
	default:
		return "error";
	}
}

int request_parse(struct request *request, const char *text, size_t length, struct response *response)
{
	struct exchange *exchange = request->transport;
	json_error_t error;

	json_decref(exchange->json);
	exchange->json = NULL;
	request->body = NULL;
	response_reset(response);
	if (is_too_deep(text, length)) {
		response_problem(response, 400, NULL,
				 "the body's JSON is nested too deeply; accepted are %d levels",
				 MAX_JSON_DEPTH);
		return -EBADMSG;
	}
	exchange->json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	if (json_is_object(exchange->json)) {
		request->body = exchange->json;
		return 0;
	}
	if (exchange->json)
		response_problem(response, 400, NULL, "the body is not a JSON object");
	else /* the text of the error would quote the body, which may hold a secret */
		response_problem(response, 400, NULL, "the body is not valid JSON: %s at line %d, column %d",
				 name_error(json_error_code(&error)), error.line, error.column);
	return -EBADMSG;
}

void response_reset(struct response *response)
{
	json_decref(response->json);
	if (response->text && response->wipe)
		sodium_memzero(response->text, strlen(response->text));
	free(response->text);
	memset(response, 0, sizeof(*response));
}

int request_park(struct request *request, const char *key, unsigned seconds)
{
	struct exchange *exchange = request->transport;

	/* Woken for nothing, it keeps its first deadline. */
	if (exchange->park_until_ns == 0)
		exchange->park_until_ns = clock_boot_ns() + seconds * NSEC_PER_SEC;
	snprintf(exchange->park_key, sizeof(exchange->park_key), "%s", key);
	return HANDLER_PARK;
}

int request_collect(struct request *request, const struct collector *collector, void *prepared)
{
	if (request->prepared) /* of a try before */
		request->collector->free_prepared(request->prepared);
	request->prepared = prepared;
	request->collector = collector;
	return HANDLER_COLLECT;
}
