// SPDX-License-Identifier: BSD-2-Clause
/*
 * Real devices, changed through wg.h: wireguard-go's where that is installed, and the kernel's where it has
 * WireGuard. What came of it is asked of `wg show`.
 */
#include "namespace.h"

#include "net/net.h"
#include "wg/wg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>

#include <cmocka.h>

#define UNPRIVILEGED_UID 4242

static struct wg *wg;
static bool use_kernel;
static pid_t implementation; /* wireguard-go's process */

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Opens a device that is still starting. */
static struct wg *open_started(const char *interface)
{
	struct wg *started = NULL;

	for (int i = 0; i < 6000 && wg_open(interface, &started) < 0; i++)
		pause_ms(10);
	return started;
}

static pid_t start_wireguard(const char *interface)
{
	char *arguments[] = {(char *)"wireguard-go", (char *)"-f", (char *)interface, NULL};

	return start(arguments);
}

static int create_kernel_device(const char *interface)
{
	struct net *net;
	int r = net_open(&net);

	if (r < 0)
		return r;
	r = net_link_create_wireguard(net, interface);
	net_close(net);
	return r;
}

/* Ends the device as something else than the test's own calls would. */
static void lose_device(void)
{
	stop(implementation);
	implementation = 0;
	if (use_kernel)
		run("ip link del wg0 2>/dev/null");
}

static int start_device(void **state)
{
	struct key private_key;

	(void)state;
	if (use_kernel && create_kernel_device("wg0") < 0)
		return -1;
	if (!use_kernel)
		implementation = start_wireguard("wg0");
	wg = open_started("wg0");
	if (!wg)
		return -1;
	key_generate_private(&private_key);
	return wg_set_interface(wg, &private_key, 51820) == 0 && run("ip link set wg0 up") == 0 ? 0 : -1;
}

static int stop_device(void **state)
{
	(void)state;
	wg_close(wg);
	lose_device();
	/* The TUN goes a moment after its process. */
	for (int i = 0; i < 6000 && run("ip link show wg0 >/dev/null 2>&1") == 0; i++)
		pause_ms(10);
	unlink("/run/wireguard/wg0.sock");
	return 0;
}

static struct key random_public(void)
{
	struct key private_key, public_key;

	key_generate_private(&private_key);
	assert_int_equal(key_public(&private_key, &public_key), 0);
	return public_key;
}

static struct cidr prefix(const char *text)
{
	struct cidr cidr;

	assert_int_equal(cidr_parse(text, &cidr), 0);
	return cidr;
}

/* The first line of a command's output. */
static const char *output(char text[static 512], const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static const char *output(char text[static 512], const char *format, ...)
{
	char command[512];
	va_list args;
	FILE *pipe;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	if (!fgets(text, 512, pipe))
		text[0] = '\0';
	pclose(pipe);
	text[strcspn(text, "\n")] = '\0';
	return text;
}

/* The columns of `wg show wg0 dump` for a peer: preshared key, endpoint, sorted allowed IPs, keepalive. */
static void assert_peer(const struct key *public_key, const char *expected)
{
	char key[KEY_TEXT_SIZE], text[512];

	output(text,
	       "wg show wg0 dump | awk -F'\\t' '$1 == \"%s\" {print $2, $3, $4, $8}' |"
	       " while read psk endpoint ips keepalive; do"
	       " echo $psk $endpoint $(echo $ips | tr , '\\n' | LC_ALL=C sort | paste -sd ,) $keepalive; "
	       "done",
	       key_format(public_key, key));
	assert_string_equal(text, expected);
}

static void change(const struct wg_peer_change *one)
{
	assert_int_equal(wg_change_peers(wg, one, 1), 0);
}

static struct sockaddr_storage endpoint4(const char *address, uint16_t port)
{
	struct sockaddr_storage endpoint = {0};
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)&endpoint;

	ipv4->sin_family = AF_INET;
	ipv4->sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, address, &ipv4->sin_addr), 1);
	return endpoint;
}

