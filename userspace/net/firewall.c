// SPDX-License-Identifier: BSD-2-Clause
/* The text of the rule set. What each rule is for: docs/decisions/firewall.md. */
#include "net/net.h"

#include "net/net_internal.h"

#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/*
 * What stays from one rule set to the next. Base chains are never deleted: between the two generations of a
 * transaction an old chain would be empty with its policy still "drop", and packets would be lost.
 */
static const char skeleton[] =
	"\tcounter input_dropped { }\n"
	"\tcounter output_dropped { }\n"
	"\tcounter forward_dropped { }\n"
	"\tcounter forward_spoofed { }\n"
	"\tcounter forward_link_local { }\n"
	"\tcounter forward_peer_to_peer { }\n"
	"\tchain input { type filter hook input priority filter; policy drop; }\n"
	"\tchain forward { type filter hook forward priority filter; policy drop; }\n"
	"\tchain output { type filter hook output priority filter; policy drop; }\n"
	"\tchain clamp { type filter hook forward priority mangle; policy accept; }\n"
	"\tchain postrouting { type nat hook postrouting priority srcnat; policy accept; }\n"
	"\tchain input_tunnel { }\n"
	"\tchain output_tunnel { }\n"
	"\tchain from_tunnel { }\n"
	"\tchain to_tunnel { }\n";

static const int families[] = {AF_INET, AF_INET6};
static const char *const set_names[] = {"tunnel", "remote", "peers", "vpc", "api"};

/*
 * IPsec must not end here: with offload the kernel decrypts before the meter sees a packet, and encrypts
 * behind it. So what was decrypted goes nowhere; that the gateway sends no ESP follows from what it may send.
 */
/* The tunnel may ask whether the gateway is alive, at the tunnel's own address: nothing else. */
static const char input_tunnel[] = "\tchain input_tunnel {\n"
				   "\t\tmeta ipsec exists counter name input_dropped drop\n"
				   "\t\ticmp type echo-request fib daddr . iif type local accept\n"
				   "\t\ticmpv6 type echo-request fib daddr . iif type local accept\n"
				   "\t\tcounter name input_dropped drop\n"
				   "\t}\n";

/* Neighbour discovery is link-local by its hop limit; MLD lets snooping bridges pass it on. */
static const char input_outside[] =
	"\t\tct state established,related accept\n"
	"\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } accept\n"
	"\t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } "
	"accept\n"
	"\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } ip6 hoplimit 255 "
	"accept\n"
	"\t\ticmpv6 type mld-listener-query ip6 saddr fe80::/10 accept\n";

static const char output_tunnel[] =
	"\tchain output_tunnel {\n"
	"\t\ticmp type { echo-reply, destination-unreachable, time-exceeded, parameter-problem } accept\n"
	"\t\ticmpv6 type { echo-reply, destination-unreachable, packet-too-big, time-exceeded, "
	"parameter-problem } accept\n"
	"\t\tcounter name output_dropped drop\n"
	"\t}\n";

static const char output_errors[] =
	"\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } accept\n"
	"\t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } "
	"accept\n"
	"\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept\n"
	"\t\ticmpv6 type { mld-listener-report, mld2-listener-report } accept\n";

/*
 * Both sides: a source must be routed back through the interface that it came from. The sets say it a second
 * time, for the moments in which a route is not there.
 */
static const char forward_guards[] = "\t\tip saddr 169.254.0.0/16 counter name forward_link_local drop\n"
				     "\t\tip daddr 169.254.0.0/16 counter name forward_link_local drop\n"
				     "\t\tip6 saddr fe80::/10 counter name forward_link_local drop\n"
				     "\t\tip6 daddr fe80::/10 counter name forward_link_local drop\n"
				     "\t\tfib saddr . iif oif missing counter name forward_spoofed drop\n"
				     "\t\tct state invalid counter name forward_dropped drop\n";

static const char from_tunnel[] = "\tchain from_tunnel {\n"
				  "\t\tmeta ipsec exists counter name forward_dropped drop\n"
				  "\t\tip saddr != @peers4 counter name forward_spoofed drop\n"
				  "\t\tip6 saddr != @peers6 counter name forward_spoofed drop\n"
				  "\t\tip daddr @api4 counter name forward_dropped drop\n"
				  "\t\tip6 daddr @api6 counter name forward_dropped drop\n"
				  "\t\tip daddr @vpc4 accept\n"
				  "\t\tip6 daddr @vpc6 accept\n"
				  "\t\tcounter name forward_dropped drop\n"
				  "\t}\n";

