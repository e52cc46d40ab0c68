// SPDX-License-Identifier: BSD-2-Clause
/* The text protocol: lines read and written, and a device that misbehaves on a real socket. */
#include "namespace.h"

#include "wg/uapi_text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <cmocka.h>

#define KEY_A "0101010101010101010101010101010101010101010101010101010101010101"
#define KEY_0 "0000000000000000000000000000000000000000000000000000000000000000"

/* Reads lines, separated by newlines, as one answer. */
static int read_answer(const char *text, struct wg_device *device)
{
	struct wg_uapi_reader reader = {.device = device};
	char *copy = strdup(text), *rest = copy, *line;
	int r = 0;

	while (r == 0 && (line = strsep(&rest, "\n")) && rest)
		r = wg_uapi_read_line(&reader, line);
	free(copy);
	if (r < 0)
		return r;
	return reader.done ? reader.result : -EAGAIN;
}

static void test_read(void **state)
{
	struct wg_device device = {0};
	const struct sockaddr_in6 *ipv6;

	(void)state;
	assert_int_equal(
		read_answer("listen_port=51820\nfwmark=0\nfuture=1\npublic_key=" KEY_A
			    "\npreshared_key=" KEY_0 "\nprotocol_version=1\nendpoint=[fe80::1%1]:7\n"
			    "last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n"
			    "tx_bytes=18446744073709551615\nrx_bytes=2\npersistent_keepalive_interval=65535\n"
			    "allowed_ip=10.0.0.0/8\nallowed_ip=::/0\nerrno=0\n\n",
			    &device),
		0);
	assert_int_equal(device.listen_port, 51820);
	assert_int_equal(device.n_peers, 1);
	assert_false(device.peers[0].has_preshared_key);
	ipv6 = (const struct sockaddr_in6 *)&device.peers[0].endpoint;
	assert_int_equal(ipv6->sin6_scope_id, 1);
	assert_int_equal(ntohs(ipv6->sin6_port), 7);
	assert_int_equal(device.peers[0].handshake_ns, 1700000000000000005);
	assert_true(device.peers[0].tx_bytes == UINT64_MAX && device.peers[0].rx_bytes == 2);
	assert_int_equal(device.peers[0].keepalive, 65535);
	assert_int_equal(device.peers[0].n_allowed_ips, 2);
	wg_device_clear(&device);
}

/* Of a later endpoint nothing of an earlier one is left, though it is longer. */
static void test_read_endpoint_anew(void **state)
{
	const struct sockaddr_storage expected = {.ss_family = AF_INET};
	struct sockaddr_storage found;
	struct wg_device device = {0};

	(void)state;
	assert_int_equal(read_answer("public_key=" KEY_A
				     "\nendpoint=[fe80::1%1]:7\nendpoint=0.0.0.0:0\nerrno=0\n\n",
				     &device),
			 0);
	found = device.peers[0].endpoint;
	assert_memory_equal(&found, &expected, sizeof(found));
	wg_device_clear(&device);
}

static void test_read_results(void **state)
{
	struct wg_device device = {0};

	(void)state;
	assert_int_equal(read_answer("errno=-22\n\n", &device), -EINVAL);
	assert_int_equal(read_answer("errno=98\n\n", &device), -EADDRINUSE);
	assert_int_equal(read_answer("errno=0\nerrno=0\n", &device), -EPROTO);
	assert_int_equal(read_answer("errno=0\n", &device), -EAGAIN);
	assert_int_equal(read_answer("listen_port=1\n", NULL), -EPROTO);
}

static void test_read_refuses(void **state)
{
	static const char *const lines[] = {
		"",
		"listen_port",
		"=1",
		"listen_port=",
		"listen_port=65536",
		"listen_port=-1",
		"listen_port= 1",
		"listen_port=1 ",
		"private_key=00",
		"public_key=" KEY_A "00",
		"public_key=xyz",
		"errno=",
		"errno=x",
		"errno=99999",
		"errno=--1",
	};
	static const char *const peer_lines[] = {
		"preshared_key=",
		"endpoint=",
		"endpoint=10.0.0.1",
		"endpoint=10.0.0.1:",
		"endpoint=10.0.0.1:65536",
		"endpoint=host:1",
		"endpoint=[::1:1",
		"endpoint=[]:1",
		"endpoint=[::1%nowhere]:1",
		"endpoint=::1:1x",
		"last_handshake_time_sec=99999999999999",
		"last_handshake_time_sec=-1",
		"last_handshake_time_nsec=1000000000",
		"rx_bytes=18446744073709551616",
		"rx_bytes=0x1",
		"persistent_keepalive_interval=65536",
		"allowed_ip=10.0.0.0",
		"allowed_ip=10.0.0.0/33",
		"allowed_ip=",
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct wg_device device = {0};

		snprintf(text, sizeof(text), "%s\nerrno=0\n\n", lines[i]);
		if (read_answer(text, &device) != -EPROTO)
			fail_msg("\"%s\" is accepted", lines[i]);
		wg_device_clear(&device);
	}
	for (size_t i = 0; i < ARRAY_SIZE(peer_lines); i++) {
		struct wg_device device = {0};

		snprintf(text, sizeof(text), "public_key=" KEY_A "\n%s\nerrno=0\n\n", peer_lines[i]);
		if (read_answer(text, &device) != -EPROTO)
			fail_msg("\"%s\" is accepted", peer_lines[i]);
		wg_device_clear(&device);
	}
}

