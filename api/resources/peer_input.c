// SPDX-License-Identifier: BSD-2-Clause
#include "resources/peer_input.h"

#include "base/host_port.h"
#include "resources/address_input.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_DNS             4
#define MAX_SEARCH_DOMAINS  6    /* as many as resolv.conf(5) knows everywhere */
#define SITE_KEEPALIVE      "25" /* so that the tunnel comes up by itself, and stays through a NAT */
#define MAX_ENDPOINT_LENGTH 260

static const char *const kinds[] = {"road_warrior", "site_to_site", NULL};

/* Both as PostgreSQL reads the inner part of an array. */
struct dns_entries {
	size_t n_servers, n_domains;
	char servers[MAX_DNS * CIDR_TEXT_SIZE];
	char domains[MAX_SEARCH_DOMAINS * 258];
};

int peer_input_kind(const struct request *request, struct response *response, bool *ret_site)
{
	struct form form = form_of(request, response);
	const char *kind = form_choice(&form, "kind", OPTIONAL, kinds);

	*ret_site = kind && strcmp(kind, "site_to_site") == 0;
	return form.error;
}

/* Keys are never quoted: what was pasted here may be the private one. */
static void read_public_key(struct peer_input *input, enum need need)
{
	const char *text = form_secret(&input->form, "public_key", need, 4096);

	if (!text)
		return;
	if (key_parse(text, &input->public_key) < 0 || !key_can_agree(&input->public_key)) {
		form_refuse(&input->form, "public_key",
			    "public_key (%zu characters, not quoted) is not a WireGuard key; accepted are "
			    "the 44 characters of "
			    "base64 that `wg pubkey` prints",
			    strlen(text));
		return;
	}
	input->has_public_key = true;
}

#define ACCEPTED_PRESHARED_KEY                                                                               \
	"accepted are the 44 characters of base64 that `wg genpsk` prints, true to have one made, or null "  \
	"for none"

/* A key that is all zeros is no key to WireGuard: it would be told, and not used. */
static void parse_preshared_key(struct peer_input *input, const char *text)
{
	if (key_parse(text, &input->preshared_key) < 0)
		form_refuse(&input->form, "preshared_key",
			    "preshared_key (not quoted) is not a WireGuard key; " ACCEPTED_PRESHARED_KEY);
	else if (key_is_zero(&input->preshared_key))
		form_refuse(&input->form, "preshared_key",
			    "preshared_key is all zeros, which WireGuard takes for "
			    "none; " ACCEPTED_PRESHARED_KEY);
}

static void read_preshared_key(struct peer_input *input)
{
	struct form *form = &input->form;
	const json_t *value = json_object_get(form->body, "preshared_key");
	const char *text;

	(void)form_takes_null(form, "preshared_key");

	input->preshared_change = !value                ? PRESHARED_AS_IT_WAS
				  : json_is_null(value) ? PRESHARED_NONE
							: PRESHARED_NEW;
	if (json_is_true(value)) {
		(void)form_bool(form, "preshared_key", OPTIONAL);
		key_generate_preshared(&input->preshared_key);
	} else if (value && !json_is_null(value) && !json_is_string(value)) {
		form_refuse(form, "preshared_key",
			    "preshared_key (not quoted) is neither text nor true; " ACCEPTED_PRESHARED_KEY);
	} else {
		text = form_secret(form, "preshared_key", OPTIONAL, 4096);
		if (text)
			parse_preshared_key(input, text);
	}
}

static void read_tunnel_ip(struct peer_input *input, const char *field, int family,
			   char ret_text[static CIDR_TEXT_SIZE])
{
	const char *text = form_text(&input->form, field, OPTIONAL, 100);
	struct cidr address;

	if (!text)
		return;
	if (cidr_parse_address(text, &address) < 0 || address.family != family) {
		form_refuse(&input->form, field,
			    "%s is \"%.64s\"; accepted is an %s address of the gateway's tunnel subnet, or "
			    "null for the next free "
			    "one",
			    field, text, family == AF_INET ? "IPv4" : "IPv6");
		return;
	}
	cidr_format_address(&address, ret_text);
}

