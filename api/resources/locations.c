// SPDX-License-Identifier: BSD-2-Clause
/* A4: locations and their prices. Prices are versions, each valid from a UTC hour on (B3). */
#include "base/special_range.h"
#include "resources/common.h"
#include "resources/offer.h"
#include "resources/resources.h"

#include <stdio.h>
#include <string.h>

#define RATE_FIELDS(row)                                                                                     \
	"'credit_value', " SQL_DECIMAL(row ".credit_value") ", 'bandwidth_rate', " SQL_DECIMAL(              \
		row ".bandwidth_rate") ", 'accounting', " row ".accounting, 'overage', " row ".overage"

/* What is in force, and beside it what will be from the next hour on. */
// clang-format off
#define LOCATION_SCHEDULED                                                                                   \
	"(SELECT json_build_object('from', " SQL_TIME("s.from_hour") ", " RATE_FIELDS("s") ") "              \
	"FROM gateway.rate_version s WHERE s.location = l.id AND s.from_hour > now())"
#define LOCATION_OBJECT                                                                                      \
	"json_build_object('id', l.id, 'name', l.name, 'vpn_enabled', l.vpn_enabled, " RATE_FIELDS("v") ", " \
	"'image', l.image, 'plan_group', l.plan_group, 'link_gbps', l.link_gbps, 'site_ranges', l.site_ranges, "                       \
	"'scheduled', " LOCATION_SCHEDULED ", 'created', " SQL_TIME("l.created") ")"
// clang-format on
#define LOCATION_FROM                                                                                        \
	" FROM gateway.location l JOIN LATERAL (SELECT * FROM gateway.rate_version r WHERE r.location = "    \
	"l.id "                                                                                              \
	"AND r.from_hour <= now() ORDER BY r.from_hour DESC LIMIT 1) v ON true "

static const char *const accountings[] = {"uploads", "downloads", "both", NULL};
static const char *const overages[] = {"none", "charge_overage", "revoke_access", NULL};

#define MAX_SITE_RANGES 64

struct location {
	const char *name, *vpn_enabled;
	const char *credit_value, *bandwidth_rate, *accounting, *overage;
	const char *image, *plan_group;
	const char *link_gbps;
	char link_text[24];
	const char *has_image, *has_plan_group; /* "true" when the body names it, be it null */
	char site_ranges[MAX_SITE_RANGES * CIDR_TEXT_SIZE +
			 4]; /* an array as PostgreSQL reads it, or empty */
	char image_id[UUID_TEXT_SIZE], plan_group_id[UUID_TEXT_SIZE];
};

static int resolve(struct request *request, struct response *response, enum noun noun, const char *field,
		   const char **key, char id[static UUID_TEXT_SIZE])
{
	int r = *key ? find_noun(request, response, noun, field, *key, id) : 0;

	if (r == 0 && *key)
		*key = id;
	return r;
}

/* May be as large as all there is, but not what no site can use anything of. */
static bool is_site_range(const char *text, struct cidr *ret_range)
{
	const struct special_range *special;

	if (!text || cidr_parse(text, ret_range) < 0 || !cidr_is_network(ret_range))
		return false;
	special = special_range_find(ret_range, SPECIAL_UNUSABLE);
	return !special || !cidr_contains(&special->prefix, ret_range);
}

static bool read_site_range(struct form *form, size_t index, const json_t *item, struct location *location)
{
	size_t used = strlen(location->site_ranges);
	char one[CIDR_TEXT_SIZE], shown[ITEM_TEXT_SIZE];
	struct cidr range;

	if (index >= MAX_SITE_RANGES || !is_site_range(json_string_value(item), &range)) {
		form_refuse(form, "site_ranges",
			    "site_ranges[%zu] is %s; accepted are up to %d networks such as 10.0.0.0/8, "
			    "with no bit set beyond the prefix, not within IANA's special-purpose ranges",
			    index, show_item(item, shown), MAX_SITE_RANGES);
		return false;
	}
	snprintf(location->site_ranges + used, sizeof(location->site_ranges) - used, "%s%s",
		 index ? "," : "{", cidr_format(&range, one));
	return true;
}

