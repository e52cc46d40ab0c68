// SPDX-License-Identifier: BSD-2-Clause
/*
 * The sample's road warrior: a real WireGuard client from a downloaded configuration. Its private key is made
 * here and is in no file: `wg` reads it from its standard input.
 */
#include "base/cidr.h"
#include "base/ip.h"
#include "base/key.h"
#include "base/spawn.h"
#include "cli/up_sample_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PLACEHOLDER      "[YOUR_PRIVATE_KEY]"
#define CONTROL_SOCKET   "/run/wireguard/" SAMPLE_WIREGUARD ".sock"
#define PATIENCE_MS      10000
#define POLL_MS          20
#define MAX_LINE         4096
#define MAX_CONFIG_BYTES 65536

/* ---- the device -----------------------------------------------------------------------------------------
 */

static int run_in_laptop(struct session *session, const struct ip_batch *batch)
{
	char error[400];
	up_path netns;
	int r = ip_batch_run(batch, sample_netns(SAMPLE_LAPTOP, netns), error, sizeof(error));

	return r < 0 ? session_fail(session, r, "%s", error) : 0;
}

static bool make_kernel_device(struct session *session)
{
	_cleanup_ip_ struct ip_batch batch = {0};

	ip_batch_add(&batch, "link add " SAMPLE_WIREGUARD " type wireguard");
	return run_in_laptop(session, &batch) == 0;
}

/* Of an earlier child; there mostly is none. */
static void remove_device(struct session *session)
{
	_cleanup_ip_ struct ip_batch batch = {0};

	ip_batch_add(&batch, "link delete " SAMPLE_WIREGUARD);
	(void)run_in_laptop(session, &batch);
}

/* The file alone says too little: `wg` takes a socket on which nobody listens yet for one left behind, and
 * removes it. */
static bool device_listens(void)
{
	static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = CONTROL_SOCKET};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
}

static int start_wireguard(struct session *session, int netns, pid_t *ret_pid)
{
	static const char *const argv[] = {"wireguard-go", "--foreground", SAMPLE_WIREGUARD, NULL};

	_cleanup_close_ int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct spawn spawn = {.argv = argv,
			      .net_namespace = netns,
			      .output_fd = quiet,
			      .error_fd = quiet,
			      .parent_death_signal = SIGKILL};
	int r;

	/* A killed one leaves its socket. */
	if (quiet < 0 || (unlink(CONTROL_SOCKET) < 0 && errno != ENOENT))
		return session_fail(session, -errno, "could not prepare for wireguard-go: %s",
				    strerror(errno));
	r = spawn_start(&spawn, ret_pid);
	if (r < 0)
		return session_fail(session, r, "could not start wireguard-go: %s", strerror(-r));
	for (int waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
		if (device_listens())
			return 0;
		r = sample_wait(POLL_MS);
		if (r < 0)
			return r;
	}
	return session_fail(session, -ETIMEDOUT, "wireguard-go has made no device; is /dev/net/tun there?");
}

/* ---- its configuration ----------------------------------------------------------------------------------
 */

/* What `wg` does not know, and wg-quick or an app would do. */
static bool is_for_quick(const char *line)
{
	return strncmp(line, "Address", 7) == 0 || strncmp(line, "DNS", 3) == 0;
}

static size_t append(char *text, size_t used, const char *more, size_t length)
{
	if (used + length >= MAX_CONFIG_BYTES)
		length = MAX_CONFIG_BYTES - 1 - used;
	memcpy(text + used, more, length);
	return used + length;
}

/* The caller's buffer has MAX_CONFIG_BYTES and is zero. */
static void convert(const char *config, const char *private_text, char *text)
{
	size_t used = 0;

	for (const char *line = config; *line;) {
		const char *end = strchrnul(line, '\n');
		const char *key = strstr(line, PLACEHOLDER);
		size_t length = (size_t)(end - line) + (*end == '\n');

		if (key && key < end) {
			used = append(text, used, line, (size_t)(key - line));
			used = append(text, used, private_text, strlen(private_text));
			key += strlen(PLACEHOLDER);
			used = append(text, used, key, length - (size_t)(key - line));
		} else if (!is_for_quick(line)) {
			used = append(text, used, line, length);
		}
		line += length;
	}
}

static int configure_wireguard(struct session *session, int netns, const char *config, const struct key *key)
{
	static const char *const argv[] = {"wg", "setconf", SAMPLE_WIREGUARD, "/dev/stdin", NULL};
	struct spawn spawn = {.argv = argv, .net_namespace = netns};
	_cleanup_free_ char *error = NULL;
	char *text = calloc(1, MAX_CONFIG_BYTES);
	char private_text[KEY_TEXT_SIZE];
	int r;

	if (!text)
		return session_no_memory(session);
	convert(config, key_format(key, private_text), text);
	r = spawn_run(spawn, text, NULL, &error);
	sodium_memzero(private_text, sizeof(private_text));
	sodium_memzero(text, MAX_CONFIG_BYTES);
	free(text);
	if (r == 0)
		return 0;
	return session_fail(session, r < 0 ? r : -EIO, "wg refuses the downloaded configuration: %.200s",
			    r < 0 ? strerror(-r) : error);
}

/* A command for each prefix in the line "NAME = A, B" of the configuration. */
static void add_prefixes(struct ip_batch *batch, const char *config, const char *name, const char *command)
{
	const char *line = strstr(config, name);
	char values[MAX_LINE], *rest = values, *value, text[CIDR_TEXT_SIZE];
	struct cidr cidr;

	if (!line)
		return;
	line += strlen(name);
	snprintf(values, sizeof(values), "%.*s", (int)strcspn(line, "\n"), line);
	while ((value = strsep(&rest, ", ")))
		if (cidr_parse(value, &cidr) == 0)
			ip_batch_add(batch, "%s %s dev " SAMPLE_WIREGUARD, command, cidr_format(&cidr, text));
}

static int configure_device(struct session *session, const char *config)
{
	_cleanup_ip_ struct ip_batch batch = {0};

	add_prefixes(&batch, config, "\nAddress = ", "address replace");
	ip_batch_add(&batch, "link set " SAMPLE_WIREGUARD " up");
	add_prefixes(&batch, config, "\nAllowedIPs = ", "route replace");
	return run_in_laptop(session, &batch);
}

/* ---- all of it ------------------------------------------------------------------------------------------
 */

static int set_up_device(struct session *session, const char *config, const struct key *key, pid_t *ret_pid)
{
	up_path path;
	_cleanup_close_ int netns = open(sample_netns(SAMPLE_LAPTOP, path), O_RDONLY | O_CLOEXEC);
	int r = 0;

	if (netns < 0)
		return session_fail(session, -errno, "could not open %s: %s", path, strerror(errno));
	remove_device(session);
	if (!make_kernel_device(session))
		r = start_wireguard(session, netns, ret_pid);
	if (r == 0)
		r = configure_wireguard(session, netns, config, key);
	return r == 0 ? configure_device(session, config) : r;
}

int sample_connect_client(struct session *session, pid_t *ret_pid)
{
	struct key WT_CLEANUP(key_wipe) private_key;
	_cleanup_secret_ char *config = NULL;
	char public_text[KEY_TEXT_SIZE];
	struct key public_key;
	int r;

	key_generate_private(&private_key);
	r = key_public(&private_key, &public_key);
	if (r < 0)
		return session_fail(session, r, "could not make a key pair");
	r = sample_add_peer(session, key_format(&public_key, public_text), &config);
	return r == 0 ? set_up_device(session, config, &private_key, ret_pid) : r;
}
