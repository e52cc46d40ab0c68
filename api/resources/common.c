// SPDX-License-Identifier: BSD-2-Clause
#include "resources/common.h"

#include "base/text.h"
#include "resources/in_use.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_LIMIT 50
#define MAX_LIMIT     200
#define MAX_CURSOR    256 /* a name of 63 characters, of up to four bytes each */

static int load_json(const char *text, json_t **ret_json)
{
	json_t *json = json_loads(text, 0, NULL);

	if (!json)
		return -ENOMEM;
	*ret_json = json;
	return 0;
}

int answer_object(struct request *request, struct response *response, unsigned status, const char *sql,
		  int n_params, const char *const *params)
{
	_cleanup_result_ PGresult *rows = NULL;
	json_t *object;
	int r;

	r = db_query(request->db, &rows, sql, n_params, params);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 0)
		return refuse(response, 404, NULL, "there is no %.200s", request->path);
	r = load_json(PQgetvalue(rows, 0, 0), &object);
	if (r < 0)
		return r;
	response->json = object;
	response->status = status;
	return 0;
}

struct page {
	unsigned limit;
	char rows[16]; /* one more than the limit: whether there is a next page */
	char id[UUID_TEXT_SIZE];
	char name[MAX_CURSOR];
	bool begins; /* at the first */
};

/* Digits only: strtoul() would take " +5". */
int query_limit(const struct request *request, struct response *response, unsigned *ret_limit)
{
	const char *text = request_query(request, "limit");
	size_t digits = text ? strspn(text, "0123456789") : 0;
	unsigned long limit = text ? strtoul(text, NULL, 10) : DEFAULT_LIMIT;

	if (text && (digits == 0 || digits > 3 || text[digits] || limit < 1 || limit > MAX_LIMIT))
		return refuse(response, 422, "limit", "limit is \"%.32s\"; accepted is a number from 1 to %d",
			      text, MAX_LIMIT);
	*ret_limit = (unsigned)limit;
	return 0;
}

/* A cursor is "ID:NAME" of the last item of a page. */
static int read_page(struct request *request, struct response *response, struct page *page)
{
	const char *after = request_query(request, "after");
	int r = query_limit(request, response, &page->limit);

	if (r < 0)
		return r;
	snprintf(page->rows, sizeof(page->rows), "%u", page->limit + 1);
	page->begins = !after || !*after;
	if (page->begins)
		return 0;
	snprintf(page->id, sizeof(page->id), "%s", after);
	if (strlen(after) < sizeof(page->id) || after[36] != ':' || !is_uuid(page->id) ||
	    strlen(after + 37) >= sizeof(page->name))
		return refuse(response, 422, "after",
			      "after is \"%.64s\"; accepted is the \"next\" of a page", after);
	snprintf(page->name, sizeof(page->name), "%s", after + 37);
	return 0;
}

static int fill_page(const PGresult *rows, unsigned limit, struct response *response)
{
	unsigned n = (unsigned)PQntuples(rows);
	json_t *items = json_array(), *next = NULL;
	int r = items ? 0 : -ENOMEM;

	for (unsigned i = 0; i < n && i < limit && r == 0; i++) {
		json_t *object = NULL;

		r = load_json(PQgetvalue(rows, (int)i, 0), &object);
		if (r == 0)
			json_array_append_new(items, object);
	}
	if (n > limit)
		next = json_sprintf("%s:%s", db_value(rows, (int)limit - 1, "id"),
				    db_value(rows, (int)limit - 1, "name"));
	response->json = json_pack("{s:o, s:o?}", "items", items, "next", next);
	response->status = 200;
	return response->json ? r : -ENOMEM;
}

int answer_page(struct request *request, struct response *response, const char *sql, int n_params,
		const char *const *params)
{
	_cleanup_result_ PGresult *rows = NULL;
	struct page page = {0};
	const char *all[9];
	int r;

	r = read_page(request, response, &page);
	if (r < 0)
		return r;
	all[0] = page.begins ? NULL : page.name;
	all[1] = page.begins ? NULL : page.id;
	all[2] = page.rows;
	for (int i = 0; i < n_params; i++)
		all[3 + i] = params[i];
	r = db_query(request->db, &rows, sql, 3 + n_params, all);
	return r < 0 ? r : fill_page(rows, page.limit, response);
}

int answer_nothing(struct response *response)
{
	response->status = 204;
	return 0;
}