static void read_site_ranges(struct form *form, struct location *location)
{
	const json_t *list = form_array(form, "site_ranges", OPTIONAL), *item;
	size_t index;

	location->site_ranges[0] = '\0';
	json_array_foreach (list, index, item) {
		if (!read_site_range(form, index, item, location))
			return;
	}
	index = strlen(location->site_ranges);
	if (list)
		snprintf(location->site_ranges + index, sizeof(location->site_ranges) - index, "%s",
			 index > 0 ? "}" : "{}");
}

static int read_location(struct request *request, struct response *response, enum need need,
			 struct location *location)
{
	struct form form = form_of(request, response);
	int r;

	location->name = form_title(&form, "name", need);
	location->vpn_enabled = form_bool(&form, "vpn_enabled", OPTIONAL);
	/* A price that was forgotten is not the same as none. */
	location->credit_value = form_decimal(&form, "credit_value", need);
	location->bandwidth_rate = form_decimal(&form, "bandwidth_rate", need);
	location->accounting = form_choice(&form, "accounting", OPTIONAL, accountings);
	location->overage = form_choice(&form, "overage", OPTIONAL, overages);
	location->image = form_text(&form, "image", OPTIONAL, 63);
	location->plan_group = form_text(&form, "plan_group", OPTIONAL, 63);
	location->link_gbps = form_integer(&form, "link_gbps", OPTIONAL, 1, 10000);
	/* The form's own numbers end with it. */
	snprintf(location->link_text, sizeof(location->link_text), "%s",
		 location->link_gbps ? location->link_gbps : "");
	location->link_gbps = or_null(location->link_text);
	read_site_ranges(&form, location);
	location->has_image = form_takes_null(&form, "image") ? "true" : "false";
	location->has_plan_group = form_takes_null(&form, "plan_group") ? "true" : "false";
	r = form_end(&form);
	if (r == 0)
		r = resolve(request, response, IMAGE, "image", &location->image, location->image_id);
	if (r == 0)
		r = resolve(request, response, PLAN_GROUP, "plan_group", &location->plan_group,
			    location->plan_group_id);
	return r;
}

static int list_locations(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT " LOCATION_OBJECT ", l.name, l.id" LOCATION_FROM "WHERE " SQL_AFTER("l")
				   SQL_PAGE("l"),
			   0, NULL);
}

static int answer_location(struct request *request, struct response *response, unsigned status,
			   const char *id)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " LOCATION_OBJECT LOCATION_FROM "WHERE l.id = $1", id);
}

static int get_location(struct request *request, struct response *response)
{
	return get_noun(request, response, LOCATION, answer_location);
}

/* The change has been made: check it, note it, answer with it. */
static int finish(struct request *request, struct response *response, unsigned status, const char *action,
		  const char *id)
{
	int r = offer_check(request, response);

	return r < 0 ? r : finish_change(request, response, status, action, id, answer_location);
}

static int update_site_ranges(struct request *request, const struct location *location, const char *id)
{
	int r;

	if (!location->site_ranges[0])
		return 0;
	r = DB_EXECUTE(request->db, "UPDATE gateway.location SET site_ranges = $2::cidr[] WHERE id = $1", id,
		       location->site_ranges);
	return r < 0 ? r : 0;
}

static int insert_location(struct request *request, const struct location *location, const char *id)
{
	int r;

	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.location (id, name, vpn_enabled, image, plan_group, link_gbps) "
		       "VALUES ($1, $2, coalesce($3::boolean, false), $4, $5, coalesce($6::integer, 400))",
		       id, location->name, location->vpn_enabled, location->image, location->plan_group,
		       location->link_gbps);
	if (r >= 0)
		r = update_site_ranges(request, location, id);
	if (r < 0)
		return r;
	/* Nothing has been sold at another price yet, so that the first version holds at once. */
	r = DB_EXECUTE(request->db,
		       "INSERT INTO gateway.rate_version (location, from_hour, credit_value, bandwidth_rate, "
		       "accounting, "
		       "overage, announced) VALUES ($1, date_trunc('hour', now(), 'UTC'), $2, $3, "
		       "coalesce($4, 'both'), "
		       "coalesce($5, 'none'), true)",
		       id, location->credit_value, location->bandwidth_rate, location->accounting,
		       location->overage);
	return r < 0 ? r : 0;
}

