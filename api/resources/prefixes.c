// SPDX-License-Identifier: BSD-2-Clause
#include "resources/prefixes.h"

#include "resources/common.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REST "interval '10 minutes'"
/* IPv6 addresses are given out from the lowest of a subnet: no gateway has more peers than these. */
#define MAX_HOST 65535u

/* The first network that overlaps something of another's, with what that is. $5: whether they are tunnel
 * addresses. */
static const char overlap_sql[] =
	"SELECT w.cidr, o.what FROM gateway.gateway g, unnest($4::cidr[]) WITH ORDINALITY w (cidr, n), "
	"LATERAL ("
	"SELECT s.cidr || ' of VPC ' || v.name AS what FROM gateway.subnet s JOIN gateway.vpc v ON v.owner = "
	"s.owner "
	"AND v.id = s.vpc WHERE s.owner = g.owner AND s.vpc = g.vpc AND s.cidr::inet && w.cidr::inet "
	"UNION ALL SELECT t || ', a tunnel subnet of gateway ' || g.name FROM unnest(ARRAY[g.tunnel_subnet, "
	"g.tunnel_subnet6]) t WHERE NOT $5::boolean AND t::inet && w.cidr::inet "
	"UNION ALL SELECT host(g.public_ip) || ', the public address of gateway ' || g.name WHERE "
	"g.public_ip <<= "
	"w.cidr::inet "
	"UNION ALL SELECT x.cidr || ' of peer ' || p.name FROM gateway.prefix x JOIN gateway.peer p ON "
	"p.owner = x.owner "
	"AND p.gateway = x.gateway AND p.id = x.peer WHERE x.owner = g.owner AND x.gateway = g.id AND "
	"x.freed IS NULL "
	"AND x.peer <> $3::uuid AND x.cidr::inet && w.cidr::inet) o "
	"WHERE g.owner = $1 AND g.id = $2 ORDER BY w.n LIMIT 1";

static int check_overlap(struct request *request, struct response *response, const struct owned *gateway,
			 const char *peer, const char *cidrs, bool tunnel)
{
	_cleanup_result_ PGresult *rows = NULL;
	const char *field, *cidr;
	int r;

	r = DB_QUERY(request->db, &rows, overlap_sql, gateway->owner, gateway->id, peer, cidrs,
		     tunnel ? "true" : "false");
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	cidr = db_value(rows, 0, "cidr");
	field = !tunnel ? "allowed_ips" : strchr(cidr, ':') ? "tunnel_ip6" : "tunnel_ip";
	return refuse(response, 409, field,
		      "%s %s of this peer overlaps %s; accepted is what overlaps nothing", field, cidr,
		      db_value(rows, 0, "what"));
}

/* What is gone is freed before what is new is taken: the constraint sees no overlap with oneself. */
static int replace(struct request *request, const struct owned *gateway, const char *peer, const char *cidrs,
		   bool tunnel)
{
	int r;

	r = DB_EXECUTE(
		request->db,
		"UPDATE gateway.prefix SET freed = now() WHERE owner = $1 AND gateway = $2 AND peer = $3 "
		"AND freed IS NULL AND cidr <> ALL ($4::cidr[])",
		gateway->owner, gateway->id, peer, cidrs);
	if (r >= 0 && tunnel) /* the row of an address that has rested goes to who has it now */
		r = DB_EXECUTE(
			request->db,
			"UPDATE gateway.prefix SET peer = $3, freed = NULL WHERE owner = $1 AND gateway = $2 "
			"AND tunnel AND freed IS NOT NULL AND cidr = ANY ($4::cidr[])",
			gateway->owner, gateway->id, peer, cidrs);
	if (r >= 0)
		r = DB_EXECUTE(request->db,
			       "INSERT INTO gateway.prefix (owner, gateway, peer, cidr, tunnel) "
			       "SELECT $1, $2, $3, w, $5::boolean FROM unnest($4::cidr[]) w WHERE NOT EXISTS "
			       "(SELECT FROM "
			       "gateway.prefix x WHERE x.owner = $1 AND x.gateway = $2 AND x.peer = $3 AND "
			       "x.cidr = w "
			       "AND x.freed IS NULL)",
			       gateway->owner, gateway->id, peer, cidrs, tunnel ? "true" : "false");
	return r < 0 ? r : 0;
}

