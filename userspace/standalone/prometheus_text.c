// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/prometheus.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct writer {
	FILE *file;
	const struct station *station;
	const struct history *history;
};

static void write_label(FILE *file, const char *name, const char *value)
{
	fprintf(file, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fputc('\\', file);
		fputc(*value, file);
	}
	fputc('"', file);
}

static void head(const struct writer *writer, const char *metric, const char *type, const char *help)
{
	fprintf(writer->file, "# HELP wiretoll_%s %s\n# TYPE wiretoll_%s %s\n", metric, help, metric, type);
}

/* A value of a peer, or of the interface (record NULL). */
static void line(const struct writer *writer, const char *metric, const struct record *record,
		 const char *direction, uint64_t value)
{
	char key[KEY_TEXT_SIZE];

	fprintf(writer->file, "wiretoll_%s{", metric);
	write_label(writer->file, "interface", writer->history->interface);
	if (record) {
		fputc(',', writer->file);
		write_label(writer->file, "public_key", key_format(&record->public_key, key));
		fputc(',', writer->file);
		write_label(writer->file, "name", record->name ? record->name : "");
	}
	if (direction)
		fprintf(writer->file, ",direction=\"%s\"", direction);
	fprintf(writer->file, "} %" PRIu64 "\n", value);
}

static void both(const struct writer *writer, const char *metric, const struct record *record,
		 uint64_t upload, uint64_t download)
{
	line(writer, metric, record, "upload", upload);
	line(writer, metric, record, "download", download);
}

/* ---- peers ----------------------------------------------------------------------------------------------
 */

static void write_bytes(const struct writer *writer, const char *metric, const struct record *peer)
{
	both(writer, metric, peer, peer->total.upload_bytes, peer->total.download_bytes);
}

static void write_packets(const struct writer *writer, const char *metric, const struct record *peer)
{
	both(writer, metric, peer, peer->total.upload_packets, peer->total.download_packets);
}

static void write_refused(const struct writer *writer, const char *metric, const struct record *peer)
{
	line(writer, metric, peer, NULL, peer->total.refused_bytes);
}

static void write_undelivered(const struct writer *writer, const char *metric, const struct record *peer)
{
	line(writer, metric, peer, NULL, peer->delivery.undelivered);
}

static void write_limit(const struct writer *writer, const char *metric, const struct record *peer)
{
	if (peer->limit.set)
		line(writer, metric, peer, NULL, peer->limit.amount.bytes);
}

static void write_used(const struct writer *writer, const char *metric, const struct record *peer)
{
	if (peer->limit.set)
		line(writer, metric, peer, NULL, record_used(writer->history, peer));
}

static void write_limited(const struct writer *writer, const char *metric, const struct record *peer)
{
	line(writer, metric, peer, NULL, peer->limited || station_is_limited(writer->station));
}

static void write_rx_short(const struct writer *writer, const char *metric, const struct record *peer)
{
	line(writer, metric, peer, NULL, peer->rx_short);
}

static const struct {
	const char *metric, *type, *help;
	void (*write)(const struct writer *writer, const char *metric, const struct record *peer);
} PEER_METRICS[] = {
	{"peer_bytes_total", "counter", "Bytes of inner IP packets, by peer and direction.", write_bytes},
	{"peer_packets_total", "counter", "Inner IP packets, by peer and direction.", write_packets},
	{"peer_refused_bytes_total", "counter", "Bytes that a limit has refused.", write_refused},
	{"peer_undelivered_bytes_total", "counter",
	 "Bytes counted as downloads that WireGuard then had to drop.", write_undelivered},
	{"peer_limit_bytes", "gauge", "The limit of the peer in its period.", write_limit},
	{"peer_used_bytes", "gauge", "Used of the limit of the peer in its period.", write_used},
	{"peer_audit_rx_short", "gauge",
	 "1 once more uploads were counted for the peer than WireGuard has received.", write_rx_short},
	{"peer_limited", "gauge", "1 while a limit refuses the packets of the peer.", write_limited},
};

/* Of peers that WireGuard has: the series of one that is gone ends. */
static void write_peers(const struct writer *writer)
{
	for (size_t i = 0; i < ARRAY_SIZE(PEER_METRICS); i++) {
		head(writer, PEER_METRICS[i].metric, PEER_METRICS[i].type, PEER_METRICS[i].help);
		for (size_t j = 1; j < writer->history->n_records; j++) {
			if (writer->history->records[j]->present)
				PEER_METRICS[i].write(writer, PEER_METRICS[i].metric,
						      writer->history->records[j]);
		}
	}
}

/* ---- the interface --------------------------------------------------------------------------------------
 */

static void write_interface(const struct writer *writer)
{
	const struct record *none = writer->history->records[0];

	head(writer, "unattributed_bytes_total", "counter", "Bytes that belong to no peer.");
	both(writer, "unattributed_bytes_total", NULL, none->total.upload_bytes, none->total.download_bytes);
	head(writer, "unattributed_packets_total", "counter", "Packets that belong to no peer.");
	both(writer, "unattributed_packets_total", NULL, none->total.upload_packets,
	     none->total.download_packets);
	if (writer->history->limit.set) {
		head(writer, "interface_limit_bytes", "gauge", "The interface's limit in its period.");
		line(writer, "interface_limit_bytes", NULL, NULL, writer->history->limit.amount.bytes);
		head(writer, "interface_used_bytes", "gauge", "Used of the interface's limit.");
		line(writer, "interface_used_bytes", NULL, NULL, history_used(writer->history));
	}
	head(writer, "interface_limited", "gauge", "1 while the interface's limit refuses all packets.");
	line(writer, "interface_limited", NULL, NULL, station_is_limited(writer->station));
	head(writer, "interface_shadowed", "gauge",
	     "1 while another program runs before the meter and may hide packets from it.");
	line(writer, "interface_shadowed", NULL, NULL, station_shadowed(writer->station) == 1);
	head(writer, "interface_attached", "gauge", "0 while somebody else has detached the meter.");
	line(writer, "interface_attached", NULL, NULL, station_is_attached(writer->station));
	head(writer, "interface_reattached_total", "counter",
	     "How often the meter was attached anew after somebody else had detached it.");
	line(writer, "interface_reattached_total", NULL, NULL, writer->history->reattached);
	head(writer, "interface_unparsed_packets_total", "counter",
	     "Packets counted by their length alone since the meter was attached.");
	line(writer, "interface_unparsed_packets_total", NULL, NULL,
	     station_unparsed_packets(writer->station));
}

char *prometheus_text(const struct station *station)
{
	char *text = NULL;
	size_t length;
	struct writer writer = {open_memstream(&text, &length), station, station_history(station)};

	if (!writer.file)
		return NULL;
	write_peers(&writer);
	write_interface(&writer);
	if (fclose(writer.file) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