static const struct {
	const char *word, *path, *find, *remove;
} nouns[] = {
#define NOUN(word, path, table)                                                                              \
	{                                                                                                    \
		word, path,                                                                                  \
			"SELECT id FROM gateway." table                                                      \
			" WHERE id = $2 OR name = $1 ORDER BY id = $2 DESC LIMIT 1",                         \
			"DELETE FROM gateway." table " WHERE id = $1"                                        \
	}
	[IMAGE] = NOUN("an image", "/v1/images", "image"),
	[PLAN] = NOUN("a plan", "/v1/plans", "plan"),
	[PLAN_GROUP] = NOUN("a plan group", "/v1/plan-groups", "plan_group"),
	[LOCATION] = NOUN("a location", "/v1/locations", "location"),
	[HYPERVISOR] = NOUN("a hypervisor", "/v1/hypervisors", "hypervisor"),
	[USER] = NOUN("a user", "/v1/users", "app_user"),
#undef NOUN
};

int refuse_unknown_noun(struct response *response, enum noun noun, const char *key)
{
	return refuse(response, 404, NULL, "\"%.64s\" is not the id or name of %s", key, nouns[noun].word);
}

int find_noun(struct request *request, struct response *response, enum noun noun, const char *field,
	      const char *key, char ret_id[static UUID_TEXT_SIZE])
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(request->db, &rows, nouns[noun].find, key, is_uuid(key) ? key : NULL);
	if (r < 0)
		return r;
	if (PQntuples(rows) == 1) {
		snprintf(ret_id, UUID_TEXT_SIZE, "%s", PQgetvalue(rows, 0, 0));
		return 0;
	}
	if (!field)
		return refuse_unknown_noun(response, noun, key);
	return refuse(response, 422, field, "%s is \"%.64s\"; accepted is the id or name of %s (GET %s)",
		      field, key, nouns[noun].word, nouns[noun].path);
}

const char *external_id(const struct request *request, struct response *response)
{
	const char *id = request->arguments[0];

	if (is_text(id, MAX_EXTERNAL_ID))
		return id;
	(void)refuse(response, 422, "external_id",
		     "external_id is \"%.64s\" (%zu characters); accepted are 1 to %d printable characters",
		     id, text_length(id), MAX_EXTERNAL_ID);
	return NULL;
}

int get_noun(struct request *request, struct response *response, enum noun noun, answer_fn answer)
{
	char id[UUID_TEXT_SIZE];
	int r = find_noun(request, response, noun, NULL, request->arguments[0], id);

	return r < 0 ? r : answer(request, response, 200, id);
}

int finish_change(struct request *request, struct response *response, unsigned status, const char *action,
		  const char *id, answer_fn answer)
{
	int r = audit(request, action, request->path, NULL, request->body);

	if (r == 0)
		r = answer(request, response, status, id);
	return r < 0 ? r : db_commit(request->db);
}

/* Behind a constraint that refused the deletion is somebody who came since the check. */
int refuse_deletion(struct request *request, struct response *response, enum noun noun, const char *id,
		    const char *key)
{
	int r;

	db_rollback(request->db);
	r = check_unused(request, response, noun, id, key);
	return r < 0 ? r : -EAGAIN;
}

int delete_noun(struct request *request, struct response *response, enum noun noun)
{
	const char *key = request->arguments[0];
	char id[UUID_TEXT_SIZE];
	int r;

	r = find_noun(request, response, noun, NULL, key, id);
	if (r == 0)
		r = check_unused(request, response, noun, id, key);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(request->db, nouns[noun].remove, id);
	if (r == -EDOM)
		return refuse_deletion(request, response, noun, id, key);
	if (r >= 0)
		r = audit(request, "delete", request->path, NULL, NULL);
	if (r == 0)
		r = db_commit(request->db);
	return r < 0 ? r : answer_nothing(response);
}

int audit(struct request *request, const char *action, const char *object, const char *owner,
	  const json_t *detail)
{
	_cleanup_free_ char *text = detail ? json_dumps(detail, JSON_COMPACT) : NULL;
	int r;

	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.audit (actor, address, owner, action, object, detail) "
		       "VALUES ($1, $2, $3, $4, $5, coalesce($6::jsonb, '{}'))",
		       or_null(request->principal.user), or_null(request->client_address),
		       or_null(owner ? owner : ""), action, object, text);
	return r < 0 ? r : 0;
}

const char *sees_infrastructure(const struct request *request)
{
	const struct principal *who = &request->principal;
	bool acts = who->role == ROLE_SERVICE && strcmp(who->owner, who->user) != 0;

	return who->role == ROLE_ADMIN || (who->role == ROLE_SERVICE && !acts) ? "true" : "false";
}

const char *or_null(const char *text)
{
	return *text ? text : NULL;
}

void uuid_generate(char ret_id[static UUID_TEXT_SIZE])
{
	uint8_t b[16];

	randombytes_buf(b, sizeof(b));
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(ret_id, UUID_TEXT_SIZE,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
		 b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}