/* P7: which ranges sites may use is the operator's, per location. */
static int check_site_ranges(struct request *request, struct response *response, const struct owned *gateway,
			     const char *cidrs)
{
	_cleanup_result_ PGresult *rows = NULL;
	int r;

	r = DB_QUERY(
		request->db, &rows,
		"SELECT w.cidr, l.name, coalesce(nullif(array_to_string(l.site_ranges, ', '), ''), 'none') "
		"AS ranges FROM gateway.gateway g JOIN gateway.location l ON l.id = g.location, "
		"unnest($3::cidr[]) WITH ORDINALITY w (cidr, n) WHERE g.owner = $1 AND g.id = $2 AND NOT "
		"EXISTS (SELECT FROM unnest(l.site_ranges) s WHERE w.cidr::inet <<= s::inet) "
		"ORDER BY w.n LIMIT 1",
		gateway->owner, gateway->id, cidrs);
	if (r < 0 || PQntuples(rows) == 0)
		return r;
	return refuse(response, 422, "allowed_ips",
		      "allowed_ips %s is in no range that sites may use in location %.63s; accepted are "
		      "networks within: %.250s",
		      db_value(rows, 0, "cidr"), db_value(rows, 0, "name"), db_value(rows, 0, "ranges"));
}

int set_site_prefixes(struct request *request, struct response *response, const struct owned *gateway,
		      const char *peer, const struct cidr *networks, size_t n)
{
	char cidrs[MAX_ALLOWED_IPS * CIDR_TEXT_SIZE + 8] = "{", one[CIDR_TEXT_SIZE];
	size_t used = 1;
	int r;

	for (size_t i = 0; i < n && i < MAX_ALLOWED_IPS; i++)
		used += (size_t)snprintf(cidrs + used, sizeof(cidrs) - used, "%s%s", i ? "," : "",
					 cidr_format(&networks[i], one));
	snprintf(cidrs + used, sizeof(cidrs) - used, "}");
	r = check_site_ranges(request, response, gateway, cidrs);
	if (r < 0)
		return r;
	r = check_overlap(request, response, gateway, peer, cidrs, false);
	return r < 0 ? r : replace(request, gateway, peer, cidrs, false);
}

/* The highest host number that can be given out. */
static unsigned last_host(const struct cidr *subnet)
{
	unsigned bits = cidr_max_length(subnet) - subnet->prefix_length;
	/* IPv4's last address is the broadcast's. */
	unsigned hosts = bits >= 16 ? MAX_HOST : (1u << bits) - 1;

	return subnet->family == AF_INET ? hosts - 1 : hosts;
}

/* Why there is none. */
static int refuse_full(struct request *request, struct response *response, const struct owned *gateway,
		       const char *field, const char *subnet)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(
		request->db, &row,
		"SELECT count(*) FILTER (WHERE x.freed IS NULL) AS held, count(*) FILTER (WHERE x.freed > "
		"now() - " REST ") AS resting FROM gateway.prefix x WHERE x.owner = $1 AND x.gateway = $2 "
		"AND x.tunnel AND x.cidr <<= $3::cidr",
		gateway->owner, gateway->id, subnet);
	if (r < 0)
		return r;
	return refuse(response, 422, field,
		      "%s: no free address in the tunnel subnet %s: %s are held and %s rest for 10 minutes "
		      "after use",
		      field, subnet, db_value(row, 0, "held"), db_value(row, 0, "resting"));
}

static int next_free(struct request *request, struct response *response, const struct owned *gateway,
		     const char *field, const char *subnet_text, char ret_ip[static CIDR_TEXT_SIZE])
{
	_cleanup_result_ PGresult *row = NULL;
	struct cidr subnet;
	char last[16];
	int r;

	r = cidr_parse(subnet_text, &subnet);
	if (r < 0)
		return r;
	snprintf(last, sizeof(last), "%u", last_host(&subnet));
	r = DB_QUERY(request->db, &row, "SELECT host(gateway.next_tunnel_address($1, $2, $3, $4)) AS ip",
		     gateway->owner, gateway->id, subnet_text, last);
	if (r < 0)
		return r;
	if (!db_value(row, 0, "ip"))
		return refuse_full(request, response, gateway, field, subnet_text);
	snprintf(ret_ip, CIDR_TEXT_SIZE, "%s", db_value(row, 0, "ip"));
	return 0;
}

