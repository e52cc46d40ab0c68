// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/links.h"
#include "base/file.h"
#include "base/ip.h"
#include "deploy/guard.h"
#include "deploy/namespace.h"
#include "deploy/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *path, *value;
} sysctls[] = {
	{"/proc/sys/net/ipv4/ip_forward", "1"},
	{"/proc/sys/net/ipv4/conf/all/rp_filter", "0"}, /* the firewall does it */
	{"/proc/sys/net/ipv4/conf/default/rp_filter", "0"},
	{"/proc/sys/net/ipv6/conf/all/forwarding", "1"},
	{"/proc/sys/net/ipv6/conf/all/accept_ra", "0"},
	{"/proc/sys/net/ipv6/conf/default/accept_ra", "0"},
	{"/proc/sys/net/ipv6/conf/default/accept_dad", "0"},
	{"/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"},
};

static int set_sysctls(const void *data)
{
	(void)data;
	for (size_t i = 0; i < ARRAY_SIZE(sysctls); i++) {
		_cleanup_close_ int fd = open(sysctls[i].path, O_WRONLY | O_CLOEXEC);
		int r = fd < 0 ? -errno : file_write_all(fd, sysctls[i].value, strlen(sysctls[i].value));

		if (r < 0)
			return r;
	}
	return 0;
}

int links_set_sysctls(const char *netns_pin)
{
	return namespace_call_net(netns_pin, set_sysctls, NULL);
}

static void inside_name(int vpc_index, char name[static IFNAMSIZ])
{
	if (vpc_index < 0)
		snprintf(name, IFNAMSIZ, "pub0");
	else
		snprintf(name, IFNAMSIZ, "vpc%d", vpc_index);
}

/*
 * Subnets on one bridge share a link, named by the first of them. Two interfaces on one wire would each
 * answer for the other's addresses, and what then came in on the wrong one would be taken for spoofed.
 */
static int link_of(const struct deploy_spec *spec, int vpc_index)
{
	int first = 0;

	while (strcmp(spec->vpcs[first].bridge, spec->vpcs[vpc_index].bridge) != 0)
		first++;
	return first;
}

static void add_pair(struct ip_batch *batch, const struct deploy_spec *spec, int vpc_index)
{
	char host_end[IFNAMSIZ], inside[IFNAMSIZ], netns[32];

	link_name(spec, vpc_index, host_end);
	if (vpc_index >= 0 && link_of(spec, vpc_index) != vpc_index) {
		/* Of before they shared one. */
		if (if_nametoindex(host_end) > 0)
			ip_batch_add(batch, "link delete %s", host_end);
		return;
	}
	netns_name(spec, netns);
	inside_name(vpc_index, inside);
	if (if_nametoindex(host_end) == 0)
		ip_batch_add(batch, "link add %s type veth peer name %s netns %s", host_end, inside, netns);
	ip_batch_add(batch, "link set %s addrgenmode none", host_end);
	if (vpc_index >= 0)
		ip_batch_add(batch, "link set %s group %d", host_end, GUARD_LINK_GROUP);
}

static void connect_pair(struct ip_batch *batch, const struct deploy_spec *spec, int vpc_index)
{
	const struct deploy_link *link = vpc_index < 0 ? &spec->public_link : &spec->vpcs[vpc_index];
	char host_end[IFNAMSIZ];

	link_name(spec, vpc_index, host_end);
	if (vpc_index < 0 || link_of(spec, vpc_index) == vpc_index)
		ip_batch_add(batch, "link set %s master %s up", host_end, link->bridge);
}

static int check_bridge(const struct deploy_link *link, char *error, size_t error_size)
{
	if (if_nametoindex(link->bridge) > 0)
		return 0;
	snprintf(error, error_size, "this host has no bridge \"%s\", which the subnet's attachment names",
		 link->bridge);
	return -ENODEV;
}

int links_connect(const struct deploy_spec *spec, char *error, size_t error_size)
{
	_cleanup_ip_ struct ip_batch making = {0}, connecting = {0};
	int r = check_bridge(&spec->public_link, error, error_size);

	for (int i = -1; i < (int)spec->n_vpcs && r == 0; i++) {
		if (i >= 0)
			r = check_bridge(&spec->vpcs[i], error, error_size);
		add_pair(&making, spec, i);
		connect_pair(&connecting, spec, i);
	}
	if (r == 0)
		r = ip_batch_run(&making, NULL, error, error_size);
	/* Before they are connected: the host is guarded from their first packet on. And when they are there
	 * already: nobody else takes the rules away as those of the last gateway. */
	if (r == 0)
		r = guard_install(error, error_size);
	return r == 0 ? ip_batch_run(&connecting, NULL, error, error_size) : r;
}

static void add_address(struct ip_batch *batch, const struct cidr *address, const char *interface)
{
	char text[CIDR_TEXT_SIZE];

	/* For what it forwards, the gateway asks its neighbours from a link-local address. */
	ip_batch_add(batch, "link set %s addrgenmode eui64", interface);
	/* Handed out once: no need to wait for the detection of duplicates. */
	ip_batch_add(batch, "address replace %s dev %s%s", cidr_format(address, text), interface,
		     address->family == AF_INET6 ? " nodad" : "");
	ip_batch_add(batch, "link set %s up", interface);
}

int links_configure(const struct deploy_spec *spec, char *error, size_t error_size)
{
	_cleanup_ip_ struct ip_batch batch = {0};
	char name[32], path[PATH_MAX], text[CIDR_TEXT_SIZE];

	ip_batch_add(&batch, "link set lo up");
	add_address(&batch, &spec->public_link.address, "pub0");
	for (int i = 0; i < (int)spec->n_vpcs; i++) {
		char inside[IFNAMSIZ];

		inside_name(link_of(spec, i), inside);
		add_address(&batch, &spec->vpcs[i].address, inside);
	}
	if (spec->has_router)
		ip_batch_add(&batch, "route replace default via %s dev pub0",
			     cidr_format_address(&spec->router, text));
	netns_name(spec, name);
	netns_path(name, path);
	return ip_batch_run(&batch, path, error, error_size);
}

int links_disconnect(const struct deploy_spec *spec, char *error, size_t error_size)
{
	_cleanup_ip_ struct ip_batch batch = {0};

	for (int i = -1; i < (int)spec->n_vpcs; i++) {
		char host_end[IFNAMSIZ];

		link_name(spec, i, host_end);
		if (if_nametoindex(host_end) > 0)
			ip_batch_add(&batch, "link delete %s", host_end);
	}
	return ip_batch_run(&batch, NULL, error, error_size);
}