/* An address of a DNS server, or else a search domain; false: it is neither, or one too many. */
static bool read_dns_entry(struct peer_input *input, size_t index, const json_t *entry,
			   struct dns_entries *entries)
{
	const char *given = json_string_value(entry);
	struct cidr address;
	char label[32], shown[ITEM_TEXT_SIZE], *end;

	snprintf(label, sizeof(label), "dns[%zu]", index);
	if (given && cidr_parse_address(given, &address) == 0 && entries->n_servers < MAX_DNS) {
		end = entries->servers + strlen(entries->servers);
		if (entries->n_servers++ > 0)
			*end++ = ',';
		cidr_format_address(&address, end);
		return check_network(&input->form, "dns", label, &address, SPECIAL_UNUSABLE,
				     ACCEPTED_ADDRESS);
	}
	if (given && is_host_name(given, strlen(given)) && entries->n_domains < MAX_SEARCH_DOMAINS) {
		snprintf(entries->domains + strlen(entries->domains),
			 sizeof(entries->domains) - strlen(entries->domains), "%s\"%s\"",
			 entries->n_domains++ > 0 ? "," : "", given);
		return true;
	}
	form_refuse(&input->form, "dns",
		    "%s is %s; accepted are up to %d IP addresses of DNS servers, and up to %d search "
		    "domains such as corp.example",
		    label, show_item(entry, shown), MAX_DNS, MAX_SEARCH_DOMAINS);
	return false;
}

static int read_dns(struct peer_input *input)
{
	const json_t *list = form_array(&input->form, "dns", OPTIONAL), *entry;
	struct dns_entries entries = {0};
	size_t index;

	if (!list)
		return 0;
	json_array_foreach (list, index, entry) {
		if (!read_dns_entry(input, index, entry, &entries))
			return 0;
	}
	/* wg-quick and the apps change nothing then: a domain that does nothing is a mistake. */
	if (entries.n_domains > 0 && entries.n_servers == 0)
		form_refuse(&input->form, "dns",
			    "dns has the search domains %.100s and no server's address; accepted are search "
			    "domains "
			    "beside the IP address of a DNS server",
			    entries.domains);
	if (asprintf(&input->dns, "{%s}", entries.servers) < 0 ||
	    asprintf(&input->search_domains, "{%s}", entries.domains) < 0)
		return -ENOMEM;
	return 0;
}

#define ACCEPTED_ENDPOINT                                                                                    \
	"HOST:PORT with a host's name, four decimal numbers or an IPv6 address in brackets, and a port "     \
	"from 1 to 65535, or null for a site that calls in"

/* Names that are the host's own wherever they are resolved (RFC 6761, section 6.3). */
static bool is_localhost(const char *text)
{
	static const char word[] = "localhost";
	size_t length = strcspn(text, ":"), last = strlen(word);

	return length >= last && strncasecmp(text + length - last, word, last) == 0 &&
	       (length == last || text[length - last - 1] == '.');
}

static void read_endpoint(struct peer_input *input)
{
	const char *text = form_text(&input->form, "endpoint", OPTIONAL, MAX_ENDPOINT_LENGTH);
	struct host_port endpoint;

	input->has_endpoint = form_takes_null(&input->form, "endpoint");
	if (!text)
		return;
	if (host_port_parse(text, &endpoint) < 0 || (endpoint.is_name && is_localhost(text))) {
		form_refuse(&input->form, "endpoint",
			    "endpoint is \"%.100s\"; accepted is " ACCEPTED_ENDPOINT, text);
		return;
	}
	if (!endpoint.is_name) {
		if (!check_network(&input->form, "endpoint", "endpoint", &endpoint.address, SPECIAL_UNUSABLE,
				   ACCEPTED_ADDRESS))
			return;
		cidr_format_address(&endpoint.address, input->endpoint_address);
	}
	input->endpoint = text;
}