/* Not the subnet's own address, not the gateway's (the first), not the broadcast's. */
static bool is_usable(const struct cidr *subnet, const struct cidr *address)
{
	struct cidr last = *address, gateway = cidr_network(subnet), network = gateway;

	network.prefix_length = gateway.prefix_length = cidr_max_length(subnet);
	gateway.bytes[cidr_max_length(subnet) / 8 - 1] |= 1;
	for (unsigned bit = subnet->prefix_length; bit < cidr_max_length(subnet); bit++)
		last.bytes[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	if (subnet->family == AF_INET && cidr_equal(&last, address))
		return false;
	return cidr_contains(subnet, address) && !cidr_equal(address, &network) &&
	       !cidr_equal(address, &gateway);
}

static int check_rest(struct request *request, struct response *response, const struct owned *gateway,
		      const char *peer, const char *field, const char *ip)
{
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row,
		     "SELECT " SQL_TIME(
			     "max(x.freed) + " REST) " AS until FROM gateway.prefix x WHERE x.owner = $1 "
						     "AND x.gateway = $2 AND x.cidr = $4::cidr AND x.peer <> "
						     "$3::uuid AND x.freed > now() - " REST,
		     gateway->owner, gateway->id, peer, ip);
	if (r < 0 || !db_value(row, 0, "until"))
		return r;
	return refuse(response, 409, field,
		      "%s %s was another peer's and rests until %s; accepted is another address, or null for "
		      "the next free one",
		      field, ip, db_value(row, 0, "until"));
}

static int check_wished(struct request *request, struct response *response, const struct owned *gateway,
			const char *peer, const char *field, const char *subnet_text, const char *ip)
{
	struct cidr subnet, address;
	int r;

	r = cidr_parse(subnet_text, &subnet);
	if (r == 0)
		r = cidr_parse_address(ip, &address);
	if (r < 0)
		return r;
	if (!is_usable(&subnet, &address))
		return refuse(response, 422, field,
			      "%s is \"%s\"; accepted is an address of the tunnel subnet %s behind its "
			      "first, which is the gateway's",
			      field, ip, subnet_text);
	return check_rest(request, response, gateway, peer, field, ip);
}

/* What the gateway's subnets are and what the peer has of them now. */
static const char current_sql[] =
	"SELECT g.tunnel_subnet, g.tunnel_subnet6, (SELECT host(x.cidr) FROM gateway.prefix x WHERE x.owner "
	"= g.owner "
	"AND x.gateway = g.id AND x.peer = $3 AND x.freed IS NULL AND family(x.cidr) = 4 LIMIT 1) AS ip, "
	"(SELECT host(x.cidr) FROM gateway.prefix x WHERE x.owner = g.owner AND x.gateway = g.id AND x.peer "
	"= $3 "
	"AND x.freed IS NULL AND family(x.cidr) = 6 LIMIT 1) AS ip6 FROM gateway.gateway g WHERE g.owner = "
	"$1 AND g.id = $2";

static int choose_address(struct request *request, struct response *response, const struct owned *gateway,
			  const char *peer, const char *field, const char *subnet, const char *wished,
			  const char *current, char ret_ip[static CIDR_TEXT_SIZE])
{
	const char *kept = *wished ? wished : current;

	if (!kept)
		return next_free(request, response, gateway, field, subnet, ret_ip);
	snprintf(ret_ip, CIDR_TEXT_SIZE, "%s", kept);
	if (!*wished)
		return 0;
	return check_wished(request, response, gateway, peer, field, subnet, wished);
}

int set_tunnel_addresses(struct request *request, struct response *response, const struct owned *gateway,
			 const char *peer, const char *tunnel_ip, const char *tunnel_ip6)
{
	char ip[CIDR_TEXT_SIZE], ip6[CIDR_TEXT_SIZE], cidrs[2 * CIDR_TEXT_SIZE + 16];
	_cleanup_result_ PGresult *row = NULL;
	int r;

	r = DB_QUERY(request->db, &row, current_sql, gateway->owner, gateway->id, peer);
	if (r == 0)
		r = choose_address(request, response, gateway, peer, "tunnel_ip",
				   db_value(row, 0, "tunnel_subnet"), tunnel_ip, db_value(row, 0, "ip"), ip);
	if (r == 0)
		r = choose_address(request, response, gateway, peer, "tunnel_ip6",
				   db_value(row, 0, "tunnel_subnet6"), tunnel_ip6, db_value(row, 0, "ip6"),
				   ip6);
	if (r < 0)
		return r;
	snprintf(cidrs, sizeof(cidrs), "{%s/32,%s/128}", ip, ip6);
	r = check_overlap(request, response, gateway, peer, cidrs, true);
	return r < 0 ? r : replace(request, gateway, peer, cidrs, true);
}

int free_prefixes(struct request *request, const struct owned *gateway, const char *peer)
{
	return replace(request, gateway, peer, "{}", false);
}
