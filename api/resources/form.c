// SPDX-License-Identifier: BSD-2-Clause
#include "resources/form.h"

#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECIMAL_DIGITS 10
#define DECIMAL_PLACES 9

struct form form_of(const struct request *request, struct response *response)
{
	struct form form = form_within(request->body, "", response);

	form.is_change = strcmp(request->method, "PATCH") == 0;
	return form;
}

struct form form_within(const json_t *object, const char *where, struct response *response)
{
	return (struct form){.response = response, .body = object, .where = where};
}

int refuse(struct response *response, unsigned status, const char *field, const char *format, ...)
{
	char detail[512];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	response_problem(response, status, field, "%s", detail);
	return -EBADMSG;
}

void form_refuse(struct form *form, const char *field, const char *format, ...)
{
	char detail[400], name[96];
	va_list args;

	if (form->error < 0)
		return;
	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	snprintf(name, sizeof(name), "%s%s", form->where, field);
	form->error = refuse(form->response, 422, name, "%s%s", form->where, detail);
}

bool form_takes_null(struct form *form, const char *field)
{
	if (form->n_nullable < FORM_NULLABLE)
		form->nullable[form->n_nullable++] = field;
	return json_object_get(form->body, field) != NULL;
}

static void remember(struct form *form, const char *field)
{
	if (form->n_fields < FORM_FIELDS)
		form->fields[form->n_fields++] = field;
}

/* What base/json.h's readers return: NULL for absent, and the problem kept. True when there is a value. */
static bool got(struct form *form, const char *field, enum need need, int result,
		const struct json_problem *problem)
{
	if (result == -ENOENT && need == REQUIRED)
		form_refuse(form, field, "%s is required", field);
	else if (result < 0 && result != -ENOENT)
		form_refuse(form, field, "%s", problem->message);
	return result == 0;
}

static const char *read_string(struct form *form, const char *field, enum need need)
{
	struct json_problem problem;
	const char *text;
	int r;

	remember(form, field);
	r = json_read_string(form->body, field, &text, &problem);
	return got(form, field, need, r, &problem) ? text : NULL;
}

bool is_text(const char *text, size_t max)
{
	return *text && text_is_printable(text) && text_length(text) <= max;
}

const char *form_text(struct form *form, const char *field, enum need need, size_t max)
{
	const char *text = read_string(form, field, need);

	if (!text || is_text(text, max))
		return text;
	form_refuse(form, field, "%s is \"%.64s\"; accepted are 1 to %zu printable characters", field, text,
		    max);
	return NULL;
}

const char *form_secret(struct form *form, const char *field, enum need need, size_t max)
{
	const json_t *value = json_object_get(form->body, field);
	const char *text;

	/* Of another type, too, it is not quoted: the secret may be within. */
	if (value && !json_is_null(value) && !json_is_string(value)) {
		remember(form, field);
		form_refuse(form, field, "%s (not quoted) is no string; accepted is one", field);
		return NULL;
	}
	text = read_string(form, field, need);
	if (!text || is_text(text, max))
		return text;
	form_refuse(form, field, "%s (not quoted) is not accepted: 1 to %zu printable characters are", field,
		    max);
	return NULL;
}

static bool is_title(const char *text)
{
	return is_text(text, 63) && *text != ' ' && text[strlen(text) - 1] != ' ' && !is_uuid(text);
}

const char *form_title(struct form *form, const char *field, enum need need)
{
	const char *text = read_string(form, field, need);

	if (!text || is_title(text))
		return text;
	form_refuse(
		form, field,
		"%s is \"%.64s\"; accepted are 1 to 63 printable characters, with no space at either end, "
		"that are no UUID",
		field, text);
	return NULL;
}

static bool is_name(const char *text)
{
	static const char characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

	return isalnum((unsigned char)*text) && strlen(text) <= 63 &&
	       text[strspn(text, characters)] == '\0' && !is_uuid(text);
}

const char *form_name(struct form *form, const char *field, enum need need)
{
	const char *text = read_string(form, field, need);

	if (!text || is_name(text))
		return text;
	form_refuse(form, field,
		    "%s is \"%.80s\"; accepted are 1 to 63 of a-z, A-Z, 0-9, \"_\", \".\", \"-\", beginning "
		    "with a letter "
		    "or digit, that are no UUID",
		    field, text);
	return NULL;
}

const char *form_choice(struct form *form, const char *field, enum need need, const char *const *words)
{
	const char *text = read_string(form, field, need);
	char accepted[200] = "";

	if (!text)
		return NULL;
	for (const char *const *word = words; *word; word++) {
		size_t used = strlen(accepted);

		if (strcmp(text, *word) == 0)
			return text;
		snprintf(accepted + used, sizeof(accepted) - used, "%s%s", used ? ", " : "", *word);
	}
	form_refuse(form, field, "%s is \"%.64s\"; accepted are: %s", field, text, accepted);
	return NULL;
}

