// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool firewall_differs(const struct desired *a, const struct desired *b)
{
	return a->listen_port != b->listen_port || a->masquerade != b->masquerade ||
	       !cidr_list_equal(&a->tunnel_subnets, &b->tunnel_subnets) ||
	       !cidr_list_equal(&a->vpc_subnets, &b->vpc_subnets) ||
	       !cidr_list_equal(&a->remote_subnets, &b->remote_subnets);
}

static bool has_names(const struct desired *desired)
{
	struct sockaddr_storage address;

	for (size_t i = 0; i < desired->n_peers; i++)
		if (desired->peers[i].endpoint[0] && endpoint_parse(desired->peers[i].endpoint, &address) < 0)
			return true;
	return false;
}

static int read_apis(const struct config *config, struct cidr apis[static CONFIG_APIS_MAX])
{
	int r = 0;

	for (size_t i = 0; i < config->n_apis && r == 0; i++)
		r = cidr_parse_address(config->apis[i].address, &apis[i]);
	return r;
}

int network_close(struct agent *agent, char *error, size_t error_size)
{
	struct cidr apis[CONFIG_APIS_MAX];
	struct net_firewall closed = {.tunnel_interface = agent->config.interface,
				      .api_addresses = apis,
				      .n_api_addresses = agent->config.n_apis,
				      .api_port = agent->config.apis[0].port};
	bool up = false;
	int r = net_link_is_up(agent->net, agent->config.interface, &up);

	if (r < 0 && r != -ENODEV)
		return r;
	if (up)
		return 0;
	r = read_apis(&agent->config, apis);
	return r < 0 ? r : net_firewall_apply(&closed, error, error_size);
}

static int apply_firewall(struct agent *agent, const struct desired *desired)
{
	struct cidr apis[CONFIG_APIS_MAX];
	char error[256] = "";
	struct net_firewall firewall = {.tunnel_interface = agent->config.interface,
					.listen_port = desired->listen_port,
					.tunnel_subnets = desired->tunnel_subnets.items,
					.n_tunnel_subnets = desired->tunnel_subnets.count,
					.vpc_subnets = desired->vpc_subnets.items,
					.n_vpc_subnets = desired->vpc_subnets.count,
					.remote_subnets = desired->remote_subnets.items,
					.n_remote_subnets = desired->remote_subnets.count,
					.api_addresses = apis,
					.n_api_addresses = agent->config.n_apis,
					.api_port = agent->config.apis[0].port,
					.allow_dns = has_names(desired),
					.masquerade = desired->masquerade};
	int r = read_apis(&agent->config, apis);

	if (r == 0)
		r = net_firewall_apply(&firewall, error, sizeof(error));
	if (r < 0) {
		cannot_add(agent, "firewall", "%s", error[0] ? error : strerror(-r));
		return r;
	}
	agent->firewall_stands = true;
	return 0;
}

static int check(struct agent *agent, const char *what, int result)
{
	if (result < 0)
		cannot_add(agent, what, "%s", strerror(-result));
	return result;
}

int network_before_up(struct agent *agent, const struct desired *desired)
{
	const struct desired *before = agent->applied;
	const char *interface = agent->config.interface;
	int failed = 0;

	if (!before || before->mtu != desired->mtu)
		failed |= check(agent, "mtu", net_link_set_mtu(agent->net, interface, desired->mtu));
	if (!before || !cidr_list_equal(&before->addresses, &desired->addresses))
		failed |= check(agent, "addresses",
				net_ensure_addresses(agent->net, interface, desired->addresses.items,
						     desired->addresses.count));
	if (!agent->firewall_stands || !before || firewall_differs(before, desired) ||
	    has_names(before) != has_names(desired))
		failed |= apply_firewall(agent, desired);
	return failed ? -EIO : 0;
}

int network_after_up(struct agent *agent, const struct desired *desired)
{
	int r = check(agent, "routes", net_ensure_rules(agent->net));

	if (r < 0)
		return r;
	return check(agent, "routes",
		     net_ensure_routes(agent->net, agent->config.interface, desired->routes.items,
				       desired->routes.count));
}
