// SPDX-License-Identifier: BSD-2-Clause
/* A2: plans. included_gb null is unlimited; credit_value null is the location's. */
#include "resources/common.h"
#include "resources/offer.h"
#include "resources/resources.h"

#include <string.h>

#define PLAN_OBJECT                                                                                          \
	"json_build_object('id', p.id, 'name', p.name, 'cpu', p.cpu, 'ram_mb', p.ram_mb, 'storage_gb', "     \
	"p.storage_gb, "                                                                                     \
	"'included_gb', " SQL_DECIMAL("p.included_gb") ", 'credit_value', " SQL_DECIMAL(                     \
		"p.credit_value") ", "                                                                       \
				  "'created', " SQL_TIME("p.created") ")"

#define MAX_INCLUDED_GB "9000000000"

struct plan {
	const char *name, *cpu, *ram_mb, *storage_gb, *included_gb, *credit_value;
	const char *has_included_gb, *has_credit_value; /* "true" when the body names it, be it null */
	struct form form;                               /* keeps the numbers' text */
};

/* As bytes, it is to be less than 2^63. */
static bool fits(const char *included_gb)
{
	static const char most[] = MAX_INCLUDED_GB;
	size_t zeros = strspn(included_gb, "0"), digits = strspn(included_gb + zeros, "0123456789");
	int order = strncmp(included_gb + zeros, most, strlen(most));

	if (digits != strlen(most))
		return digits < strlen(most);
	return order < 0 || (order == 0 && !strpbrk(included_gb + zeros + digits, "123456789"));
}

static int read_plan(struct request *request, struct response *response, enum need need, struct plan *plan)
{
	struct form *form = &plan->form;
	bool has_included_gb;

	*form = form_of(request, response);
	plan->name = form_title(form, "name", need);
	plan->cpu = form_integer(form, "cpu", need, 1, 1024);
	plan->ram_mb = form_integer(form, "ram_mb", need, 1, 16 * 1024 * 1024);
	plan->storage_gb = form_integer(form, "storage_gb", need, 1, 1024 * 1024);
	plan->included_gb = form_decimal(form, "included_gb", OPTIONAL);
	has_included_gb = form_takes_null(form, "included_gb");
	if (plan->included_gb && !fits(plan->included_gb))
		form_refuse(form, "included_gb",
			    "included_gb is \"%s\"; accepted is a decimal up to " MAX_INCLUDED_GB
			    ", or null for unlimited bandwidth",
			    plan->included_gb);
	if (need == REQUIRED && !has_included_gb)
		form_refuse(form, "included_gb",
			    "included_gb is required; accepted is a decimal such as \"10.5\", or null for "
			    "unlimited bandwidth");
	plan->credit_value = form_decimal(form, "credit_value", OPTIONAL);
	plan->has_included_gb = has_included_gb ? "true" : "false";
	plan->has_credit_value = form_takes_null(form, "credit_value") ? "true" : "false";
	return form_end(form);
}

static int list_plans(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT " PLAN_OBJECT ", p.name, p.id FROM gateway.plan p WHERE " SQL_AFTER("p")
				   SQL_PAGE("p"),
			   0, NULL);
}

static int answer_plan(struct request *request, struct response *response, unsigned status, const char *id)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " PLAN_OBJECT " FROM gateway.plan p WHERE p.id = $1", id);
}

static int get_plan(struct request *request, struct response *response)
{
	return get_noun(request, response, PLAN, answer_plan);
}

static int create_plan(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	struct plan plan;
	int r;

	uuid_generate(id);
	r = read_plan(request, response, REQUIRED, &plan);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(request->db,
			       "INSERT INTO gateway.plan (id, name, cpu, ram_mb, storage_gb, included_gb, "
			       "credit_value) "
			       "VALUES ($1, $2, $3, $4, $5, $6, $7)",
			       id, plan.name, plan.cpu, plan.ram_mb, plan.storage_gb, plan.included_gb,
			       plan.credit_value);
	return r < 0 ? r : finish_change(request, response, 201, "create", id, answer_plan);
}

/* Gateways that exist keep allowance and price in their bucket until the next cycle. */
static int change_plan(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	struct plan plan;
	int r;

	r = find_noun(request, response, PLAN, NULL, request->arguments[0], id);
	if (r == 0)
		r = read_plan(request, response, OPTIONAL, &plan);
	if (r == 0)
		r = offer_begin(request);
	if (r == 0)
		r = DB_EXECUTE(request->db,
			       "UPDATE gateway.plan SET name = coalesce($2, name), cpu = coalesce($3, cpu), "
			       "ram_mb = coalesce($4, ram_mb), storage_gb = coalesce($5, storage_gb), "
			       "included_gb = CASE WHEN $6::boolean THEN $7::numeric ELSE included_gb END, "
			       "credit_value = CASE WHEN $8::boolean THEN $9::numeric ELSE credit_value END "
			       "WHERE id = $1",
			       id, plan.name, plan.cpu, plan.ram_mb, plan.storage_gb, plan.has_included_gb,
			       plan.included_gb, plan.has_credit_value, plan.credit_value);
	if (r >= 0)
		r = offer_check(request, response);
	return r < 0 ? r : finish_change(request, response, 200, "change", id, answer_plan);
}

static int delete_plan(struct request *request, struct response *response)
{
	return delete_noun(request, response, PLAN);
}

const struct route plan_routes[] = {
	{"GET", "/v1/plans", ROLE_ANY_USER, list_plans, QUERY_PAGE},
	{"POST", "/v1/plans", ROLE_ADMIN, create_plan, NULL},
	{"GET", "/v1/plans/{plan}", ROLE_ANY_USER, get_plan, NULL},
	{"PATCH", "/v1/plans/{plan}", ROLE_ADMIN, change_plan, NULL},
	{"DELETE", "/v1/plans/{plan}", ROLE_ADMIN, delete_plan, NULL},
	{0},
};
