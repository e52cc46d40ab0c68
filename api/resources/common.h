/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the resources share. Objects are written as JSON by PostgreSQL: a query's first column is the object.
 * Functions that return -EBADMSG have put a problem into the response.
 */
#ifndef WIRETOLL_API_COMMON_H
#define WIRETOLL_API_COMMON_H

#include "resources/form.h"
#include "route.h"

/* Instants in objects: RFC 3339 in UTC with microseconds. */
#define SQL_TIME(expression)                                                                                 \
	"to_char((" expression ") AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
/* Decimals in objects: strings, without trailing zeros. */
#define SQL_DECIMAL(expression) "trim_scale(" expression ")::text"

/* Answers with the first column of the query's only row; 404 when there is none. */
WT_MUST_CHECK int answer_object(struct request *request, struct response *response, unsigned status,
				const char *sql, int n_params, const char *const *params);
#define ANSWER_OBJECT(request, response, status, sql, ...)                                                   \
	answer_object(request, response, status, sql, (int)ARRAY_SIZE(((const char *[]){__VA_ARGS__})),      \
		      (const char *[]){__VA_ARGS__})

/*
 * Answers with a page. The query's columns are object, name, id; $1 and $2 are name and id behind which it
 * begins (NULL: at the first), $3 the number of rows, then the caller's parameters (at most 6):
 * … WHERE ($1::text IS NULL OR (x.name, x.id) > ($1, $2::uuid)) … ORDER BY x.name, x.id LIMIT $3
 */
WT_MUST_CHECK int answer_page(struct request *request, struct response *response, const char *sql,
			      int n_params, const char *const *params);
#define SQL_AFTER(row) "($1::text IS NULL OR (" row ".name, " row ".id) > ($1, $2::uuid))"
#define SQL_PAGE(row)  " ORDER BY " row ".name, " row ".id LIMIT $3::bigint"

/* The page's size that the query asks for (?limit=), from 1 to 200, else 50. -EBADMSG with 422 otherwise. */
WT_MUST_CHECK int query_limit(const struct request *request, struct response *response, unsigned *ret_limit);

/* 204. */
int answer_nothing(struct response *response);

/* Things with a name of their own in the whole installation. */
enum noun { IMAGE, PLAN, PLAN_GROUP, LOCATION, HYPERVISOR, USER };

/*
 * The id of the thing that has this id or name. Unknown: 422 naming the body's field, or 404 when field is
 * NULL and the key came in the path.
 */
WT_MUST_CHECK int find_noun(struct request *request, struct response *response, enum noun noun,
			    const char *field, const char *key, char ret_id[static UUID_TEXT_SIZE]);

/* The 404 of find_noun(); returns -EBADMSG. */
int refuse_unknown_noun(struct response *response, enum noun noun, const char *key);

/*
 * The cloud's own id of a thing, out of the path of a PUT: NULL with 422 in the response when it is not text
 * of 1 to MAX_EXTERNAL_ID characters.
 */
#define MAX_EXTERNAL_ID 200
const char *external_id(const struct request *request, struct response *response);

/* Answers with the thing that has this id. */
typedef int (*answer_fn)(struct request *request, struct response *response, unsigned status, const char *id);

/* GET of a thing by its id or name in the path. */
WT_MUST_CHECK int get_noun(struct request *request, struct response *response, enum noun noun,
			   answer_fn answer);

/* A transaction has made or changed the thing: notes the action, answers with the thing, commits. */
WT_MUST_CHECK int finish_change(struct request *request, struct response *response, unsigned status,
				const char *action, const char *id, answer_fn answer);

/* DELETE of a thing by its id or name in the path: 204, or 409 naming what needs it. */
WT_MUST_CHECK int delete_noun(struct request *request, struct response *response, enum noun noun);

/* What to return when a constraint has refused the deletion: 409 naming who needs the thing, or -EAGAIN. */
WT_MUST_CHECK int refuse_deletion(struct request *request, struct response *response, enum noun noun,
				  const char *id, const char *key);

/* Writes who did what to what, in the transaction of the deed. detail: JSON or NULL, never with a secret. */
WT_MUST_CHECK int audit(struct request *request, const char *action, const char *object, const char *owner,
			const json_t *detail);

/*
 * "true" for whom the cloud's own things are shown: hypervisors, bridges and namespaces. They are no
 * customer's matter, nor a panel's that asks for one.
 */
const char *sees_infrastructure(const struct request *request);

/* NULL for an empty text: what SQL takes as "all owners". */
const char *or_null(const char *text);

/* UUIDs of this program's own making. */
void uuid_generate(char ret_id[static UUID_TEXT_SIZE]);

#endif