static struct sockaddr_storage endpoint6(const char *address, uint16_t port)
{
	struct sockaddr_storage endpoint = {0};
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)&endpoint;

	ipv6->sin6_family = AF_INET6;
	ipv6->sin6_port = htons(port);
	assert_int_equal(inet_pton(AF_INET6, address, &ipv6->sin6_addr), 1);
	return endpoint;
}

static void test_open(void **state)
{
	struct wg *none = NULL;

	(void)state;
	assert_string_equal(wg_kind(wg), use_kernel ? "kernel" : "userspace");
	assert_int_equal(wg_open("wg7", &none), -ENODEV);
	assert_int_equal(wg_open("lo", &none), -ENODEV);
	assert_int_equal(wg_open("", &none), -EINVAL);
	assert_int_equal(wg_open("a-name-beyond-15", &none), -EINVAL);
	assert_int_equal(wg_open("../x", &none), -EINVAL);
	assert_null(none);
}

static void test_interface(void **state)
{
	struct key private_key, public_key;
	struct wg_device *device = NULL;
	char text[512], expected[KEY_TEXT_SIZE];

	(void)state;
	key_generate_private(&private_key);
	assert_int_equal(key_public(&private_key, &public_key), 0);
	assert_int_equal(wg_set_interface(wg, &private_key, 51899), 0);
	assert_string_equal(output(text, "wg show wg0 public-key"), key_format(&public_key, expected));
	assert_string_equal(output(text, "wg show wg0 listen-port"), "51899");
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_true(key_equal(&device->public_key, &public_key));
	assert_int_equal(device->listen_port, 51899);
	assert_int_equal(device->n_peers, 0);
	wg_device_free(device);
	wg_device_free(NULL);
}

static void test_peer_values(void **state)
{
	struct cidr ips[] = {prefix("10.1.0.0/16"), prefix("fd01::/64"), prefix("192.0.2.1/32")};
	struct wg_peer_change peer = {.public_key = random_public(),
				      .set_endpoint = true,
				      .endpoint = endpoint4("192.0.2.9", 1234),
				      .set_keepalive = true,
				      .keepalive = 25,
				      .allowed_ips = ips,
				      .n_allowed_ips = 3};
	struct wg_peer_change psk = {.public_key = peer.public_key, .set_preshared_key = true};
	struct wg_peer_change move = {.public_key = peer.public_key, .set_endpoint = true};
	struct wg_device *device;
	char text[512], key[KEY_TEXT_SIZE];

	(void)state;
	change(&peer);
	assert_peer(&peer.public_key, "(none) 192.0.2.9:1234 10.1.0.0/16,192.0.2.1/32,fd01::/64 25");
	key_generate_preshared(&psk.preshared_key);
	change(&psk);
	snprintf(text, sizeof(text), "%s 192.0.2.9:1234 10.1.0.0/16,192.0.2.1/32,fd01::/64 25",
		 key_format(&psk.preshared_key, key));
	assert_peer(&peer.public_key, text);
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_true(device->peers[0].has_preshared_key &&
		    key_equal(&device->peers[0].preshared_key, &psk.preshared_key));
	assert_memory_equal(&device->peers[0].endpoint, &peer.endpoint, sizeof(struct sockaddr_in));
	wg_device_free(device);
	key_wipe(&psk.preshared_key);
	change(&psk);
	move.endpoint = endpoint6("2001:db8::1", 51820);
	change(&move);
	assert_peer(&peer.public_key, "(none) [2001:db8::1]:51820 10.1.0.0/16,192.0.2.1/32,fd01::/64 25");
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_false(device->peers[0].has_preshared_key);
	assert_memory_equal(&device->peers[0].endpoint, &move.endpoint, sizeof(struct sockaddr_in6));
	assert_int_equal(device->peers[0].keepalive, 25);
	assert_int_equal(device->peers[0].handshake_ns, 0);
	wg_device_free(device);
	peer.set_endpoint = false;
	peer.keepalive = 0;
	peer.replace_allowed_ips = true;
	peer.n_allowed_ips = 1;
	change(&peer);
	assert_peer(&peer.public_key, "(none) [2001:db8::1]:51820 10.1.0.0/16 off");
}