static bool read_allowed_ip(struct peer_input *input, size_t index, const json_t *item)
{
	const char *text = json_string_value(item);
	struct cidr *cidr = &input->allowed_ips[index];
	char given[CIDR_TEXT_SIZE], other[CIDR_TEXT_SIZE], label[32], shown[ITEM_TEXT_SIZE];

	if (!text || cidr_parse(text, cidr) < 0 || !cidr_is_network(cidr)) {
		form_refuse(
			&input->form, "allowed_ips",
			"allowed_ips[%zu] is %s; accepted is a network such as 192.168.7.0/24, with no bit "
			"set beyond the prefix",
			index, show_item(item, shown));
		return false;
	}
	snprintf(label, sizeof(label), "allowed_ips[%zu]", index);
	if (!check_network(&input->form, "allowed_ips", label, cidr, SPECIAL_UNUSABLE, ACCEPTED_NETWORK))
		return false;
	for (size_t i = 0; i < index; i++) {
		if (!cidr_overlaps(cidr, &input->allowed_ips[i]))
			continue;
		form_refuse(&input->form, "allowed_ips",
			    "allowed_ips[%zu] %s overlaps allowed_ips[%zu] %s; accepted are networks that do "
			    "not overlap",
			    index, cidr_format(cidr, given), i, cidr_format(&input->allowed_ips[i], other));
		return false;
	}
	return true;
}

static int read_allowed_ips(struct peer_input *input, enum need need)
{
	const json_t *list = form_array(&input->form, "allowed_ips", need);
	size_t n = json_array_size(list);

	if (!list)
		return 0;
	if (n < 1 || n > MAX_ALLOWED_IPS) {
		form_refuse(&input->form, "allowed_ips",
			    "allowed_ips has %zu items; accepted are 1 to %d networks", n, MAX_ALLOWED_IPS);
		return 0;
	}
	input->allowed_ips = calloc(n, sizeof(*input->allowed_ips));
	if (!input->allowed_ips)
		return -ENOMEM;
	for (size_t i = 0; i < n && read_allowed_ip(input, i, json_array_get(list, i)); i++)
		input->n_allowed_ips = i + 1;
	return 0;
}

static int read_of_kind(struct peer_input *input, enum need need)
{
	if (!input->site) {
		read_tunnel_ip(input, "tunnel_ip", AF_INET, input->tunnel_ip);
		read_tunnel_ip(input, "tunnel_ip6", AF_INET6, input->tunnel_ip6);
		return read_dns(input);
	}
	read_endpoint(input);
	read_preshared_key(input);
	if (need == REQUIRED && !input->keepalive)
		input->keepalive = SITE_KEEPALIVE;
	return read_allowed_ips(input, need);
}

int peer_input_read(const struct request *request, struct response *response, bool site, enum need need,
		    struct peer_input *input)
{
	struct form *form = &input->form;
	const char *kind;
	int r;

	*input = (struct peer_input){.site = site, .form = form_of(request, response)};
	kind = form_choice(form, "kind", OPTIONAL, kinds);
	if (kind && strcmp(kind, kinds[site]) != 0)
		form_refuse(form, "kind", "kind is \"%s\"; accepted is %s: a peer's kind never changes", kind,
			    kinds[site]);
	input->name = form_name(form, "name", need);
	read_public_key(input, need);
	input->keepalive = form_integer(form, "keepalive", OPTIONAL, 0, 65535);
	input->enabled = form_bool(form, "enabled", OPTIONAL);
	r = read_of_kind(input, need);
	return r < 0 ? r : form_end(form);
}

void peer_input_free(struct peer_input *input)
{
	key_wipe(&input->preshared_key);
	free(input->dns);
	free(input->search_domains);
	free(input->allowed_ips);
}
