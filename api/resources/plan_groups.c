// SPDX-License-Identifier: BSD-2-Clause
/* A3: ordered sets of plans. */
#include "resources/common.h"
#include "resources/offer.h"
#include "resources/resources.h"

#include <errno.h>
#include <stdio.h>

#define MAX_PLANS 100

#define PLAN_GROUP_OBJECT                                                                                    \
	"json_build_object('id', g.id, 'name', g.name, 'plans', (SELECT coalesce(json_agg(x.plan ORDER BY "  \
	"x.position), "                                                                                      \
	"'[]') FROM gateway.plan_group_plan x WHERE x.plan_group = g.id), 'plan_names', (SELECT "            \
	"coalesce(json_agg(p.name ORDER BY x.position), '[]') FROM gateway.plan_group_plan x JOIN "          \
	"gateway.plan p ON p.id = x.plan WHERE x.plan_group = g.id), 'created', " SQL_TIME("g.created") ")"

static int list_plan_groups(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT " PLAN_GROUP_OBJECT
			   ", g.name, g.id FROM gateway.plan_group g WHERE " SQL_AFTER("g") SQL_PAGE("g"),
			   0, NULL);
}

static int answer_plan_group(struct request *request, struct response *response, unsigned status,
			     const char *id)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " PLAN_GROUP_OBJECT " FROM gateway.plan_group g WHERE g.id = $1", id);
}

static int get_plan_group(struct request *request, struct response *response)
{
	return get_noun(request, response, PLAN_GROUP, answer_plan_group);
}

static int add_plan(struct request *request, struct response *response, const char *group, size_t index,
		    const json_t *value)
{
	char field[32], plan[UUID_TEXT_SIZE], position[24], shown[ITEM_TEXT_SIZE];
	int r;

	snprintf(field, sizeof(field), "plans[%zu]", index);
	snprintf(position, sizeof(position), "%zu", index + 1);
	if (!json_is_string(value))
		return refuse(response, 422, field, "%s is %s; accepted is the id or name of a plan", field,
			      show_item(value, shown));
	r = find_noun(request, response, PLAN, field, json_string_value(value), plan);
	if (r < 0)
		return r;
	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.plan_group_plan (plan_group, plan, position) VALUES ($1, $2, $3)",
		       group, plan, position);
	if (r == -EEXIST)
		return refuse(response, 422, field, "%s is \"%.64s\", which is named twice", field,
			      json_string_value(value));
	return r < 0 ? r : 0;
}

/* The plans of the group become these, in this order; NULL: they stay. */
static int replace_plans(struct request *request, struct response *response, const char *group,
			 const json_t *plans)
{
	size_t index;
	const json_t *value;
	int r;

	if (!plans)
		return 0;
	if (json_array_size(plans) > MAX_PLANS)
		return refuse(response, 422, "plans", "plans has %zu items; accepted are up to %d",
			      json_array_size(plans), MAX_PLANS);
	r = DB_EXECUTE(request->db, "DELETE FROM gateway.plan_group_plan WHERE plan_group = $1", group);
	json_array_foreach (plans, index, value) {
		if (r >= 0)
			r = add_plan(request, response, group, index, value);
	}
	return r < 0 ? r : 0;
}

/* The change has been made: check it, note it, answer with it. */
static int finish(struct request *request, struct response *response, unsigned status, const char *action,
		  const char *id)
{
	int r = offer_check(request, response);

	return r < 0 ? r : finish_change(request, response, status, action, id, answer_plan_group);
}

static int create_plan_group(struct request *request, struct response *response)
{
	struct form form = form_of(request, response);
	const char *name = form_title(&form, "name", REQUIRED);
	const json_t *plans = form_array(&form, "plans", OPTIONAL);
	char id[UUID_TEXT_SIZE];
	int r;

	uuid_generate(id);
	r = form_end(&form);
	if (r == 0)
		r = offer_begin(request);
	if (r == 0)
		r = DB_EXECUTE(request->db, "INSERT INTO gateway.plan_group (id, name) VALUES ($1, $2)", id,
			       name);
	if (r >= 0)
		r = replace_plans(request, response, id, plans);
	return r < 0 ? r : finish(request, response, 201, "create", id);
}

static int change_plan_group(struct request *request, struct response *response)
{
	struct form form = form_of(request, response);
	const char *name = form_title(&form, "name", OPTIONAL);
	const json_t *plans = form_array(&form, "plans", OPTIONAL);
	char id[UUID_TEXT_SIZE];
	int r;

	r = find_noun(request, response, PLAN_GROUP, NULL, request->arguments[0], id);
	if (r == 0)
		r = form_end(&form);
	if (r == 0)
		r = offer_begin(request);
	if (r == 0)
		r = DB_EXECUTE(request->db,
			       "UPDATE gateway.plan_group SET name = coalesce($2, name) WHERE id = $1", id,
			       name);
	if (r >= 0)
		r = replace_plans(request, response, id, plans);
	return r < 0 ? r : finish(request, response, 200, "change", id);
}

static int delete_plan_group(struct request *request, struct response *response)
{
	return delete_noun(request, response, PLAN_GROUP);
}

const struct route plan_group_routes[] = {
	{"GET", "/v1/plan-groups", ROLE_ADMIN, list_plan_groups, QUERY_PAGE},
	{"POST", "/v1/plan-groups", ROLE_ADMIN, create_plan_group, NULL},
	{"GET", "/v1/plan-groups/{group}", ROLE_ADMIN, get_plan_group, NULL},
	{"PATCH", "/v1/plan-groups/{group}", ROLE_ADMIN, change_plan_group, NULL},
	{"DELETE", "/v1/plan-groups/{group}", ROLE_ADMIN, delete_plan_group, NULL},
	{0},
};