static void test_update_only(void **state)
{
	struct cidr ip = prefix("10.1.0.1/32");
	struct wg_peer_change absent = {.public_key = random_public(),
					.update_only = true,
					.set_keepalive = true,
					.keepalive = 5,
					.allowed_ips = &ip,
					.n_allowed_ips = 1};
	struct wg_device *device;

	(void)state;
	change(&absent);
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_int_equal(device->n_peers, 0);
	wg_device_free(device);
	/* Removing what is not there is fine, too. */
	change(&(struct wg_peer_change){.public_key = absent.public_key, .remove = true});
}

static void test_prefixes_move_and_go(void **state)
{
	struct cidr a_ips[] = {prefix("10.1.0.0/24"), prefix("10.2.0.0/24"), prefix("fd01::/64")};
	struct cidr b_ips[] = {prefix("10.3.0.0/24")};
	struct wg_peer_change a = {.public_key = random_public(), .allowed_ips = a_ips, .n_allowed_ips = 3};
	struct wg_peer_change b = {.public_key = random_public(), .allowed_ips = b_ips, .n_allowed_ips = 1};
	struct wg_peer_change move = {
		.public_key = b.public_key, .allowed_ips = &a_ips[1], .n_allowed_ips = 1};
	struct wg_peer_change both[] = {a, b};
	struct wg_device *device;

	(void)state;
	assert_int_equal(wg_change_peers(wg, both, 2), 0);
	change(&move);
	assert_peer(&a.public_key, "(none) (none) 10.1.0.0/24,fd01::/64 off");
	assert_peer(&b.public_key, "(none) (none) 10.2.0.0/24,10.3.0.0/24 off");
	assert_int_equal(wg_remove_allowed_ip(wg, &b.public_key, &b_ips[0]), 0);
	assert_peer(&b.public_key, "(none) (none) 10.2.0.0/24 off");
	assert_int_equal(wg_remove_allowed_ip(wg, &a.public_key, &a_ips[2]), 0);
	assert_peer(&a.public_key, "(none) (none) 10.1.0.0/24 off");
	/* Asked of the wrong peer, or twice: nobody loses it. */
	assert_int_equal(wg_remove_allowed_ip(wg, &a.public_key, &a_ips[1]), 0);
	assert_int_equal(wg_remove_allowed_ip(wg, &a.public_key, &a_ips[2]), 0);
	assert_peer(&b.public_key, "(none) (none) 10.2.0.0/24 off");
	/* No parking peer is left. */
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_int_equal(device->n_peers, 2);
	assert_non_null(wg_device_find(device, &a.public_key));
	wg_device_free(device);
}

static void test_errors(void **state)
{
	struct cidr host_bits = prefix("10.1.0.1/24");
	struct wg_peer_change bad = {
		.public_key = random_public(), .allowed_ips = &host_bits, .n_allowed_ips = 1};
	struct sockaddr_in taken = {.sin_family = AF_INET, .sin_port = htons(51999)};
	struct key private_key;
	struct wg_device *device = NULL;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(wg_change_peers(wg, &bad, 1), -EINVAL);
	bad.n_allowed_ips = 0;
	bad.set_endpoint = true;
	assert_int_equal(wg_change_peers(wg, &bad, 1), -EINVAL);
	/* The device's own word: the port is another's. */
	assert_int_equal(bind(fd, (struct sockaddr *)&taken, sizeof(taken)), 0);
	key_generate_private(&private_key);
	assert_int_equal(wg_set_interface(wg, &private_key, 51999), -EADDRINUSE);
	close(fd);
	lose_device();
	assert_int_equal(wg_dump(wg, &device), -ENODEV);
	assert_null(device);
}