static const char to_tunnel[] = "\tchain to_tunnel {\n"
				"\t\tip saddr @peers4 counter name forward_spoofed drop\n"
				"\t\tip6 saddr @peers6 counter name forward_spoofed drop\n"
				"\t\tct state established,related accept\n"
				"\t\tip saddr @vpc4 ip daddr @remote4 accept\n"
				"\t\tip6 saddr @vpc6 ip6 daddr @remote6 accept\n"
				"\t\tcounter name forward_dropped drop\n"
				"\t}\n";

/* A failed write shows in ferror(), once at the end. */
static void emit(FILE *out, const char *format, ...) WT_PRINTF(2, 3);

static void emit(FILE *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
}

/* The name goes into the rules in quotes. */
static bool is_plain_name(const char *name)
{
	static const char accepted[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_=+.-";
	size_t length = strlen(name);

	return length > 0 && length < IFNAMSIZ && strspn(name, accepted) == length;
}

static int version_of(int family)
{
	return family == AF_INET ? 4 : 6;
}

/* The networks of one family, sorted: a prefix then comes before all that it contains. */
static int collect(const struct cidr *cidrs, size_t n, int family, struct net_cidrs *list)
{
	for (size_t i = 0; i < n; i++) {
		struct cidr network = cidr_network(&cidrs[i]);
		int r = network.family == family ? net_cidrs_add(list, &network) : 0;

		if (r < 0)
			return r;
	}
	net_cidrs_sort(list);
	return 0;
}

/* Interval sets refuse overlapping elements; prefixes overlap only by containing one another. */
static void print_elements(FILE *out, const char *name, int family, const struct net_cidrs *list)
{
	const struct cidr *last = NULL;
	char text[CIDR_TEXT_SIZE];

	for (size_t i = 0; i < list->n; i++) {
		const struct cidr *cidr = &list->items[i];

		if (last && cidr_contains(last, cidr))
			continue;
		if (!last)
			emit(out, "add element inet wiretoll %s%d { ", name, version_of(family));
		emit(out, "%s%s", last ? ", " : "", cidr_format(cidr, text));
		last = cidr;
	}
	if (last)
		emit(out, " }\n");
}

/* Fills NAME4 and NAME6 with the prefixes of one list, or of two. */
static int fill_sets(FILE *out, const char *name, const struct cidr *first, size_t n_first,
		     const struct cidr *second, size_t n_second)
{
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		_cleanup_cidrs_ struct net_cidrs list = {0};
		int r = collect(first, n_first, families[i], &list);

		if (r == 0)
			r = collect(second, n_second, families[i], &list);
		if (r < 0)
			return r;
		print_elements(out, name, families[i], &list);
	}
	return 0;
}

static int fill_all_sets(FILE *out, const struct net_firewall *firewall)
{
	int r = fill_sets(out, "tunnel", firewall->tunnel_subnets, firewall->n_tunnel_subnets, NULL, 0);

	if (r == 0)
		r = fill_sets(out, "remote", firewall->remote_subnets, firewall->n_remote_subnets, NULL, 0);
	if (r == 0)
		r = fill_sets(out, "peers", firewall->tunnel_subnets, firewall->n_tunnel_subnets,
			      firewall->remote_subnets, firewall->n_remote_subnets);
	if (r == 0)
		r = fill_sets(out, "vpc", firewall->vpc_subnets, firewall->n_vpc_subnets, NULL, 0);
	if (r == 0)
		r = fill_sets(out, "api", firewall->api_addresses, firewall->n_api_addresses, NULL, 0);
	return r;
}

/* Brings the table to an empty start, whether it was there or not. */
static void print_skeleton(FILE *out)
{
	emit(out, "table inet wiretoll {\n");
	for (size_t i = 0; i < ARRAY_SIZE(set_names); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(families); j++)
			emit(out, "\tset %s%d { type ipv%d_addr; flags interval; }\n", set_names[i],
			     version_of(families[j]), version_of(families[j]));
	}
	emit(out, "%s}\nflush table inet wiretoll\n", skeleton);
	for (size_t i = 0; i < ARRAY_SIZE(set_names); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(families); j++)
			emit(out, "flush set inet wiretoll %s%d\n", set_names[i], version_of(families[j]));
	}
}

