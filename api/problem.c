// SPDX-License-Identifier: BSD-2-Clause
#include "problem.h"

#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	unsigned status;
	const char *title;
} titles[] = {
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{409, "Conflict"},
	{410, "Gone"},
	{413, "Content Too Large"},
	{422, "Unprocessable Content"},
	{500, "Internal Server Error"},
	{503, "Service Unavailable"},
};

static const struct {
	const char *constraint;
	unsigned status;
	const char *field;
	const char *message;
} constraints[] = {
	{"gateway_one_per_vpc", 409, "vpc", "This VPC already has a VPN gateway"},
	{"gateway_name", 409, "name", "that name is taken by another gateway of this user"},
	{"peer_public_key", 409, "public_key", "public_key is already that of another peer of this gateway"},
	{"peer_name", 409, "name", "that name is taken by another peer of this gateway"},
	{"prefix_owned_once", 409, "allowed_ips",
	 "an allowed IP overlaps one of another peer of this gateway"},
	{"vpc_name", 409, "name", "that name is taken by another VPC of this user"},
	{"vpc_external_id", 409, "external_id", "this id is already that of another VPC of this user"},
	{"app_user_name_key", 409, "name", "that name is taken by another user"},
	{"app_user_external_id_key", 409, "external_id", "this id is already that of another user"},
	{"image_name_key", 409, "name", "that name is taken by another image"},
	{"plan_name_key", 409, "name", "that name is taken by another plan"},
	{"plan_group_name_key", 409, "name", "that name is taken by another plan group"},
	{"location_name_key", 409, "name", "that name is taken by another location"},
	{"location_check", 422, "plan_group",
	 "plan_group is null and vpn_enabled is true; accepted is the id or name of a plan group (GET "
	 "/v1/plan-groups)"},
	{"hypervisor_name_key", 409, "name", "that name is taken by another hypervisor"},
	{"subnet_owner_vpc_cidr_excl", 409, "subnets", "two subnets of this VPC overlap"},
	/* What was there when the handler looked. */
	{"location_image_fkey", 409, "image", "image has just been deleted"},
	{"location_plan_group_fkey", 409, "plan_group", "plan_group has just been deleted"},
	{"plan_group_plan_plan_fkey", 409, "plans", "one of plans has just been deleted"},
	{"hypervisor_location_fkey", 409, "location", "location has just been deleted"},
	{"vpc_location_fkey", 409, "location", "location has just been deleted"},
	{"vpc_owner_fkey", 409, "owner", "owner has just been deleted"},
	{"gateway_location_fkey", 409, "vpc", "the location of vpc has just been deleted"},
	{"gateway_plan_fkey", 409, "plan", "plan has just been deleted"},
	{"attachment_hypervisor_fkey", 409, "subnets",
	 "the hypervisor of an attachment has just been deleted"},
};

int response_problem(struct response *response, unsigned status, const char *field, const char *format, ...)
{
	const char *title = "Error";
	char detail[512], shown[2 * sizeof(detail)];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	for (size_t i = 0; i < ARRAY_SIZE(titles); i++) {
		if (titles[i].status == status)
			title = titles[i].title;
	}
	json_decref(response->json);
	/* A value that is quoted may be anything, and cut anywhere. */
	response->json = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", title, "status",
				   (int)status, "detail", text_show(detail, shown, sizeof(shown)));
	if (field)
		json_object_set_new(response->json, "field",
				    json_string(text_show(field, shown, sizeof(shown))));
	response->status = status;
	response->content_type = "application/problem+json";
	return 0;
}

int response_json_problem(struct response *response, const struct json_problem *problem)
{
	return response_problem(response, 422, problem->field, "%s", problem->message);
}

/* The value, where the field is one that may be quoted. */
static const char *quoted_name(const struct request *request, const char *field)
{
	return strcmp(field, "name") == 0 ? json_string_value(json_object_get(request->body, "name")) : NULL;
}

static void constraint_problem(struct response *response, const struct request *request, size_t i)
{
	const char *name = quoted_name(request, constraints[i].field);

	if (name)
		response_problem(response, constraints[i].status, "name", "name is \"%.64s\": %s", name,
				 constraints[i].message);
	else
		response_problem(response, constraints[i].status, constraints[i].field, "%s",
				 constraints[i].message);
}

bool response_database_problem(struct response *response, int error, const struct request *request)
{
	const struct db_error *last = db_last_error(request->db);

	for (size_t i = 0; (error == -EEXIST || error == -EDOM) && i < ARRAY_SIZE(constraints); i++) {
		if (strcmp(constraints[i].constraint, last->constraint) == 0) {
			constraint_problem(response, request, i);
			return true;
		}
	}
	if (error == -EEXIST)
		response_problem(response, 409, NULL,
				 "this conflicts with what exists, or has just come to be");
	else if (error == -EDOM && strcmp(last->sqlstate, "23503") == 0)
		response_problem(response, 409, NULL,
				 "it is in use, or something it names has just been deleted");
	else if (error == -EDOM)
		response_problem(response, 422, NULL, "a value is not accepted together with the others");
	else if (error == -EINVAL && strncmp(last->sqlstate, "22", 2) == 0)
		response_problem(response, 422, NULL, "a value is not accepted: %s", last->message);
	else
		return false;
	return true;
}