/* 3,000 peers of 4 prefixes: as given, as dumped, and as `wg` prints them. */
static void test_thousands(void **state)
{
	enum { PEERS = 3000, PREFIXES = 4 };
	struct wg_peer_change *changes = calloc(PEERS, sizeof(*changes));
	struct cidr(*ips)[PREFIXES] = calloc(PEERS, sizeof(*ips));
	struct wg_device *device = NULL;
	char text[512];

	(void)state;
	for (unsigned i = 0; i < PEERS; i++) {
		for (unsigned j = 0; j < PREFIXES; j++) {
			snprintf(text, sizeof(text), "10.%u.%u.%u/32", j, i / 256, i % 256);
			ips[i][j] = prefix(text);
		}
		changes[i] = (struct wg_peer_change){.public_key = random_public(),
						     .set_keepalive = true,
						     .keepalive = (uint16_t)i,
						     .allowed_ips = ips[i],
						     .n_allowed_ips = PREFIXES};
	}
	assert_int_equal(wg_change_peers(wg, changes, PEERS), 0);
	assert_string_equal(output(text, "wg show wg0 allowed-ips | awk '{n += NF - 1} END {print NR, n}'"),
			    "3000 12000");
	assert_int_equal(wg_dump(wg, &device), 0);
	assert_int_equal(device->n_peers, PEERS);
	for (unsigned i = 0; i < PEERS; i++) {
		const struct wg_peer *peer = wg_device_find(device, &changes[i].public_key);

		assert_non_null(peer);
		assert_int_equal(peer->keepalive, i);
		assert_int_equal(peer->n_allowed_ips, PREFIXES);
		for (unsigned j = 0; j < PREFIXES; j++)
			assert_true(cidr_equal(&peer->allowed_ips[j], &ips[i][j]));
		assert_true(i == 0 || memcmp(device->peers[i - 1].public_key.bytes,
					     device->peers[i].public_key.bytes, KEY_SIZE) < 0);
	}
	wg_device_free(device);
	for (unsigned i = 0; i < PEERS; i++)
		changes[i].remove = true;
	assert_int_equal(wg_change_peers(wg, changes, PEERS), 0);
	assert_string_equal(output(text, "wg show wg0 peers | wc -l"), "0");
	free(ips);
	free(changes);
}

/* The client's device, in the namespace "client". Returns its process; 0 for a kernel's. */
static pid_t start_client_device(struct wg **ret_client)
{
	char *arguments[] = {(char *)"ip",           (char *)"netns", (char *)"exec", (char *)"client",
			     (char *)"wireguard-go", (char *)"-f",    (char *)"wgc",  NULL};
	pid_t pid = 0;

	if (use_kernel)
		assert_int_equal(create_kernel_device("wgc"), 0);
	else
		pid = start(arguments);
	*ret_client = open_started("wgc");
	return pid;
}

/* A client in a network namespace of its own, joined by a veth. Returns its device's process. */
static pid_t start_client(const struct key *gateway_key, struct key *ret_public)
{
	struct cidr everything = prefix("0.0.0.0/0");
	struct wg_peer_change gateway = {.public_key = *gateway_key,
					 .set_endpoint = true,
					 .endpoint = endpoint4("192.0.2.1", 51820),
					 .allowed_ips = &everything,
					 .n_allowed_ips = 1};
	struct key private_key;
	struct wg *client;
	pid_t pid;

	assert_int_equal(run("ip netns add client && ip link add v0 type veth peer name v1 netns client && "
			     "ip addr add 192.0.2.1/24 dev v0 && ip link set v0 up && "
			     "ip -n client addr add 192.0.2.2/24 dev v1 && ip -n client link set v1 up && "
			     "ip addr add 10.99.0.1/24 dev wg0"),
			 0);
	pid = start_client_device(&client);
	assert_non_null(client);
	key_generate_private(&private_key);
	assert_int_equal(key_public(&private_key, ret_public), 0);
	assert_int_equal(wg_set_interface(client, &private_key, 0), 0);
	assert_int_equal(wg_change_peers(client, &gateway, 1), 0);
	wg_close(client);
	/* A kernel's device keeps its socket in the namespace where it was made. */
	if (use_kernel)
		assert_int_equal(run("ip link set wgc netns client"), 0);
	assert_int_equal(run("ip -n client addr add 10.99.0.2/24 dev wgc && ip -n client link set wgc up"),
			 0);
	return pid;
}

#define ECHOES  1000
#define ECHO_ID 4242

/* One's complement sum; the payload is zeros. */
static uint16_t echo_checksum(uint16_t sequence)
{
	uint32_t sum = (ICMP_ECHO << 8) + ECHO_ID + sequence;

	return htons((uint16_t) ~((sum & 0xffff) + (sum >> 16)));
}

