/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading a request's body. A form remembers the fields that are asked for and the first thing that is wrong;
 * form_end() tells it, or that the body has a field nobody asked for. Values are text, ready to be parameters
 * of SQL, and live as long as the form and the body. An absent or null field reads as NULL.
 */
#ifndef WIRETOLL_API_FORM_H
#define WIRETOLL_API_FORM_H

#include "route.h"

enum need { OPTIONAL, REQUIRED };

#define FORM_FIELDS   24
#define FORM_NUMBERS  8
#define FORM_NULLABLE 4

struct form {
	struct response *response;
	const json_t *body;
	const char *where; /* put before a field's name in messages: "subnets[1]." */
	int error;
	bool is_change; /* of what exists: a PATCH's body, not an object within it */
	size_t n_fields, n_numbers, n_nullable;
	const char *nullable[FORM_NULLABLE];
	const char *fields[FORM_FIELDS];
	char numbers[FORM_NUMBERS][24];
};

/* The whole body, or an object within it. */
struct form form_of(const struct request *request, struct response *response);
struct form form_within(const json_t *object, const char *where, struct response *response);

/*
 * Whether the field is there, be it null, which means "none" here: in a change, null is refused for all
 * others, as nothing would come of it.
 */
bool form_takes_null(struct form *form, const char *field);

/* Whether it is text of 1 to `max` characters, as text_is_printable() takes them. */
bool is_text(const char *text, size_t max);

/* Such text. */
const char *form_text(struct form *form, const char *field, enum need need, size_t max);
/* The same for a secret: the message does not quote it. */
const char *form_secret(struct form *form, const char *field, enum need need, size_t max);
/* The name of what an operator sells or runs: text of 1 to 63 characters, no space at an end, and no UUID. */
const char *form_title(struct form *form, const char *field, enum need need);
/* A name as it stands in paths and file names: [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}, and no UUID. */
const char *form_name(struct form *form, const char *field, enum need need);
/* One of the words; the list ends with NULL. */
const char *form_choice(struct form *form, const char *field, enum need need, const char *const *words);
const char *form_integer(struct form *form, const char *field, enum need need, int64_t min, int64_t max);
/* "true" or "false". */
const char *form_bool(struct form *form, const char *field, enum need need);
/* Not negative, at most 9 places and 10 digits before them, as a JSON string. */
const char *form_decimal(struct form *form, const char *field, enum need need);
const json_t *form_array(struct form *form, const char *field, enum need need);
const json_t *form_object(struct form *form, const char *field, enum need need);

/* An item of an array as a message shows it: quoted, or as JSON. */
#define ITEM_TEXT_SIZE 80
const char *show_item(const json_t *item, char buffer[static ITEM_TEXT_SIZE]);

/* Marks a field as wrong, unless something was wrong before. */
void form_refuse(struct form *form, const char *field, const char *format, ...) WT_PRINTF(3, 4);

/* 0, or -EBADMSG with the problem in the response. */
WT_MUST_CHECK int form_end(struct form *form);

/* Fills in a problem and returns -EBADMSG, so that helpers and handlers can `return refuse(…)`. */
int refuse(struct response *response, unsigned status, const char *field, const char *format, ...)
	WT_PRINTF(4, 5);

bool is_uuid(const char *text);

#endif
