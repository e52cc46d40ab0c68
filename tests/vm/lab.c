// SPDX-License-Identifier: BSD-2-Clause
/* The network of the virtual machine's tests. See lab.h. */
#include "lab.h"

#include "../net/namespace.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/utsname.h>

static int places[CONTAINER + 1];

static const char *device_of(int place)
{
	return place == GATEWAY ? LAB_DEVICE : "wgc";
}

static int make_customer(int number)
{
	return run("set -e; ip netns add c%1$d; ip link add o%1$d type veth peer name uplink netns c%1$d; "
		   "ip addr add 192.168.%1$d.1/24 dev o%1$d; ip link set o%1$d up; "
		   "ip -n c%1$d link set lo up; ip -n c%1$d addr add 192.168.%1$d.2/24 dev uplink; "
		   "ip -n c%1$d link set uplink up; ip -n c%1$d link add wgc type wireguard; "
		   "ip -n c%1$d link set wgc addrgenmode none; "
		   "ip netns exec c%1$d ethtool -K wgc tso off gso off gro off tx-udp-segmentation off; "
		   "wg genkey >c%1$d; ip netns exec c%1$d wg set wgc private-key c%1$d "
		   "peer $(wg pubkey <s) endpoint 192.168.%1$d.1:51820 allowed-ips 0.0.0.0/0,::/0",
		   number);
}

static int start_customer(int number)
{
	return run("set -e; wg set wg0 peer $(wg pubkey <c%1$d) allowed-ips 10.8.0.%2$d/32,fd08::%2$d/128; "
		   "ip -n c%1$d addr add 10.8.0.%2$d/24 dev wgc; ip -n c%1$d addr add fd08::%2$d/64 dev wgc "
		   "nodad; ip -n c%1$d link set wgc up txqueuelen 20000; "
		   "ip netns exec c%1$d ping -q -n -c 2 -i 0.1 10.8.0.1 >/dev/null",
		   number, number + 1);
}

static int make_gateway(void)
{
	return run("set -e; cd /run; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; "
		   "wg genkey >s; ip link add wg0 type wireguard; ip link set wg0 addrgenmode none; "
		   "wg set wg0 private-key s listen-port 51820; ip addr add 10.8.0.1/24 dev wg0; "
		   "ip addr add fd08::1/64 dev wg0 nodad; ip link set wg0 up txqueuelen 20000");
}

static int open_place(int place)
{
	char path[64] = "/proc/self/ns/net";

	if (place != GATEWAY)
		snprintf(path, sizeof(path), "/run/netns/c%d", place);
	places[place] = open(path, O_RDONLY | O_CLOEXEC);
	return places[place] < 0 ? -1 : 0;
}

int lab_make(void)
{
	if (namespace_enter() || chdir("/run") || mkdir("/run/bpf", 0700) ||
	    mount("bpf", "/run/bpf", "bpf", 0, "mode=0700") || make_gateway())
		return -1;
	for (int i = 1; i <= CUSTOMERS; i++)
		if (make_customer(i) || start_customer(i) || open_place(i))
			return -1;
	if (open_place(GATEWAY))
		return -1;
	return 0;
}

int lab_make_container(void)
{
	static const int senders[] = {GATEWAY, 1, CONTAINER};

	if (run("set -e; ip netns add c3; ip link add inside type veth peer name eth0 netns c3; "
		"ip addr add 10.7.0.1/24 dev inside; ip addr add fd07::1/64 dev inside nodad; "
		/* Neighbours are asked from it for what is forwarded. */
		"ip addr add fe80::1/64 dev inside nodad; "
		"ip link set inside up; ip -n c3 link set lo up; ip -n c3 addr add 10.7.0.2/24 dev eth0; "
		"ip -n c3 addr add fd07::2/64 dev eth0 nodad; ip -n c3 link set eth0 up mtu 1420; "
		"ip -n c3 route add default via 10.7.0.1; ip -n c3 route add default via fd07::1; "
		"ip -n c1 route add 10.7.0.0/24 dev wgc; ip -n c1 route add fd07::/64 dev wgc"))
		return -1;
	/* A cable takes a moment, in which neighbours do not answer. */
	if (run("for to in 10.7.0.2 fd07::2; do for i in $(seq 60); do "
		"ip netns exec c1 ping -q -n -c 1 -W 5 $to >/dev/null && continue 2; sleep 0.5; done; "
		"echo \"$to does not answer\" >&2; exit 1; done"))
		return -1;
	if (open_place(CONTAINER))
		return -1;
	/* Large aggregates, however slow the machine is. */
	for (size_t i = 0; i < ARRAY_SIZE(senders); i++)
		if (lab_run(senders[i], "sysctl -qw net.ipv4.tcp_tso_rtt_log=25"))
			return -1;
	return 0;
}

bool lab_is_full(void)
{
	const char *full = getenv("FULL");

	return full && strcmp(full, "1") == 0;
}

void lab_clean(void)
{
	for (int place = GATEWAY; place <= CONTAINER; place++)
		lab_run(place, "ip link del group " LAB_GROUP " 2>/dev/null");
}

int lab_run(int place, const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	assert_in_range(vsnprintf(command, sizeof(command), format, args), 1, sizeof(command) - 30);
	va_end(args);
	return place == GATEWAY ? run("%s", command) : run("ip netns exec c%d %s", place, command);
}

void lab_enter(int place)
{
	assert_int_equal(setns(places[place], CLONE_NEWNET), 0);
}