static void send_echo(int fd, uint16_t sequence)
{
	struct {
		struct icmphdr header;
		uint8_t payload[56];
	} request = {.header = {.type = ICMP_ECHO,
				.checksum = echo_checksum(sequence),
				.un.echo = {.id = htons(ECHO_ID), .sequence = htons(sequence)}}};

	if (send(fd, &request, sizeof(request), 0) != sizeof(request))
		_exit(3);
}

/* Which request the packet that has come answers; -1: none. */
static int receive_echo(int fd)
{
	struct {
		uint8_t ip[20];
		struct icmphdr header;
		uint8_t payload[1400];
	} packet;

	if (recv(fd, &packet, sizeof(packet), 0) < 28 || packet.header.type != ICMP_ECHOREPLY ||
	    packet.header.un.echo.id != htons(ECHO_ID))
		return -1;
	return ntohs(packet.header.un.echo.sequence);
}

/*
 * The client's echo requests, two milliseconds apart; ends with 0 when each is answered, however late:
 * ping(8) gives the last ones up after twice the time of the slowest one before.
 */
static void echo_from_client(void)
{
	struct sockaddr_in gateway = {.sin_family = AF_INET};
	struct pollfd readable = {.events = POLLIN};
	bool answered[ECHOES] = {false};
	int client = open("/run/netns/client", O_RDONLY | O_CLOEXEC), missing = ECHOES, sent = 0;

	inet_pton(AF_INET, "10.99.0.1", &gateway.sin_addr);
	if (client < 0 || setns(client, CLONE_NEWNET) < 0)
		_exit(2);
	readable.fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
	if (connect(readable.fd, (struct sockaddr *)&gateway, sizeof(gateway)) < 0)
		_exit(2);
	do {
		if (sent < ECHOES)
			send_echo(readable.fd, (uint16_t)sent++);
		while (missing > 0 && poll(&readable, 1, sent < ECHOES ? 2 : 60000) > 0) {
			int number = receive_echo(readable.fd);

			if (number >= 0 && number < ECHOES && !answered[number]) {
				answered[number] = true;
				missing--;
			}
		}
	} while (sent < ECHOES);
	_exit(missing > 0);
}

/* Every kind of change to another peer, and to the interface as it is, while packets of the first one flow.
 */
static void change_other_peer(const struct key *other, unsigned round)
{
	struct cidr ips[] = {prefix("10.50.0.0/24"), prefix("10.51.0.0/24")};
	struct wg_peer_change edit = {.public_key = *other,
				      .set_preshared_key = true,
				      .set_keepalive = true,
				      .keepalive = (uint16_t)round,
				      .set_endpoint = true,
				      .endpoint = endpoint4("192.0.2.77", 7),
				      .allowed_ips = ips,
				      .n_allowed_ips = 2};

	key_generate_preshared(&edit.preshared_key);
	change(&edit);
	assert_int_equal(wg_remove_allowed_ip(wg, other, &ips[1]), 0);
	edit.replace_allowed_ips = true;
	edit.n_allowed_ips = 1;
	change(&edit);
	change(&(struct wg_peer_change){.public_key = *other, .remove = true});
}

