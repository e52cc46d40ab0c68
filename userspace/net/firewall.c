// SPDX-License-Identifier: BSD-2-Clause
/* The text of the rule set. What each rule is for: docs/decisions/firewall.md. */
#include "net/net.h"

#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Rules without any parameter. */
static const char counters[] = "\tcounter input_dropped { }\n"
			       "\tcounter output_dropped { }\n"
			       "\tcounter forward_dropped { }\n"
			       "\tcounter forward_spoofed { }\n"
			       "\tcounter forward_link_local { }\n"
			       "\tcounter forward_peer_to_peer { }\n";

/* The tunnel may ask whether the gateway is alive, at the tunnel's own address: nothing else. */
static const char input_tunnel[] = "\tchain input_tunnel {\n"
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

static size_t print_elements(FILE *out, int family, const struct cidr *cidrs, size_t n, size_t printed)
{
	for (size_t i = 0; i < n; i++) {
		struct cidr network = cidr_network(&cidrs[i]);
		char text[CIDR_TEXT_SIZE];

		if (network.family != family)
			continue;
		emit(out, "%s%s", printed++ ? ", " : "\t\telements = { ", cidr_format(&network, text));
	}
	return printed;
}

/* NAME4 and NAME6 with the prefixes of one list, or of two. */
static void print_sets(FILE *out, const char *name, const struct cidr *first, size_t n_first,
		       const struct cidr *second, size_t n_second)
{
	static const int families[] = {AF_INET, AF_INET6};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		int family = families[i], version = family == AF_INET ? 4 : 6;
		size_t printed;

		emit(out, "\tset %s%d {\n\t\ttype ipv%d_addr\n\t\tflags interval\n\t\tauto-merge\n", name,
		     version, version);
		printed = print_elements(out, family, first, n_first, 0);
		printed = print_elements(out, family, second, n_second, printed);
		emit(out, "%s\t}\n", printed ? " }\n" : "");
	}
}

static void print_input(FILE *out, const struct net_firewall *firewall)
{
	fputs(input_tunnel, out);
	emit(out,
	     "\tchain input {\n"
	     "\t\ttype filter hook input priority filter; policy drop;\n"
	     "\t\tiif \"lo\" accept\n"
	     "\t\tiifname \"%s\" jump input_tunnel\n"
	     "%s"
	     "\t\tudp dport %u accept\n"
	     "\t\tcounter name input_dropped drop\n"
	     "\t}\n",
	     firewall->tunnel_interface, input_outside, firewall->listen_port);
}

static void print_output(FILE *out, const struct net_firewall *firewall)
{
	fputs(output_tunnel, out);
	emit(out,
	     "\tchain output {\n"
	     "\t\ttype filter hook output priority filter; policy drop;\n"
	     "\t\toif \"lo\" accept\n"
	     "\t\toifname \"%s\" jump output_tunnel\n"
	     "\t\tct state established,related accept\n"
	     "\t\tudp sport %u accept\n"
	     "%s",
	     firewall->tunnel_interface, firewall->listen_port, output_errors);
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
	     "\t\ttype filter hook forward priority filter; policy drop;\n"
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
	     "\t\ttype filter hook forward priority mangle; policy accept;\n"
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
	     "\tchain masquerade {\n"
	     "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
	     "\t\toifname != \"%s\" ip saddr @%s4 ip daddr @vpc4 masquerade\n"
	     "\t\toifname != \"%s\" ip6 saddr @%s6 ip6 daddr @vpc6 masquerade\n"
	     "\t}\n",
	     firewall->tunnel_interface, sources, firewall->tunnel_interface, sources);
}

static void print_firewall(FILE *out, const struct net_firewall *firewall)
{
	/* Made before it is deleted, so that deleting succeeds the first time, too. */
	fputs("table inet wiretoll {}\n"
	      "delete table inet wiretoll\n"
	      "table inet wiretoll {\n",
	      out);
	print_sets(out, "tunnel", firewall->tunnel_subnets, firewall->n_tunnel_subnets, NULL, 0);
	print_sets(out, "remote", firewall->remote_subnets, firewall->n_remote_subnets, NULL, 0);
	print_sets(out, "peers", firewall->tunnel_subnets, firewall->n_tunnel_subnets,
		   firewall->remote_subnets, firewall->n_remote_subnets);
	print_sets(out, "vpc", firewall->vpc_subnets, firewall->n_vpc_subnets, NULL, 0);
	print_sets(out, "api", firewall->api_addresses, firewall->n_api_addresses, NULL, 0);
	fputs(counters, out);
	print_input(out, firewall);
	print_output(out, firewall);
	print_forward(out, firewall->tunnel_interface);
	print_masquerade(out, firewall);
	fputs("}\n", out);
}

int net_firewall_render(const struct net_firewall *firewall, char **ret_text)
{
	char *text = NULL;
	size_t size;
	FILE *out;
	bool failed;

	if (!is_plain_name(firewall->tunnel_interface) || firewall->listen_port == 0)
		return -EINVAL;
	out = open_memstream(&text, &size);
	if (!out)
		return -ENOMEM;
	print_firewall(out, firewall);
	failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(text);
		return -ENOMEM;
	}
	*ret_text = text;
	return 0;
}
