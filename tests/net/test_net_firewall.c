// SPDX-License-Identifier: BSD-2-Clause
/*
 * The rule set as text, and as nft takes it. Given arguments, the program puts one in force instead: for
 * test_net_firewall.py, which sends packets through it.
 */
#include "namespace.h"

#include "net/net.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>

#define MAX_PREFIXES 16

/* "PREFIX,PREFIX…" */
static size_t parse_list(char *text, struct cidr *cidrs)
{
	size_t n = 0;

	for (char *item = strtok(text, ","); item && n < MAX_PREFIXES; item = strtok(NULL, ",")) {
		if (cidr_parse(item, &cidrs[n++]) < 0)
			exit(2);
	}
	return n;
}

/* TUNNEL VPC REMOTE API DNS MASQUERADE, lists "" when empty. The interface is wg0, the ports 51820 and 8443.
 */
static int apply_arguments(char **arguments)
{
	static struct cidr lists[4][MAX_PREFIXES];
	struct net_firewall firewall = {.tunnel_interface = "wg0", .listen_port = 51820, .api_port = 8443};
	char error[512];
	int r;

	firewall.tunnel_subnets = lists[0];
	firewall.n_tunnel_subnets = parse_list(arguments[0], lists[0]);
	firewall.vpc_subnets = lists[1];
	firewall.n_vpc_subnets = parse_list(arguments[1], lists[1]);
	firewall.remote_subnets = lists[2];
	firewall.n_remote_subnets = parse_list(arguments[2], lists[2]);
	firewall.api_addresses = lists[3];
	firewall.n_api_addresses = parse_list(arguments[3], lists[3]);
	firewall.allow_dns = atoi(arguments[4]) != 0;
	firewall.masquerade = (enum net_masquerade)atoi(arguments[5]);
	r = net_firewall_apply(&firewall, error, sizeof(error));
	if (r < 0)
		printf("%d: %s\n", r, error);
	return r < 0 ? 1 : 0;
}

static struct net_firewall minimal(void)
{
	return (struct net_firewall){.tunnel_interface = "wg0", .listen_port = 51820};
}

static void test_refuses(void **state)
{
	static const char *const names[] = {"", "a-name-beyond-15", "wg\"0", "wg 0", "wg0\n", "wg*", "wg\\0"};
	struct net_firewall firewall = minimal();
	char *text = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		firewall.tunnel_interface = names[i];
		assert_int_equal(net_firewall_render(&firewall, &text), -EINVAL);
	}
	assert_null(text);
}

/* Before the agent knows the port, nothing is open from outside. */
static void test_no_port_yet(void **state)
{
	struct net_firewall firewall = minimal();
	char *text = NULL;

	(void)state;
	assert_int_equal(net_firewall_render(&firewall, &text), 0);
	assert_non_null(strstr(text, "udp dport 51820 accept"));
	free(text);
	firewall.listen_port = 0;
	assert_int_equal(net_firewall_render(&firewall, &text), 0);
	assert_null(strstr(text, "udp dport"));
	assert_null(strstr(text, "udp sport"));
	free(text);
}

static void assert_listed(const char *part)
{
	assert_int_equal(run("nft list table inet wiretoll | tr -s ' \\t\\n' ' ' | grep -qF '%s'", part), 0);
}

/* Empty sets are no syntax error, and match nothing. */
static void test_empty(void **state)
{
	struct net_firewall firewall = minimal();
	char error[256];

	(void)state;
	for (int i = 0; i < 3; i++) {
		firewall.masquerade = (enum net_masquerade)i;
		if (net_firewall_apply(&firewall, error, sizeof(error)) < 0)
			fail_msg("%s", error);
		assert_string_equal(error, "");
	}
	assert_listed("set vpc4 { type ipv4_addr flags interval }");
	assert_listed("hook input priority filter; policy drop;");
	assert_listed("hook forward priority filter; policy drop;");
	assert_listed("hook output priority filter; policy drop;");
}

/* What was decrypted before it was metered passes nowhere, and no ESP is among what the gateway sends. */
static void test_w6_ipsec_does_not_end_on_the_gateway(void **state)
{
	struct net_firewall firewall = minimal();
	char error[256];

	(void)state;
	if (net_firewall_apply(&firewall, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	assert_listed("chain input_tunnel { meta ipsec exists counter name \"input_dropped\" drop");
	assert_listed("chain from_tunnel { meta ipsec exists counter name \"forward_dropped\" drop");
	assert_int_equal(run("! nft list chain inet wiretoll output_tunnel | grep -qw esp"), 0);
}

static void test_nested_and_host_bits(void **state)
{
	struct cidr tunnel[2], remote[2];
	struct net_firewall firewall = minimal();
	char error[256];

	(void)state;
	assert_int_equal(cidr_parse("10.99.0.1/24", &tunnel[0]), 0);
	assert_int_equal(cidr_parse("fd99::1/64", &tunnel[1]), 0);
	assert_int_equal(cidr_parse("10.99.0.128/25", &remote[0]), 0);
	assert_int_equal(cidr_parse("0.0.0.0/0", &remote[1]), 0);
	firewall.tunnel_subnets = tunnel;
	firewall.n_tunnel_subnets = 2;
	firewall.remote_subnets = remote;
	firewall.n_remote_subnets = 1;
	assert_int_equal(net_firewall_apply(&firewall, error, sizeof(error)), 0);
	assert_listed("set peers4 { type ipv4_addr flags interval elements = { 10.99.0.0/24 } }");
	assert_listed("set peers6 { type ipv6_addr flags interval elements = { fd99::/64 } }");
	firewall.n_remote_subnets = 2;
	assert_int_equal(net_firewall_apply(&firewall, error, sizeof(error)), 0);
}

static void test_thousands(void **state)
{
	static struct cidr remote[5000];
	struct net_firewall firewall = minimal();
	char error[256];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(remote); i++)
		remote[i] = (struct cidr){.family = AF_INET,
					  .prefix_length = 24,
					  .bytes = {10, (uint8_t)(i >> 7), (uint8_t)(i << 1)}};
	firewall.remote_subnets = remote;
	firewall.n_remote_subnets = ARRAY_SIZE(remote);
	assert_int_equal(net_firewall_apply(&firewall, error, sizeof(error)), 0);
	assert_int_equal(run("test $(nft list set inet wiretoll remote4 | grep -o '/24' | wc -l) = 5000"), 0);
}

/* What stands stays in force, and nft's words come back. */
static void test_refused_by_nft(void **state)
{
	struct net_firewall firewall = minimal();
	char error[256] = "", one[1];
	pid_t child;
	int status;

	(void)state;
	assert_int_equal(net_firewall_apply(&firewall, error, sizeof(error)), 0);
	assert_int_equal(net_firewall_apply(&firewall, one, 0), -EINVAL);
	child = fork();
	if (child == 0) {
		/* Without any right. */
		if (setresgid(4242, 4242, 4242) < 0 || setresuid(4242, 4242, 4242) < 0)
			_exit(1);
		if (net_firewall_apply(&firewall, error, sizeof(error)) != -EIO)
			_exit(2);
		_exit(strstr(error, "Operation not permitted") ? 0 : 3);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_listed("hook input priority filter; policy drop;");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_no_port_yet),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_w6_ipsec_does_not_end_on_the_gateway),
		cmocka_unit_test(test_nested_and_host_bits),
		cmocka_unit_test(test_thousands),
		cmocka_unit_test(test_refused_by_nft),
	};

	if (argc == 7)
		return apply_arguments(argv + 1);
	if (namespace_enter() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
