// SPDX-License-Identifier: BSD-2-Clause
/*
 * Tunnels within the tunnel, in aggregates: what the meter has counted of them, byte by byte and packet by
 * packet, is what a capture in the customer's namespace has seen, where no device makes aggregates. In the
 * virtual machine only.
 */
#include "compare.h"
#include "lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IPV4   1
#define IPV6   2
#define BOTH   (IPV4 | IPV6)
#define AMOUNT 100000

/*
 * A kind of tunnel, made at both of its ends by lines for `ip -batch`: $N is its number, t$N the device to
 * make, $L4 and $L6 are the end's own addresses, $R4 and $R6 the other's; $M4 and $M6 the end's within the
 * tunnel. `within` is what it can carry.
 */
struct kind {
	const char *name, *make;
	int within;
	int end; /* where it ends, GATEWAY or CONTAINER; with FULL=1 both */
};

#define DEVICE                                                                                               \
	"\nlink set t$N up mtu 1300 addrgenmode none\naddr add $M4/30 dev t$N\naddr add $M6/64 dev t$N "     \
	"nodad"

static const struct kind kinds[] = {
	{"ipip", "link add t$N type ipip local $L4 remote $R4" DEVICE, IPV4, GATEWAY},
	{"vxlan", "link add t$N type vxlan id 7$N local $L4 remote $R4 dstport 4789" DEVICE, BOTH, CONTAINER},
	{"sit", "link add t$N type sit local $L4 remote $R4" DEVICE, IPV6, GATEWAY},
	{"vxlan over IPv6",
	 "link add t$N type vxlan id 7$N local $L6 remote $R6 dstport 4789 udp6zerocsumtx "
	 "udp6zerocsumrx" DEVICE,
	 BOTH, CONTAINER},
	{"ip6tnl", "link add t$N type ip6tnl mode any local $L6 remote $R6 encaplimit none" DEVICE, BOTH,
	 GATEWAY},
	{"geneve", "link add t$N type geneve id 7$N remote $R4 udpcsum" DEVICE, BOTH, CONTAINER},
	{"ip6tnl with a limit", "link add t$N type ip6tnl mode any local $L6 remote $R6" DEVICE, BOTH,
	 GATEWAY},
	{"ipip in fou",
	 "link add t$N type ipip local $L4 remote $R4 encap fou encap-sport 5555 encap-dport 5555" DEVICE,
	 IPV4, CONTAINER},
	{"gre", "link add t$N type gre local $L4 remote $R4" DEVICE, BOTH, GATEWAY},
	{"gre with a key", "link add t$N type gre local $L4 remote $R4 key 7" DEVICE, BOTH, GATEWAY},
	{"gre with a checksum", "link add t$N type gre local $L4 remote $R4 csum" DEVICE, BOTH, GATEWAY},
	{"gretap", "link add t$N type gretap local $L4 remote $R4" DEVICE, BOTH, GATEWAY},
	{"ip6gre", "link add t$N type ip6gre local $L6 remote $R6 encaplimit none" DEVICE, BOTH, GATEWAY},
	{"ip6gretap", "link add t$N type ip6gretap local $L6 remote $R6 encaplimit none" DEVICE, BOTH,
	 GATEWAY},
};

static bool full; /* FULL=1 */

/* Lines for one end of a tunnel; a status. `number` is that of the end within: 1 is the customer's. */
static int change_end(const char *lines, int place, int other, int number)
{
	static const char *const addresses[] = {
		[GATEWAY] = "10.8.0.1 fd08::1",
		[1] = "10.8.0.2 fd08::2",
		[CONTAINER] = "10.7.0.2 fd07::2",
	};

	return lab_run(place,
		       "sh -ec 'N=%1$d; set -- %2$s %3$s; L4=$1 L6=$2 R4=$3 R6=$4; "
		       "M4=172.16.$N.%4$d M6=fd16:$N::%4$d; "
		       "ip -batch - <<EOF\n%5$s\nEOF\n'",
		       place == 1 ? other : place, addresses[place], addresses[other], number, lines);
}

/* Between the customer and an end, whose number is in the names of its devices and addresses. */
static void make_tunnel(const struct kind *kind, int end)
{
	if (change_end(kind->make, 1, end, 1) || change_end(kind->make, end, 1, 2))
		fail_msg("%s cannot be made", kind->name);
}

static void remove_tunnel(int end)
{
	assert_int_equal(change_end("link del t$N", 1, end, 1), 0);
	assert_int_equal(change_end("link del t$N", end, 1, 2), 0);
}

/* An address in that tunnel; of the last two calls. */
static const char *within(int end, int version, int number)
{
	static char text[2][48];

	snprintf(text[number - 1], sizeof(text[0]), version == IPV4 ? "::ffff:172.16.%d.%d" : "fd16:%d::%d",
		 end, number);
	return text[number - 1];
}

/* Down by the first version of IP that it can carry and up by the last; with FULL=1 by each. */
static void send_through(const void *data, int end)
{
	const struct kind *kind = data;
	const int first = kind->within & IPV4 ? IPV4 : IPV6, last = kind->within & IPV6 ? IPV6 : IPV4;

	lab_tcp(end, 1, within(end, first, 1), AMOUNT);
	lab_tcp(1, end, within(end, last, 2), AMOUNT);
	if (!full)
		return;
	lab_tcp(end, 1, within(end, last, 1), 10 * AMOUNT);
	lab_tcp(1, end, within(end, first, 2), 10 * AMOUNT);
}

static void tunnels_to(int end)
{
	int wrong = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (kinds[i].end != end && !full)
			continue;
		make_tunnel(&kinds[i], end);
		wrong += !compare_traffic(kinds[i].name, send_through, &kinds[i], end);
		remove_tunnel(end);
	}
	assert_int_equal(wrong, 0);
}

static void w1_w2_tunnels_that_end_on_the_gateway(void **state)
{
	(void)state;
	tunnels_to(GATEWAY);
}

static void w1_w2_tunnels_that_are_carried_through(void **state)
{
	(void)state;
	tunnels_to(CONTAINER);
}

/* Where tunnels in UDP end. */
static int prepare(void)
{
	static const int places[] = {GATEWAY, 1, CONTAINER};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (lab_run(places[i], "sh -ec 'ip fou add port 5555 ipproto 4; "
				       /* Large aggregates, however slow the machine is. */
				       "sysctl -qw net.ipv4.tcp_tso_rtt_log=25'"))
			return -1;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w1_w2_tunnels_that_end_on_the_gateway, compare_setup,
						compare_teardown),
		cmocka_unit_test_setup_teardown(w1_w2_tunnels_that_are_carried_through, compare_setup,
						compare_teardown),
	};
	const char *wanted = getenv("FULL");

	full = wanted && strcmp(wanted, "1") == 0;
	if (lab_make() || lab_make_container() || prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