static void test_others_undisturbed(void **state)
{
	struct cidr client_ip = prefix("10.99.0.2/32");
	struct key private_key, gateway_key, other = random_public();
	struct wg_peer_change client = {.allowed_ips = &client_ip, .n_allowed_ips = 1};
	struct wg_device *before, *after;
	pid_t client_pid, echo_pid;
	int status;

	(void)state;
	key_generate_private(&private_key);
	assert_int_equal(key_public(&private_key, &gateway_key), 0);
	assert_int_equal(wg_set_interface(wg, &private_key, 51820), 0);
	client_pid = start_client(&gateway_key, &client.public_key);
	change(&client);
	assert_int_equal(run("ip netns exec client ping -q -c 1 -W 60 10.99.0.1 >/dev/null"), 0);
	assert_int_equal(wg_dump(wg, &before), 0);
	echo_pid = fork();
	if (echo_pid == 0)
		echo_from_client();
	for (unsigned round = 1; round <= 50; round++) {
		change_other_peer(&other, round);
		assert_int_equal(wg_set_interface(wg, &private_key, 51820), 0);
		pause_ms(20);
	}
	assert_int_equal(waitpid(echo_pid, &status, 0), echo_pid);
	assert_int_equal(status, 0);
	assert_int_equal(wg_dump(wg, &after), 0);
	assert_int_equal(after->n_peers, 1);
	assert_true(key_equal(&after->peers[0].public_key, &client.public_key));
	assert_int_equal(after->peers[0].n_allowed_ips, 1);
	/* The same session still, and counters that went on. */
	assert_true(before->peers[0].handshake_ns > 0);
	assert_int_equal(after->peers[0].handshake_ns, before->peers[0].handshake_ns);
	assert_true(after->peers[0].rx_bytes >= before->peers[0].rx_bytes + ECHOES * 116);
	assert_true(after->peers[0].tx_bytes >= before->peers[0].tx_bytes + ECHOES * 116);
	wg_device_free(before);
	wg_device_free(after);
	stop(client_pid);
	run("ip netns del client");
}

/* A user of its own with CAP_NET_ADMIN as an ambient capability, as a gateway's programs have it. */
static int become_unprivileged(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const uint32_t net_admin = 1U << CAP_NET_ADMIN;
	struct __user_cap_data_struct caps[2] = {{net_admin, net_admin, net_admin}};

	if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setgroups(0, NULL) < 0 ||
	    setresgid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID) < 0 ||
	    setresuid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID) < 0 ||
	    syscall(SYS_capset, &header, caps) < 0)
		return -1;
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0);
}

/* The whole life of a device without root: made, configured, changed, dumped. */
static int act_unprivileged(void)
{
	struct wg_peer_change peer = {.public_key = random_public()};
	struct wg_device *device;
	struct key private_key;
	struct wg *mine;

	if (become_unprivileged() < 0)
		return 1;
	start_wireguard("wg1");
	mine = open_started("wg1");
	if (!mine)
		return 2;
	key_generate_private(&private_key);
	if (wg_set_interface(mine, &private_key, 51821) < 0 || wg_change_peers(mine, &peer, 1) < 0 ||
	    wg_dump(mine, &device) < 0)
		return 3;
	return device->n_peers == 1 && device->listen_port == 51821 ? 0 : 4;
}

static void test_unprivileged(void **state)
{
	pid_t child;
	int status;

	(void)state;
	/* /dev/net/tun of our own, as its mode differs from machine to machine. */
	assert_int_equal(mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755"), 0);
	assert_int_equal(mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)), 0);
	assert_int_equal(chmod("/dev/net/tun", 0666), 0);
	assert_int_equal(chown("/run/wireguard", UNPRIVILEGED_UID, UNPRIVILEGED_UID), 0);
	child = fork();
	if (child == 0)
		_exit(act_unprivileged());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define device_test(test) cmocka_unit_test_setup_teardown(test, start_device, stop_device)

int main(void)
{
	const struct CMUnitTest tests[] = {
		device_test(test_open),
		device_test(test_interface),
		device_test(test_peer_values),
		device_test(test_update_only),
		device_test(test_prefixes_move_and_go),
		device_test(test_errors),
		device_test(test_thousands),
		device_test(test_others_undisturbed),
	};
	const struct CMUnitTest userspace_only[] = {cmocka_unit_test(test_unprivileged)};
	int failed = 0, kinds = 0;

	if (namespace_enter() < 0)
		return 1;
	if (run("command -v wireguard-go >/dev/null") == 0) {
		kinds++;
		failed += cmocka_run_group_tests_name("userspace", tests, NULL, NULL);
		failed += cmocka_run_group_tests_name("unprivileged", userspace_only, NULL, NULL);
	}
	if (create_kernel_device("wg0") == 0) {
		kinds++;
		use_kernel = true;
		lose_device();
		failed += cmocka_run_group_tests_name("kernel", tests, NULL, NULL);
	}
	return failed > 0 || kinds == 0;
}
