// SPDX-License-Identifier: BSD-2-Clause
/* What is read of usage and money: the billing service's side, and the customer's report. */
#include "base/clock.h"
#include "billing/who.h"
#include "resources/common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_MONTH "1970-01"

/* Queries end with one row, "answer": the body as JSON text. Its digits pass through no number type. */
static int answer_with(struct response *response, PGresult *row)
{
	const char *answer = db_value(row, 0, "answer");

	response->status = 200;
	response->content_type = "application/json";
	response->text = strdup(answer ? answer : "{}");
	return response->text ? 0 : -ENOMEM;
}

static int read_limit(const struct request *request, struct response *response, char ret_limit[static 12])
{
	unsigned limit;
	int r = query_limit(request, response, &limit);

	if (r == 0)
		snprintf(ret_limit, 12, "%u", limit);
	return r;
}

static int read_choice(const struct request *request, struct response *response, const char *field,
		       const char *const *choices, const char *accepted, const char **ret)
{
	const char *text = request_query(request, field);

	for (size_t i = 0; text && choices[i]; i++) {
		if (strcmp(text, choices[i]) == 0) {
			*ret = choices[i];
			return 0;
		}
	}
	if (text)
		return refuse(response, 422, field, "%s is \"%.64s\"; accepted is %s", field, text, accepted);
	*ret = choices[0];
	return 0;
}

static int read_time(const struct request *request, struct response *response, const char *field,
		     const char **ret, int64_t *ret_instant)
{
	const char *text = request_query(request, field);

	if (text && clock_parse(text, ret_instant) < 0)
		return refuse(response, 422, field,
			      "%s is \"%.64s\"; accepted is an instant in UTC like 2026-11-22T14:00:00Z",
			      field, text);
	*ret = text;
	return 0;
}

/* NULL where the query leaves it open. */
static int read_span(const struct request *request, struct response *response, const char **ret_from,
		     const char **ret_to)
{
	int64_t from = INT64_MIN, to = INT64_MAX;
	int r;

	*ret_from = *ret_to = NULL;
	r = read_time(request, response, "from", ret_from, &from);
	if (r == 0)
		r = read_time(request, response, "to", ret_to, &to);
	if (r == 0 && from >= to)
		return refuse(response, 422, "to",
			      "to is \"%.64s\"; accepted is an instant behind from, %.64s", *ret_to,
			      *ret_from);
	return r;
}

/* A page's "next" is "BEGINNING,GATEWAY,PEER"; of a total the beginning is "-infinity". */
static int read_after(const struct request *request, struct response *response, const char **ret)
{
	const char *text = request_query(request, "after");
	char cursor[CLOCK_TEXT_SIZE + 2 * UUID_TEXT_SIZE];
	size_t length = text ? strlen(text) : 0, tail = (size_t)2 * UUID_TEXT_SIZE;
	int64_t instant;
	char *ids;

	*ret = text;
	if (!text)
		return 0;
	if (length <= tail || length >= sizeof(cursor))
		goto wrong;
	memcpy(cursor, text, length + 1);
	ids = cursor + length - tail;
	if (ids[0] != ',' || ids[UUID_TEXT_SIZE] != ',' || !is_uuid(ids + UUID_TEXT_SIZE + 1))
		goto wrong;
	ids[0] = ids[UUID_TEXT_SIZE] = '\0';
	if (is_uuid(ids + 1) && (strcmp(cursor, "-infinity") == 0 || clock_parse(cursor, &instant) == 0))
		return 0;
wrong:
	return refuse(response, 422, "after", "after is \"%.120s\"; accepted is the \"next\" of a page",
		      text);
}

/* One page of usage of a user's gateways, or of one of them. */
static int answer_usage(struct request *request, struct response *response, const char *owner,
			const char *gateway, bool by_peer)
{
	static const char *const intervals[] = {"total", "hour", "day", "cycle", NULL};
	_cleanup_result_ PGresult *row = NULL;
	const char *interval, *from, *to, *after;
	char limit[12];
	int r = read_choice(request, response, "interval", intervals, "hour, day, cycle or total", &interval);

	if (r == 0)
		r = read_span(request, response, &from, &to);
	if (r == 0)
		r = read_after(request, response, &after);
	if (r == 0)
		r = read_limit(request, response, limit);
	if (r == 0)
		r = DB_QUERY(request->db, &row,
			     "SELECT billing.usage_page($1, $2, $3, $4, $5, $6, $7, $8) AS answer", owner,
			     gateway, interval, from, to, by_peer ? "true" : "false", after, limit);
	return r < 0 ? r : answer_with(response, row);
}

/* Somebody looks: for half a minute the agent reports every second. */
static int note_watcher(struct request *request, const char *owner, const char *gateway)
{
	if (request->principal.role == ROLE_BILLING)
		return 0;
	return DB_EXECUTE(request->db,
			  "UPDATE gateway.gateway SET watch_until = now() + interval '30 seconds' "
			  "WHERE owner = $1 AND id = $2 AND status = 'active' "
			  "AND coalesce(watch_until, '-infinity') < now() + interval '15 seconds'",
			  owner, gateway);
}

static int get_gateway_usage(struct request *request, struct response *response)
{
	static const char *const groupings[] = {"peer", "gateway", NULL};
	char owner[UUID_TEXT_SIZE], gateway[UUID_TEXT_SIZE];
	const char *by;
	int r = billing_find_gateway(request, request->arguments[0], response, owner, gateway);

	if (r == 0)
		r = read_choice(request, response, "by", groupings, "peer or gateway", &by);
	if (r < 0)
		return r;
	r = note_watcher(request, owner, gateway);
	return r < 0 ? r : answer_usage(request, response, owner, gateway, strcmp(by, "peer") == 0);
}

