// SPDX-License-Identifier: BSD-2-Clause
/* Links, addresses and routes in a network of the test's own; what came of it is asked of `ip`. */
#include "namespace.h"

#include "net/net.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>

#define MANY 3000

static struct net *net;

static struct cidr prefix(const char *text)
{
	struct cidr cidr;

	assert_int_equal(cidr_parse(text, &cidr), 0);
	return cidr;
}

/* A command's output with its lines sorted and joined by commas. */
static const char *output(char text[static 2048], const char *command)
{
	char line[3000];
	FILE *pipe;
	size_t used;

	snprintf(line, sizeof(line), "(%s) | LC_ALL=C sort | paste -sd ,", command);
	pipe = popen(line, "r");
	assert_non_null(pipe);
	used = fread(text, 1, 2047, pipe);
	pclose(pipe);
	text[used] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static void assert_output(const char *command, const char *expected)
{
	char text[2048];

	assert_string_equal(output(text, command), expected);
}

static int make_links(void **state)
{
	(void)state;
	return run("ip tuntap add wg0 mode tun && ip tuntap add other mode tun && ip link set other up");
}

static int remove_links(void **state)
{
	(void)state;
	return run("ip link del wg0; ip link del other; ip link del wgk 2>/dev/null; "
		   "for v in 4 6; do ip -$v rule del pref 5787; ip -$v rule del pref 5788; done 2>/dev/null; "
		   "true");
}

static void test_d7_a_device_that_takes_merged_segments_is_known(void **state)
{
	bool merges = true;

	(void)state;
	assert_int_equal(net_link_merges(net, "wg0", &merges), 0);
	assert_false(merges);
	assert_int_equal(run("ip tuntap add wgk mode tun vnet_hdr"), 0);
	assert_int_equal(net_link_merges(net, "wgk", &merges), 0);
	assert_true(merges);
	assert_int_equal(net_link_merges(net, "missing", &merges), -ENODEV);
}

static void test_link(void **state)
{
	bool up = true;

	(void)state;
	assert_int_equal(net_link_index(net, "lo"), 1);
	assert_int_equal(net_link_index(net, "missing"), -ENODEV);
	assert_int_equal(net_link_index(net, ""), -EINVAL);
	assert_int_equal(net_link_index(net, "a-name-beyond-15"), -EINVAL);
	assert_int_equal(net_link_is_up(net, "wg0", &up), 0);
	assert_false(up);
	assert_int_equal(net_link_set_up(net, "wg0", true), 0);
	assert_int_equal(net_link_is_up(net, "wg0", &up), 0);
	assert_true(up);
	assert_int_equal(net_link_set_mtu(net, "wg0", 1420), 0);
	assert_output("cat /proc/net/dev | grep -c wg0; ip -o link show wg0 | grep -o 'mtu [0-9]*'",
		      "1,mtu 1420");
	assert_int_equal(net_link_set_mtu(net, "wg0", 1), -EINVAL);
	assert_int_equal(net_link_set_up(net, "wg0", false), 0);
	assert_int_equal(net_link_is_up(net, "wg0", &up), 0);
	assert_false(up);
	assert_int_equal(net_link_is_up(net, "missing", &up), -ENODEV);
	/* A change of what is not there must not make it. */
	assert_int_equal(net_link_set_up(net, "missing", true), -ENODEV);
	assert_int_equal(run("ip link show missing 2>/dev/null"), 1);
}

static void test_addrgen(void **state)
{
	(void)state;
	assert_int_equal(run("ip link set wg0 addrgenmode eui64"), 0);
	assert_int_equal(net_link_disable_addrgen(net, "wg0"), 0);
	assert_output("ip -d -o link show wg0 | grep -o 'addrgenmode [a-z0-9]*'", "addrgenmode none");
	assert_int_equal(net_link_set_up(net, "wg0", true), 0);
	assert_output("ip -6 -o addr show dev wg0", "");
}

/* Where the kernel has WireGuard it is made; elsewhere the error says so. */
static void test_create_wireguard(void **state)
{
	int expected = run("ip link add probe type wireguard 2>/dev/null && ip link del probe") == 0
			       ? 0
			       : -EOPNOTSUPP;
	int r = net_link_create_wireguard(net, "wgk");

	(void)state;
	assert_int_equal(r, expected);
	assert_int_equal(net_link_create_wireguard(net, "wg0"), -EEXIST);
}

#define SHOW_ADDRESSES "ip -o addr show dev wg0 | awk '{print $4}'"

static void test_addresses(void **state)
{
	struct cidr first[] = {prefix("10.99.0.1/24"), prefix("10.99.0.2/24"), prefix("fd00::1/64")};
	struct cidr second[] = {prefix("10.99.0.2/24"), prefix("fd00::1/80"), prefix("fd00::2/64")};

	(void)state;
	assert_int_equal(net_link_disable_addrgen(net, "wg0"), 0);
	assert_int_equal(net_link_set_up(net, "wg0", true), 0);
	assert_int_equal(run("ip addr add fe80::5/64 dev wg0 && ip addr add 192.0.2.1/32 dev wg0"), 0);
	assert_int_equal(net_ensure_addresses(net, "wg0", first, 3), 0);
	assert_output(SHOW_ADDRESSES, "10.99.0.1/24,10.99.0.2/24,fd00::1/64,fe80::5/64");
	assert_int_equal(net_ensure_addresses(net, "wg0", first, 3), 0);
	/* 10.99.0.2 is a secondary of 10.99.0.1: the kernel removes it with that, and it must be there still.
	 */
	assert_int_equal(net_ensure_addresses(net, "wg0", second, 3), 0);
	assert_output(SHOW_ADDRESSES, "10.99.0.2/24,fd00::1/80,fd00::2/64,fe80::5/64");
	assert_output("ip -6 -o addr show dev wg0 tentative", "");
	assert_output("ip -o addr show dev other; ip -o addr show dev lo | awk '{print $4}'",
		      "127.0.0.1/8,::1/128");
	assert_int_equal(net_ensure_addresses(net, "wg0", NULL, 0), 0);
	assert_output(SHOW_ADDRESSES, "fe80::5/64");
	assert_int_equal(net_ensure_addresses(net, "missing", first, 1), -ENODEV);
}

#define SHOW_ROUTES                                                                                          \
	"(ip -4 route show table 578700 dev wg0 proto 87; ip -6 route show table 578700 dev wg0 proto 87) "  \
	"| awk '{print $1}'"

static void test_routes(void **state)
{
	struct cidr first[] = {prefix("10.8.0.0/16"), prefix("10.8.1.0/24"), prefix("fd08::/48"),
			       prefix("10.8.0.0/16")};
	struct cidr second[] = {prefix("10.8.1.0/24"), prefix("fd09::/48"), prefix("192.0.2.7/32")};
	struct cidr host_bits = prefix("10.8.0.1/16"), taken = prefix("10.7.0.0/16"),
		    own = prefix("10.99.0.0/24");
	struct cidr everything[] = {prefix("0.0.0.0/0"), prefix("::/0")};

	(void)state;
	assert_int_equal(net_link_set_up(net, "wg0", true), 0);
	assert_int_equal(run("ip addr add 10.99.0.1/24 dev wg0 && ip route add 10.6.0.0/16 dev wg0 && "
			     "ip route add 10.7.0.0/16 dev other proto 87"),
			 0);
	assert_int_equal(net_ensure_routes(net, "wg0", first, 4), 0);
	assert_output(SHOW_ROUTES, "10.8.0.0/16,10.8.1.0/24,fd08::/48");
	assert_output("ip -4 route show table 578700 dev wg0 proto 87 10.8.0.0/16",
		      "10.8.0.0/16 scope link linkdown ");
	assert_int_equal(net_ensure_routes(net, "wg0", second, 3), 0);
	assert_output(SHOW_ROUTES, "10.8.1.0/24,192.0.2.7,fd09::/48");
	/* The kernel's own route to the tunnel subnet serves as well. */
	assert_int_equal(net_ensure_routes(net, "wg0", &own, 1), 0);
	assert_output(SHOW_ROUTES, "");
	assert_int_equal(net_ensure_routes(net, "wg0", everything, 2), 0);
	assert_output(SHOW_ROUTES, "default,default");
	assert_int_equal(net_ensure_routes(net, "wg0", &host_bits, 1), -EINVAL);
	/* Another interface's route is never taken over: it stands in the main table, which is asked first.
	 */
	assert_int_equal(net_ensure_routes(net, "wg0", &taken, 1), 0);
	assert_output(SHOW_ROUTES, "10.7.0.0/16");
	assert_int_equal(net_ensure_routes(net, "wg0", NULL, 0), 0);
	assert_output("ip -N -4 route show",
		      "10.6.0.0/16 dev wg0 scope 253 linkdown ,10.7.0.0/16 dev other proto 87 scope 253 "
		      "linkdown ,10.99.0.0/24 dev wg0 proto 2 scope 253 src 10.99.0.1 linkdown ");
}

/* F8: the main table's routes but the default come first, then the tunnel's, and never for WireGuard's own
 * packets. */
static void test_f8_outer_packets_are_kept_out_of_the_tunnel(void **state)
{
	struct cidr sites[] = {prefix("198.51.100.0/24"), prefix("2001:db8::/32"), prefix("203.0.113.0/24")};
	struct cidr moved = prefix("198.51.100.0/24");
	char shown[96];

	(void)state;
	assert_int_equal(net_link_set_up(net, "wg0", true), 0);
	assert_int_equal(
		run("ip addr add 192.0.2.1/24 dev other && ip addr add 2001:db9::1/64 dev other nodad && ip "
		    "link set other up && "
		    "ip route add default via 192.0.2.254 && ip -6 route add default via 2001:db9::fe && "
		    "ip route add 203.0.113.0/25 via 192.0.2.253 && ip route add 198.51.100.0/24 dev wg0 "
		    "proto 87"),
		0);
	assert_int_equal(net_ensure_rules(net), 0);
	assert_int_equal(net_ensure_rules(net), 0);
	assert_output("ip rule show | grep -c ^5787:; ip -6 rule show | grep -c ^5787:; ip rule show | grep "
		      "-c ^5788:",
		      "1,1,1");
	assert_int_equal(net_ensure_routes(net, "wg0", sites, 3), 0);
	assert_output("ip -4 route show table main proto 87", "");
	snprintf(shown, sizeof(shown), "ip route get 198.51.100.9 mark %u | grep -o 'dev [a-z0-9]*'",
		 NET_OUTER_MARK);
	assert_output(shown, "dev other");
	snprintf(shown, sizeof(shown), "ip route get 2001:db8::9 mark %u | grep -o 'dev [a-z0-9]*'",
		 NET_OUTER_MARK);
	assert_output(shown, "dev other");
	assert_output("ip route get 198.51.100.9 | grep -o 'dev [a-z0-9]*'", "dev wg0");
	assert_output("ip route get 2001:db8::9 | grep -o 'dev [a-z0-9]*'", "dev wg0");
	assert_output("ip route get 203.0.113.9 | grep -o 'dev [a-z0-9]*'", "dev other");
	assert_output("ip route get 203.0.113.200 | grep -o 'dev [a-z0-9]*'", "dev wg0");
	assert_output("ip route get 192.0.2.77 | grep -o 'dev [a-z0-9]*'", "dev other");
	assert_int_equal(net_ensure_routes(net, "wg0", &moved, 1), 0);
	assert_output(SHOW_ROUTES, "198.51.100.0/24");
}

static void test_many_routes(void **state)
{
	static struct cidr routes[MANY];
	char expected[16];

	(void)state;
	assert_int_equal(net_link_set_up(net, "wg0", true), 0);
	for (unsigned i = 0; i < MANY; i++)
		routes[i] = (struct cidr){.family = AF_INET,
					  .prefix_length = 32,
					  .bytes = {10, 20, (uint8_t)(i >> 8), (uint8_t)i}};
	assert_int_equal(net_ensure_routes(net, "wg0", routes, MANY), 0);
	snprintf(expected, sizeof(expected), "%d", MANY);
	assert_output("ip -4 route show table 578700 dev wg0 proto 87 | wc -l", expected);
	assert_int_equal(net_ensure_routes(net, "wg0", routes + MANY / 2, MANY / 2), 0);
	snprintf(expected, sizeof(expected), "%d", MANY / 2);
	assert_output("ip -4 route show table 578700 dev wg0 proto 87 | wc -l", expected);
}

struct seen {
	int changes;
	int deleted_index;
	int index;
};

static void note_link(const char *interface, int ifindex, bool deleted, void *data)
{
	struct seen *seen = data;

	if (strcmp(interface, "watched") != 0)
		return;
	seen->changes++;
	seen->index = ifindex;
	if (deleted)
		seen->deleted_index = ifindex;
}

/* Waits for the descriptor to be readable and takes what is there. */
static void dispatch(struct net *watch, struct seen *seen)
{
	struct pollfd polled = {.fd = net_watch_fd(watch), .events = POLLIN};

	assert_int_equal(poll(&polled, 1, 60000), 1);
	assert_int_equal(net_watch_dispatch(watch, note_link, seen), 0);
}

static void test_watch(void **state)
{
	struct seen seen = {0};
	struct net *watch;

	(void)state;
	assert_int_equal(net_watch_open(&watch), 0);
	assert_int_equal(net_watch_dispatch(watch, note_link, &seen), 0);
	assert_int_equal(run("ip tuntap add watched mode tun"), 0);
	dispatch(watch, &seen);
	assert_true(seen.changes > 0);
	assert_int_equal(seen.index, net_link_index(net, "watched"));
	assert_int_equal(seen.deleted_index, 0);
	assert_int_equal(run("ip link del watched"), 0);
	dispatch(watch, &seen);
	assert_int_equal(seen.deleted_index, seen.index);
	/* More changes than the socket holds: it says so, and goes on. */
	assert_int_equal(
		run("for i in $(seq 200); do echo link add v$i type veth peer name w$i; done | ip -b - && "
		    "for i in $(seq 200); do echo link del v$i; done | ip -b -"),
		0);
	assert_int_equal(net_watch_dispatch(watch, note_link, &seen), -ENOBUFS);
	while (net_watch_dispatch(watch, note_link, &seen) == -ENOBUFS)
		;
	net_close(watch);
}

#define link_test(test) cmocka_unit_test_setup_teardown(test, make_links, remove_links)

int main(void)
{
	const struct CMUnitTest tests[] = {
		link_test(test_link),
		link_test(test_addrgen),
		link_test(test_create_wireguard),
		link_test(test_d7_a_device_that_takes_merged_segments_is_known),
		link_test(test_addresses),
		link_test(test_routes),
		link_test(test_many_routes),
		link_test(test_f8_outer_packets_are_kept_out_of_the_tunnel),
		cmocka_unit_test(test_watch),
	};

	if (namespace_enter() < 0 || net_open(&net) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