static void print_input(FILE *out, const struct net_firewall *firewall)
{
	fputs(input_tunnel, out);
	emit(out,
	     "\tchain input {\n"
	     "\t\tiif \"lo\" accept\n"
	     "\t\tiifname \"%s\" jump input_tunnel\n"
	     "%s",
	     firewall->tunnel_interface, input_outside);
	if (firewall->listen_port > 0)
		emit(out, "\t\tudp dport %u accept\n", firewall->listen_port);
	fputs("\t\tcounter name input_dropped drop\n\t}\n", out);
}

static void print_output(FILE *out, const struct net_firewall *firewall)
{
	fputs(output_tunnel, out);
	emit(out,
	     "\tchain output {\n"
	     "\t\toif \"lo\" accept\n"
	     "\t\toifname \"%s\" jump output_tunnel\n"
	     "\t\tct state established,related accept\n"
	     "%s",
	     firewall->tunnel_interface, output_errors);
	if (firewall->listen_port > 0)
		emit(out, "\t\tudp sport %u accept\n", firewall->listen_port);
	if (firewall->api_port > 0)
		emit(out,
		     "\t\tip daddr @api4 tcp dport %u accept\n"
		     "\t\tip6 daddr @api6 tcp dport %u accept\n",
		     firewall->api_port, firewall->api_port);
	if (firewall->allow_dns)
		fputs("\t\tmeta l4proto { tcp, udp } th dport 53 accept\n", out);
	fputs("\t\tcounter name output_dropped drop\n\t}\n", out);
}

static void print_forward(FILE *out, const char *tunnel)
{
	fputs(from_tunnel, out);
	fputs(to_tunnel, out);
	emit(out,
	     "\tchain forward {\n"
	     "%s"
	     "\t\tiifname \"%s\" oifname \"%s\" counter name forward_peer_to_peer drop\n"
	     "\t\tiifname \"%s\" jump from_tunnel\n"
	     "\t\toifname \"%s\" jump to_tunnel\n"
	     "\t\tcounter name forward_dropped drop\n"
	     "\t}\n",
	     forward_guards, tunnel, tunnel, tunnel, tunnel);
	/* It only ever lowers the option, to what the smaller of both directions' routes carries. */
	emit(out,
	     "\tchain clamp {\n"
	     "\t\tiifname \"%s\" tcp flags syn tcp option maxseg size set rt mtu\n"
	     "\t\toifname \"%s\" tcp flags syn tcp option maxseg size set rt mtu\n"
	     "\t}\n",
	     tunnel, tunnel);
}

static void print_masquerade(FILE *out, const struct net_firewall *firewall)
{
	const char *sources = firewall->masquerade == NET_MASQUERADE_ALL ? "peers" : "tunnel";

	if (firewall->masquerade == NET_MASQUERADE_NONE)
		return;
	emit(out,
	     "\tchain postrouting {\n"
	     "\t\toifname != \"%s\" ip saddr @%s4 ip daddr @vpc4 masquerade\n"
	     "\t\toifname != \"%s\" ip6 saddr @%s6 ip6 daddr @vpc6 masquerade\n"
	     "\t}\n",
	     firewall->tunnel_interface, sources, firewall->tunnel_interface, sources);
}

static int print_firewall(FILE *out, const struct net_firewall *firewall)
{
	int r;

	print_skeleton(out);
	r = fill_all_sets(out, firewall);
	if (r < 0)
		return r;
	emit(out, "table inet wiretoll {\n");
	print_input(out, firewall);
	print_output(out, firewall);
	print_forward(out, firewall->tunnel_interface);
	print_masquerade(out, firewall);
	emit(out, "}\n");
	return ferror(out) ? -ENOMEM : 0;
}

int net_firewall_render(const struct net_firewall *firewall, char **ret_text)
{
	char *text = NULL;
	size_t size;
	FILE *out;
	int r;

	if (!is_plain_name(firewall->tunnel_interface))
		return -EINVAL;
	out = open_memstream(&text, &size);
	if (!out)
		return -ENOMEM;
	r = print_firewall(out, firewall);
	if (fclose(out) != 0 && r == 0)
		r = -ENOMEM;
	if (r < 0) {
		free(text);
		return r;
	}
	*ret_text = text;
	return 0;
}