static int get_user_usage(struct request *request, struct response *response)
{
	char user[UUID_TEXT_SIZE];
	int r = billing_find_user(request, request->arguments[0], response, user);

	return r < 0 ? r : answer_usage(request, response, user, NULL, false);
}

static int get_ledger(struct request *request, struct response *response)
{
	const char *after = request_query(request, "after");
	_cleanup_result_ PGresult *row = NULL;
	char limit[12];
	int r = read_limit(request, response, limit);

	if (r == 0 && after &&
	    (!*after || strspn(after, "0123456789") != strlen(after) || strlen(after) > 18))
		r = refuse(response, 422, "after", "after is \"%.64s\"; accepted is an id of the feed, or 0",
			   after);
	if (r == 0)
		r = DB_QUERY(request->db, &row, "SELECT billing.feed_page($1, $2) AS answer",
			     after ? after : "0", limit);
	return r < 0 ? r : answer_with(response, row);
}

/* "YYYY-MM". */
static bool is_month(const char *text)
{
	static const char digits[] = "0123456789";

	return strlen(text) == 7 && strspn(text, digits) == 4 && text[4] == '-' &&
	       strspn(text + 5, digits) == 2 && strcmp(text + 5, "01") >= 0 && strcmp(text + 5, "12") <= 0;
}

/* "2026-11" as the cycle's number, "202611"; without one, the current month. */
static int read_cycle(struct request *request, struct response *response, char ret_cycle[static 8])
{
	const char *text = request_query(request, "cycle");
	char now[CLOCK_TEXT_SIZE];

	clock_format(clock_utc_ns(), now);
	now[7] = '\0';
	if (!text)
		text = now;
	/* Of the same form, months compare as their texts do. */
	if (!is_month(text) || strcmp(text, FIRST_MONTH) < 0 || strcmp(text, now) > 0)
		return refuse(response, 422, "cycle",
			      "cycle is \"%.64s\"; accepted is a month in UTC from " FIRST_MONTH
			      " to the current one, %s",
			      text, now);
	snprintf(ret_cycle, 8, "%.4s%.2s", text, text + 5);
	return 0;
}

static const char *text_of(const json_t *object, const char *field)
{
	return json_string_value(json_object_get(object, field));
}

static void csv_row(FILE *out, const char *gateway, const char *name, const json_t *sums)
{
	fprintf(out, "%s,%s,%lld,%s,%s,%s,%s,%s\r\n", gateway, name,
		(long long)json_integer_value(json_object_get(sums, "hours")), text_of(sums, "base_credits"),
		text_of(sums, "bandwidth_bytes"), text_of(sums, "bandwidth_credits"),
		text_of(sums, "adjustment_credits"), text_of(sums, "total_credits"));
}

/* RFC 4180. Names hold nothing that needs quoting, and no spreadsheet takes them for a formula. */
static int answer_csv(struct response *response, const char *report_text)
{
	_cleanup_json_ json_t *report = json_loads(report_text, 0, NULL);
	json_t *gateway;
	size_t size, i;
	FILE *out = report ? open_memstream(&response->text, &size) : NULL;

	if (!out)
		return -ENOMEM;
	fputs("gateway,name,hours,base_credits,bandwidth_bytes,bandwidth_credits,adjustment_credits,total_"
	      "credits\r\n",
	      out);
	json_array_foreach (json_object_get(report, "gateways"), i, gateway)
		csv_row(out, text_of(gateway, "gateway"), text_of(gateway, "name"), gateway);
	csv_row(out, "", "total", json_object_get(report, "totals"));
	if (fclose(out) != 0)
		return -ENOMEM;
	response->status = 200;
	response->content_type = "text/csv; charset=utf-8";
	snprintf(response->disposition, sizeof(response->disposition), "wiretoll-usage-%s.csv",
		 text_of(report, "cycle"));
	return 0;
}

static int get_report(struct request *request, struct response *response)
{
	static const char *const formats[] = {"json", "csv", NULL};
	_cleanup_result_ PGresult *row = NULL;
	char user[UUID_TEXT_SIZE], cycle[8];
	const char *format;
	int r = billing_find_user(request, request->arguments[0], response, user);

	if (r == 0)
		r = read_cycle(request, response, cycle);
	if (r == 0)
		r = read_choice(request, response, "format", formats, "json or csv", &format);
	if (r == 0)
		r = DB_QUERY(request->db, &row, "SELECT billing.report($1, $2) AS answer", user, cycle);
	if (r < 0)
		return r;
	if (strcmp(format, "csv") == 0)
		return answer_csv(response, db_value(row, 0, "answer"));
	return answer_with(response, row);
}

const struct route billing_routes[] = {
	{"GET", "/v1/gateways/{gateway}/usage", ROLE_ANY_USER | ROUTE_FOR_USER, get_gateway_usage,
	 QUERY_PAGE " interval from to by"},
	{"GET", "/v1/users/{user}/usage", ROLE_ANY_USER | ROUTE_FOR_USER, get_user_usage,
	 QUERY_PAGE " interval from to"},
	{"GET", "/v1/users/{user}/report", ROLE_ANY_USER | ROUTE_FOR_USER, get_report, "cycle format"},
	{"GET", "/v1/ledger", ROLE_BILLING | ROLE_ADMIN, get_ledger, QUERY_PAGE},
	{0},
};