static int collect(const char *line, void *data)
{
	strncat(data, line, 2000);
	strncat(data, "\n", 2000);
	return 0;
}

static void test_write(void **state)
{
	struct cidr ip = {.family = AF_INET, .prefix_length = 8, .bytes = {10}};
	struct wg_peer_change change = {.update_only = true,
					.set_preshared_key = true,
					.set_endpoint = true,
					.set_keepalive = true,
					.keepalive = 25,
					.replace_allowed_ips = true,
					.allowed_ips = &ip,
					.n_allowed_ips = 1};
	struct sockaddr_in6 *endpoint = (struct sockaddr_in6 *)&change.endpoint;
	struct wg_request request = {
		.private_key = &change.public_key, .set_listen_port = true, .listen_port = 7};
	char text[4096] = "";

	(void)state;
	memset(change.public_key.bytes, 1, KEY_SIZE);
	*endpoint = (struct sockaddr_in6){.sin6_family = AF_INET6,
					  .sin6_port = htons(9),
					  .sin6_scope_id = 3,
					  .sin6_addr.s6_addr = {0xfe, 0x80, [15] = 1}};
	assert_int_equal(wg_uapi_write_peer(&change, collect, text), 0);
	assert_string_equal(text, "public_key=" KEY_A "\nupdate_only=true\npreshared_key=" KEY_0
				  "\nendpoint=[fe80::1%3]:9\npersistent_keepalive_interval=25\n"
				  "replace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n");
	change.remove = true;
	text[0] = '\0';
	assert_int_equal(wg_uapi_write_peer(&change, collect, text), 0);
	assert_string_equal(text, "public_key=" KEY_A "\nremove=true\n");
	text[0] = '\0';
	assert_int_equal(wg_uapi_write_interface(&request, collect, text), 0);
	assert_string_equal(text, "private_key=" KEY_A "\nlisten_port=7\n");
}

/* A device that answers each connection with `answer`, or accepts and says nothing. Returns its process. */
static pid_t serve(const char *answer)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/wireguard/fake.sock"};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	unlink(address.sun_path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 8), 0);
	pid = fork();
	while (pid == 0) {
		char request[65536];
		int fd = accept(listener, NULL, NULL);

		if (!answer) {
			pause();
		} else if (recv(fd, request, sizeof(request), 0) > 0) {
			send(fd, answer, strlen(answer), MSG_NOSIGNAL);
		}
		close(fd);
	}
	close(listener);
	return pid;
}

static int dump_served(const char *answer)
{
	pid_t pid = serve(answer);
	struct wg_device *device = NULL;
	struct wg *wg;
	int r;

	assert_int_equal(wg_open("fake", &wg), 0);
	r = wg_dump(wg, &device);
	assert_true(r == 0 || !device);
	wg_device_free(device);
	wg_close(wg);
	stop(pid);
	return r;
}

static void test_bad_devices(void **state)
{
	static char endless[4096];

	(void)state;
	assert_int_equal(dump_served("errno=0\n\n"), 0);
	assert_int_equal(dump_served("errno=1\n\n"), -EPERM);
	assert_int_equal(dump_served("listen_port=1\n"), -EPROTO);
	assert_int_equal(dump_served("errno=0\n"), -EPROTO);
	memset(endless, 'x', sizeof(endless) - 1);
	assert_int_equal(dump_served(endless), -EPROTO);
}

static void test_silent_device(void **state)
{
	struct timespec before, after;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_int_equal(dump_served(NULL), -ETIMEDOUT);
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_in_range(after.tv_sec - before.tv_sec, WG_TIMEOUT_SECONDS - 1, 10 * WG_TIMEOUT_SECONDS);
}

/* A device that refuses the first line and hangs up while a long request still comes: its reason counts. */
static void test_refused_early(void **state)
{
	enum { CHANGES = 250, PREFIXES = 200 };
	pid_t pid = serve("errno=22\n\n");
	struct wg_peer_change *changes = calloc(CHANGES, sizeof(*changes));
	struct cidr *ips = calloc(PREFIXES, sizeof(*ips));
	struct wg *wg;

	(void)state;
	for (unsigned i = 0; i < PREFIXES; i++)
		ips[i] = (struct cidr){
			.family = AF_INET, .prefix_length = 32, .bytes = {10, 0, 0, (uint8_t)i}};
	for (unsigned i = 0; i < CHANGES; i++)
		changes[i] = (struct wg_peer_change){.allowed_ips = ips, .n_allowed_ips = PREFIXES};
	assert_int_equal(wg_open("fake", &wg), 0);
	assert_int_equal(wg_change_peers(wg, changes, CHANGES), -EINVAL);
	wg_close(wg);
	stop(pid);
	free(ips);
	free(changes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),          cmocka_unit_test(test_read_endpoint_anew),
		cmocka_unit_test(test_read_results),  cmocka_unit_test(test_read_refuses),
		cmocka_unit_test(test_write),         cmocka_unit_test(test_bad_devices),
		cmocka_unit_test(test_silent_device), cmocka_unit_test(test_refused_early),
	};

	if (namespace_enter() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