/* Of the gateway's and the customer's peer: the other. */
static struct lab_transfer transfer_at(int place)
{
	struct lab_transfer transfer = {0};
	struct wg_device *device;
	struct wg *wg = NULL;

	lab_enter(place);
	assert_int_equal(wg_open(device_of(place), &wg), 0);
	assert_int_equal(wg_dump(wg, &device), 0);
	lab_enter(GATEWAY);
	for (size_t i = 0; i < device->n_peers; i++) {
		const struct wg_peer *peer = &device->peers[i];

		if (place != GATEWAY || (peer->n_allowed_ips && peer->allowed_ips[0].bytes[3] == 2))
			transfer = (struct lab_transfer){peer->tx_bytes, peer->rx_bytes};
	}
	wg_device_free(device);
	wg_close(wg);
	return transfer;
}

void lab_read_wireguard(struct lab_transfer *ret_downloads, struct lab_transfer *ret_uploads)
{
	struct lab_transfer gateway = transfer_at(GATEWAY), customer = transfer_at(1);

	*ret_downloads = (struct lab_transfer){gateway.sent, customer.received};
	*ret_uploads = (struct lab_transfer){customer.sent, gateway.received};
}

/* Columns of /proc/net/dev: eight of what was received, the third and fourth of them errors and drops, and as
 * many of what was sent. */
static uint64_t dropped_at(int place, bool sending)
{
	unsigned long long columns[12], sum = 0;
	FILE *file = lab_open(place, "/proc/thread-self/net/dev");
	char line[512], *rest;
	bool found = false;

	while (fgets(line, sizeof(line), file)) {
		if (!(rest = strstr(line, ":")) ||
		    strncmp(line + strspn(line, " "), device_of(place), strlen(device_of(place))) != 0)
			continue;
		rest++;
		for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
			columns[i] = strtoull(rest, &rest, 10);
		sum = sending ? columns[10] + columns[11] : columns[2] + columns[3];
		found = true;
	}
	fclose(file);
	assert_true(found);
	return sum;
}

uint64_t lab_dropped(bool downloads)
{
	return dropped_at(GATEWAY, downloads) + dropped_at(1, !downloads);
}

void lab_offloads(bool on)
{
	const char *state = on ? "on" : "off";

	assert_int_equal(
		run("ethtool -K " LAB_DEVICE " tso %1$s gso %1$s gro %1$s tx-udp-segmentation %1$s", state),
		0);
}

bool lab_kernel_is(int major, int minor)
{
	struct utsname name;
	int is_major, is_minor;

	assert_int_equal(uname(&name), 0);
	assert_int_equal(sscanf(name.release, "%d.%d", &is_major, &is_minor), 2);
	return is_major > major || (is_major == major && is_minor >= minor);
}

/*
 * WireGuard's device sends none of its own, though it may put some together: they come from the container.
 * With their option they count as larger than their segments: at the device's own MTU none is forwarded.
 */
void lab_allow_large(bool allowed)
{
	const unsigned largest = allowed ? 150000 : 65536;

	assert_int_equal(lab_run(GATEWAY, "ip link set " LAB_DEVICE " gro_max_size %u", largest), 0);
	assert_int_equal(lab_run(GATEWAY, "ip link set inside gso_max_size %1$u gro_max_size %1$u", largest),
			 0);
	assert_int_equal(lab_run(CONTAINER, "ip link set eth0 mtu %2$u gso_max_size %1$u gro_max_size %1$u",
				 largest, allowed ? 1400 : LAB_MTU),
			 0);
}

int lab_socket(int place, int family, int type, int protocol)
{
	int fd;

	lab_enter(place);
	fd = socket(family, type | SOCK_CLOEXEC, protocol);
	lab_enter(GATEWAY);
	assert_true(fd >= 0);
	return fd;
}

FILE *lab_open(int place, const char *path)
{
	FILE *file;

	lab_enter(place);
	file = fopen(path, "re");
	lab_enter(GATEWAY);
	assert_non_null(file);
	return file;
}

int lab_ifindex(int place, const char *interface)
{
	int ifindex;

	lab_enter(place);
	ifindex = (int)if_nametoindex(interface);
	lab_enter(GATEWAY);
	assert_true(ifindex > 0);
	return ifindex;
}

struct meter_options lab_options(void)
{
	return (struct meter_options){.pin_folder = LAB_PINS, .interface = LAB_DEVICE};
}

void lab_set_prefix(struct meter *meter, const char *text, uint32_t slot)
{
	struct cidr prefix;

	assert_int_equal(cidr_parse(text, &prefix), 0);
	assert_int_equal(meter_set_prefix(meter, &prefix, slot, 1), 0);
}

/* Whether this kernel knows the hook (Linux 6.6): one without it refuses the question. (D5) */
static bool has_tcx(void)
{
	const enum bpf_attach_type tcx_ingress = (enum bpf_attach_type)46;
	uint32_t count = 0;

	return bpf_prog_query(lab_ifindex(GATEWAY, LAB_DEVICE), tcx_ingress, 0, NULL, NULL, &count) !=
	       -EINVAL;
}

struct meter *lab_attach(void)
{
	const struct meter_options options = lab_options();
	struct meter *meter = NULL;

	assert_int_equal(meter_attach(&options, &meter), 0);
	assert_string_equal(meter_attachment(meter), has_tcx() ? "tcx" : "tc");
	lab_set_prefix(meter, "10.8.0.2/32", 1);
	lab_set_prefix(meter, "fd08::2/128", 1);
	lab_set_prefix(meter, "10.8.0.3/32", 2);
	lab_set_prefix(meter, "fd08::3/128", 2);
	return meter;
}
