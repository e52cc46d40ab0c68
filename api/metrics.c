// SPDX-License-Identifier: BSD-2-Clause
#include "metrics.h"

#include "exchange.h"
#include "route.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_uint_fast64_t taken, conflicting, refused, groups, grouped, delayed;
static atomic_uint_fast64_t busy[N_SHARE_KINDS + 1], ended[N_CONNECTION_FAULTS];

void metrics_count_report(unsigned status)
{
	atomic_fetch_add(status == 200 ? &taken : status == 409 ? &conflicting : &refused, 1);
}

void metrics_count_group(size_t n_reports)
{
	atomic_fetch_add(&groups, 1);
	atomic_fetch_add(&grouped, n_reports);
}

void metrics_count_refused(unsigned kind)
{
	atomic_fetch_add(&busy[kind], 1);
}

void metrics_count_connection(enum connection_fault fault)
{
	atomic_fetch_add(&ended[fault], 1);
}

void metrics_count_delayed(void)
{
	atomic_fetch_add(&delayed, 1);
}

static void put(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_own(FILE *out)
{
	static const char *const why[N_CONNECTION_FAULTS] = {"address", "handshake", "request"};
	static const char *const busy_of[N_SHARE_KINDS + 1] = {"owner", "gateway", "reports",
							       "fleet", "address", "all"};

	put(out, "wiretoll_reports_total", "counter", "Reports of agents that this replica has answered.");
	fprintf(out, "wiretoll_reports_total{result=\"taken\"} %" PRIuFAST64 "\n", atomic_load(&taken));
	fprintf(out, "wiretoll_reports_total{result=\"conflict\"} %" PRIuFAST64 "\n",
		atomic_load(&conflicting));
	fprintf(out, "wiretoll_reports_total{result=\"refused\"} %" PRIuFAST64 "\n", atomic_load(&refused));
	put(out, "wiretoll_report_transactions_total", "counter",
	    "Transactions that these reports were committed in.");
	fprintf(out, "wiretoll_report_transactions_total %" PRIuFAST64 "\n", atomic_load(&groups));
	put(out, "wiretoll_report_transactions_reports_total", "counter", "Reports in these transactions.");
	fprintf(out, "wiretoll_report_transactions_reports_total %" PRIuFAST64 "\n", atomic_load(&grouped));
	put(out, "wiretoll_requests_refused_total", "counter",
	    "Requests answered with 503, as too many wait: of one owner, gateway or address, or of all.");
	for (size_t i = 0; i < ARRAY_SIZE(busy); i++)
		fprintf(out, "wiretoll_requests_refused_total{of=\"%s\"} %" PRIuFAST64 "\n", busy_of[i],
			atomic_load(&busy[i]));
	put(out, "wiretoll_connections_ended_total", "counter",
	    "Connections that were refused as one address has too many, or ended as they took too long.");
	for (size_t i = 0; i < ARRAY_SIZE(ended); i++)
		fprintf(out, "wiretoll_connections_ended_total{why=\"%s\"} %" PRIuFAST64 "\n", why[i],
			atomic_load(&ended[i]));
	put(out, "wiretoll_connections_delayed_total", "counter",
	    "Connections that had to wait, as one address has begun too many.");
	fprintf(out, "wiretoll_connections_delayed_total %" PRIuFAST64 "\n", atomic_load(&delayed));
}

static int put_alarms(FILE *out, struct db *db)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r = DB_QUERY(
		db, &rows,
		"SELECT k.kind, count(a.kind) AS n FROM unnest(ARRAY['quarantine', 'gap', 'drift']) k (kind) "
		"LEFT JOIN billing.alarm a ON a.kind = k.kind AND a.cleared IS NULL GROUP BY k.kind ORDER BY "
		"k.kind");

	if (r < 0)
		return r;
	put(out, "wiretoll_alarms", "gauge", "Open alarms of all gateways.");
	for (int i = 0; i < PQntuples(rows); i++)
		fprintf(out, "wiretoll_alarms{kind=\"%s\"} %s\n", db_value(rows, i, "kind"),
			db_value(rows, i, "n"));
	return 0;
}

static int put_drift(FILE *out, struct db *db)
{
	_cleanup_result_ PGresult *rows = NULL;
	_cleanup_result_ PGresult *count = NULL;
	int r = DB_QUERY(
		db, &count,
		"SELECT count(*) AS n FROM billing.reconciliation WHERE at > now() - interval '2 hours'");

	if (r == 0)
		r = DB_QUERY(db, &rows,
			     "SELECT k.gateway, d.key AS between, d.value AS bytes FROM "
			     "billing.reconciliation k, jsonb_each_text(k.drift) "
			     "d WHERE d.value <> '0' ORDER BY 1, 2");
	if (r < 0)
		return r;
	put(out, "wiretoll_reconciled_gateways", "gauge",
	    "Gateways whose counts were compared within two hours.");
	fprintf(out, "wiretoll_reconciled_gateways %s\n", db_value(count, 0, "n"));
	put(out, "wiretoll_drift_bytes", "gauge",
	    "By how much two counts of a gateway differ; only those that do.");
	for (int i = 0; i < PQntuples(rows); i++)
		fprintf(out, "wiretoll_drift_bytes{gateway=\"%s\",between=\"%s\"} %s\n",
			db_value(rows, i, "gateway"), db_value(rows, i, "between"),
			db_value(rows, i, "bytes"));
	return 0;
}

static int get_metrics(struct request *request, struct response *response)
{
	size_t size;
	FILE *out = open_memstream(&response->text, &size);
	int r;

	if (!out)
		return -ENOMEM;
	put_own(out);
	r = put_alarms(out, request->db);
	if (r == 0)
		r = put_drift(out, request->db);
	if (fclose(out) != 0 && r == 0)
		r = -ENOMEM;
	response->status = r == 0 ? 200 : 0;
	response->content_type = "text/plain; version=0.0.4; charset=utf-8";
	return r;
}

const struct route metrics_routes[] = {
	{"GET", "/metrics", ROLE_ADMIN | ROLE_BILLING, get_metrics, NULL},
	{0},
};