const char *form_integer(struct form *form, const char *field, enum need need, int64_t min, int64_t max)
{
	struct json_problem problem;
	int64_t value;
	char *text;
	int r;

	remember(form, field);
	r = json_read_int(form->body, field, min, max, &value, &problem);
	if (!got(form, field, need, r, &problem) || form->n_numbers == FORM_NUMBERS)
		return NULL;
	text = form->numbers[form->n_numbers++];
	snprintf(text, sizeof(form->numbers[0]), "%" PRId64, value);
	return text;
}

const char *form_bool(struct form *form, const char *field, enum need need)
{
	struct json_problem problem;
	bool value;
	int r;

	remember(form, field);
	r = json_read_bool(form->body, field, &value, &problem);
	if (!got(form, field, need, r, &problem))
		return NULL;
	return value ? "true" : "false";
}

static bool is_decimal(const char *text)
{
	size_t digits = strspn(text, "0123456789"), places = 0;

	if (digits == 0 || digits > DECIMAL_DIGITS)
		return false;
	text += digits;
	if (*text == '.') {
		places = strspn(++text, "0123456789");
		text += places;
		if (places == 0 || places > DECIMAL_PLACES)
			return false;
	}
	return *text == '\0';
}

const char *form_decimal(struct form *form, const char *field, enum need need)
{
	static const char accepted[] =
		"accepted is a decimal of at most 10 digits and 9 places, as a string such as \"10.5\"";
	const json_t *value = json_object_get(form->body, field);
	const char *text;

	if (need == REQUIRED && (!value || json_is_null(value))) {
		form_refuse(form, field, "%s is required; %s", field, accepted);
		return NULL;
	}
	if (json_is_number(value)) {
		remember(form, field);
		form_refuse(form, field, "%s is the number %.12g; %s", field, json_number_value(value),
			    accepted);
		return NULL;
	}
	text = read_string(form, field, need);
	if (!text || is_decimal(text))
		return text;
	form_refuse(form, field, "%s is \"%.64s\"; %s", field, text, accepted);
	return NULL;
}

const json_t *form_array(struct form *form, const char *field, enum need need)
{
	struct json_problem problem;
	const json_t *array;
	int r;

	remember(form, field);
	r = json_read_array(form->body, field, &array, &problem);
	return got(form, field, need, r, &problem) ? array : NULL;
}

const json_t *form_object(struct form *form, const char *field, enum need need)
{
	struct json_problem problem;
	const json_t *object;
	int r;

	remember(form, field);
	r = json_read_object(form->body, field, &object, &problem);
	return got(form, field, need, r, &problem) ? object : NULL;
}

static bool is_known(const struct form *form, const char *field)
{
	for (size_t i = 0; i < form->n_fields; i++) {
		if (strcmp(form->fields[i], field) == 0)
			return true;
	}
	return false;
}

/* A mistyped field that is silently ignored would be a wrong price or an open door. */
static void refuse_unknown(struct form *form, const char *field)
{
	char accepted[300] = "";

	for (size_t i = 0; i < form->n_fields; i++) {
		size_t used = strlen(accepted);

		snprintf(accepted + used, sizeof(accepted) - used, "%s%s", used ? ", " : "", form->fields[i]);
	}
	form_refuse(form, field, "%.64s is no field here; accepted are: %s", field,
		    *accepted ? accepted : "none");
}

static bool is_nullable(const struct form *form, const char *field)
{
	for (size_t i = 0; i < form->n_nullable; i++) {
		if (strcmp(form->nullable[i], field) == 0)
			return true;
	}
	return false;
}

int form_end(struct form *form)
{
	const char *field;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)form->body, field, value) {
		if (form->error == 0 && !is_known(form, field))
			refuse_unknown(form, field);
		if (form->is_change && json_is_null(value) && !is_nullable(form, field))
			form_refuse(form, field, "%s is null; accepted is a value, or a body without it",
				    field);
	}
	return form->error;
}

const char *show_item(const json_t *item, char buffer[static ITEM_TEXT_SIZE])
{
	char *text = json_is_string(item) ? NULL : json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);

	if (json_is_string(item))
		snprintf(buffer, ITEM_TEXT_SIZE, "\"%.64s\"", json_string_value(item));
	else
		snprintf(buffer, ITEM_TEXT_SIZE, "%.64s", text ? text : "?");
	free(text);
	return buffer;
}

bool is_uuid(const char *text)
{
	for (size_t i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	}
	return text[36] == '\0';
}