static int create_location(struct request *request, struct response *response)
{
	struct location location;
	char id[UUID_TEXT_SIZE];
	int r;

	uuid_generate(id);
	r = read_location(request, response, REQUIRED, &location);
	if (r == 0)
		r = offer_begin(request);
	if (r == 0)
		r = insert_location(request, &location, id);
	return r < 0 ? r : finish(request, response, 201, "create", id);
}

/* A change within the same hour amends the version that is still to come. */
static int schedule_rates(struct request *request, const struct location *location, const char *id)
{
	int r;

	if (!location->credit_value && !location->bandwidth_rate && !location->accounting &&
	    !location->overage)
		return 0;
	r = DB_EXECUTE(
		request->db,
		"INSERT INTO gateway.rate_version (location, from_hour, credit_value, bandwidth_rate, "
		"accounting, "
		"overage) SELECT $1, date_trunc('hour', now(), 'UTC') + interval '1 hour', "
		"coalesce($2::numeric, v.credit_value), coalesce($3::numeric, v.bandwidth_rate), "
		"coalesce($4, v.accounting), coalesce($5, v.overage) FROM gateway.rate_version v "
		"WHERE v.location = $1 ORDER BY v.from_hour DESC LIMIT 1 "
		"ON CONFLICT (location, from_hour) DO UPDATE SET credit_value = excluded.credit_value, "
		"bandwidth_rate = excluded.bandwidth_rate, accounting = excluded.accounting, overage = "
		"excluded.overage",
		id, location->credit_value, location->bandwidth_rate, location->accounting,
		location->overage);
	return r < 0 ? r : 0;
}

static int update_location(struct request *request, const struct location *location, const char *id)
{
	int r;

	r = DB_EXECUTE(request->db,
		       "UPDATE gateway.location SET name = coalesce($2, name), "
		       "vpn_enabled = coalesce($3::boolean, vpn_enabled), "
		       "image = CASE WHEN $4::boolean THEN $5::uuid ELSE image END, "
		       "plan_group = CASE WHEN $6::boolean THEN $7::uuid ELSE plan_group END, "
		       "link_gbps = coalesce($8::integer, link_gbps) WHERE id = $1",
		       id, location->name, location->vpn_enabled, location->has_image, location->image,
		       location->has_plan_group, location->plan_group, location->link_gbps);
	if (r >= 0)
		r = update_site_ranges(request, location, id);
	return r < 0 ? r : schedule_rates(request, location, id);
}

static int change_location(struct request *request, struct response *response)
{
	struct location location;
	char id[UUID_TEXT_SIZE];
	int r;

	r = find_noun(request, response, LOCATION, NULL, request->arguments[0], id);
	if (r == 0)
		r = read_location(request, response, OPTIONAL, &location);
	if (r == 0)
		r = offer_begin(request);
	if (r == 0)
		r = update_location(request, &location, id);
	return r < 0 ? r : finish(request, response, 200, "change", id);
}

static int delete_location(struct request *request, struct response *response)
{
	return delete_noun(request, response, LOCATION);
}

const struct route location_routes[] = {
	{"GET", "/v1/locations", ROLE_ANY_USER, list_locations, QUERY_PAGE},
	{"POST", "/v1/locations", ROLE_ADMIN, create_location, NULL},
	{"GET", "/v1/locations/{location}", ROLE_ANY_USER, get_location, NULL},
	{"PATCH", "/v1/locations/{location}", ROLE_ADMIN, change_location, NULL},
	{"DELETE", "/v1/locations/{location}", ROLE_ADMIN, delete_location, NULL},
	{0},
};
