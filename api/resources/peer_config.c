// SPDX-License-Identifier: BSD-2-Clause
#include "resources/peer_config.h"

#include "base/key.h"
#include "resources/common.h"
#include "resources/owned.h"
#include "resources/peer_view.h"
#include "seal.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_SIZE 16384

static const char config_sql[] =
	"SELECT p.name, p.config_name, p.kind, p.endpoint, p.keepalive, p.psk_sealed, g.name AS gateway, "
	"encode(g.public_key, 'base64') AS public_key, CASE family(g.public_ip) WHEN 4 THEN "
	"host(g.public_ip) "
	"WHEN 6 THEN '[' || host(g.public_ip) || ']' END AS public_ip, g.listen_port, "
	"(SELECT string_agg(s.cidr::text, ', ' ORDER BY s.cidr) FROM gateway.subnet s WHERE s.owner = "
	"g.owner "
	"AND s.vpc = g.vpc AND NOT s.public) AS vpc_subnets, g.tunnel_subnet || ', ' || g.tunnel_subnet6 AS "
	"tunnel_subnets, "
	"(SELECT string_agg(x.cidr::text, ', ' ORDER BY x.cidr) FROM gateway.prefix x WHERE x.owner = "
	"p.owner "
	"AND x.gateway = p.gateway AND x.peer = p.id AND x.freed IS NULL AND x.tunnel) AS addresses, "
	"array_to_string(ARRAY(SELECT host(d) FROM unnest(p.dns) d) || p.search_domains, ', ') AS dns "
	"FROM gateway.peer p JOIN gateway.gateway g ON g.owner = p.owner AND g.id = p.gateway "
	"WHERE p.owner = $1 AND p.gateway = $2 AND p.id = $3";

/* A buffer that never moves: it may hold a preshared key. */
struct text {
	char *buffer;
	size_t used;
};

static void add(struct text *text, const char *format, ...) WT_PRINTF(2, 3);
static void add(struct text *text, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(text->buffer + text->used, CONFIG_SIZE - text->used, format, args);
	va_end(args);
	text->used += (size_t)length;
	if (text->used >= CONFIG_SIZE)
		text->used = CONFIG_SIZE - 1;
}

static void add_line(struct text *text, const char *name, const char *value)
{
	if (value && *value)
		add(text, "%s = %s\n", name, value);
}

/* A site that has an endpoint is called there, so that it has to listen on that port. */
static void add_site_interface(struct text *text, const PGresult *row)
{
	const char *endpoint = db_value(row, 0, "endpoint");

	if (endpoint)
		add_line(text, "ListenPort", strrchr(endpoint, ':') + 1);
}

static void write_config(struct text *text, const PGresult *row, const struct key *preshared)
{
	bool site = strcmp(db_value(row, 0, "kind"), "site_to_site") == 0;
	const char *vpc = db_value(row, 0, "vpc_subnets"), *keepalive = db_value(row, 0, "keepalive");
	char key[KEY_TEXT_SIZE];

	add(text, "# Wiretoll: %s of gateway %s\n[Interface]\nPrivateKey = [YOUR_PRIVATE_KEY]\n",
	    db_value(row, 0, "name"), db_value(row, 0, "gateway"));
	add_line(text, "Address", db_value(row, 0, "addresses"));
	add_line(text, "DNS", db_value(row, 0, "dns"));
	if (site)
		add_site_interface(text, row);
	add(text, "\n[Peer]\nPublicKey = %s\n", db_value(row, 0, "public_key"));
	if (preshared) {
		add_line(text, "PresharedKey", key_format(preshared, key));
		sodium_memzero(key, sizeof(key));
	}
	add(text, "Endpoint = %s:%s\n", db_value(row, 0, "public_ip"), db_value(row, 0, "listen_port"));
	if (site)
		add_line(text, "AllowedIPs", vpc);
	else
		add(text, "AllowedIPs = %s%s%s\n", vpc ? vpc : "", vpc ? ", " : "",
		    db_value(row, 0, "tunnel_subnets"));
	if (strcmp(keepalive, "0") != 0)
		add_line(text, "PersistentKeepalive", keepalive);
}

static int fill_response(struct request *request, struct response *response, const struct owned *gateway,
			 const char *peer, const PGresult *row)
{
	const char *sealed = db_value(row, 0, "psk_sealed");
	struct text text = {.buffer = calloc(1, CONFIG_SIZE)};
	WT_CLEANUP(key_wipe) struct key preshared = {0};
	int r = 0;

	if (!text.buffer)
		return -ENOMEM;
	if (sealed)
		r = unseal_preshared_key(request->sealing_key, gateway->owner, gateway->id, peer, sealed,
					 &preshared);
	if (r < 0) {
		free(text.buffer);
		return r;
	}
	write_config(&text, row, sealed ? &preshared : NULL);
	response->text = text.buffer;
	response->content_type = "text/plain; charset=utf-8";
	response->wipe = true;
	response->status = 200;
	snprintf(response->disposition, sizeof(response->disposition), "%s.conf",
		 db_value(row, 0, "config_name"));
	return 0;
}

int get_peer_config(struct request *request, struct response *response)
{
	_cleanup_result_ PGresult *row = NULL;
	char peer[UUID_TEXT_SIZE];
	struct owned gateway;
	int r;

	r = find_gateway(request, response, &gateway);
	if (r == 0)
		r = find_peer(request, response, &gateway, peer);
	if (r == 0)
		r = DB_QUERY(request->db, &row, config_sql, gateway.owner, gateway.id, peer);
	if (r < 0)
		return r;
	if (db_value(row, 0, "psk_sealed") && request->principal.role == ROLE_ADMIN &&
	    strcmp(request->principal.user, gateway.owner) != 0)
		return refuse(response, 403, NULL,
			      "this configuration holds a preshared key: only the owner may have it");
	if (!db_value(row, 0, "public_key") || !db_value(row, 0, "public_ip"))
		return refuse(response, 409, NULL,
			      "gateway %s has no key and address yet: it is not deployed",
			      db_value(row, 0, "gateway"));
	r = audit(request, "config", peer, gateway.owner, NULL);
	return r < 0 ? r : fill_response(request, response, &gateway, peer, row);
}
