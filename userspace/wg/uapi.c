// SPDX-License-Identifier: BSD-2-Clause
/* A userspace implementation's device, over its UAPI socket: one connection for each operation. */
#include "wg/uapi_text.h"

#include "base/clock.h"

#include <errno.h>
#include <net/if.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_FOLDER "/var/run/wireguard/"
#define BUFFER_SIZE   8192

/* Making a peer costs the device a Curve25519 multiplication: these take a fraction of the time limit. */
#define CHANGES_PER_OPERATION 256

struct uapi_device {
	struct sockaddr_un address;
};

/* One operation. The buffer holds keys in both directions. */
struct operation {
	int fd;
	int64_t deadline;
	size_t used;
	char buffer[BUFFER_SIZE];
};

static int time_left(const struct operation *operation, struct timeval *ret_left)
{
	int64_t left = operation->deadline - clock_boot_ns();

	if (left <= 0)
		return -ETIMEDOUT;
	/* Rounded up, as zero would mean for ever. */
	ret_left->tv_sec = left / NSEC_PER_SEC;
	ret_left->tv_usec = left % NSEC_PER_SEC / 1000;
	if (ret_left->tv_sec == 0 && ret_left->tv_usec == 0)
		ret_left->tv_usec = 1;
	return 0;
}

/* Lets the next call on the socket take what is left until the deadline. */
static int limit(const struct operation *operation, int option)
{
	struct timeval left;
	int r = time_left(operation, &left);

	if (r < 0)
		return r;
	return setsockopt(operation->fd, SOL_SOCKET, option, &left, sizeof(left)) < 0 ? -errno : 0;
}

static int begin(const struct uapi_device *device, struct operation *ret_operation)
{
	struct operation *operation = ret_operation;
	int r;

	operation->deadline = clock_boot_ns() + WG_TIMEOUT_SECONDS * NSEC_PER_SEC;
	operation->used = 0;
	operation->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (operation->fd < 0)
		return -errno;
	r = limit(operation, SO_SNDTIMEO);
	if (r < 0)
		return r;
	if (connect(operation->fd, (const struct sockaddr *)&device->address, sizeof(device->address)) == 0)
		return 0;
	/* Nobody listens: the implementation is gone and has left its socket behind. */
	if (errno == ENOENT || errno == ECONNREFUSED)
		return -ENODEV;
	return errno == EAGAIN ? -ETIMEDOUT : -errno;
}

static void cleanup_operation(struct operation *operation)
{
	cleanup_close(&operation->fd);
	sodium_memzero(operation->buffer, sizeof(operation->buffer));
}
#define _cleanup_operation_ WT_CLEANUP(cleanup_operation)

static int flush(struct operation *operation)
{
	size_t sent = 0;

	while (sent < operation->used) {
		int r = limit(operation, SO_SNDTIMEO);
		ssize_t n;

		if (r < 0)
			return r;
		n = send(operation->fd, operation->buffer + sent, operation->used - sent, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n > 0)
			sent += (size_t)n;
	}
	operation->used = 0;
	return 0;
}

static int write_line(const char *line, void *data)
{
	struct operation *operation = data;
	size_t length = strlen(line);

	if (operation->used + length + 1 > sizeof(operation->buffer)) {
		int r = flush(operation);

		if (r < 0)
			return r;
	}
	memcpy(operation->buffer + operation->used, line, length);
	operation->used += length;
	operation->buffer[operation->used++] = '\n';
	return 0;
}

/* Passes the complete lines in the buffer on and keeps the rest. */
static int take_lines(struct operation *operation, struct wg_uapi_reader *reader)
{
	char *line = operation->buffer, *end = operation->buffer + operation->used, *newline;

	while (!reader->done && (newline = memchr(line, '\n', (size_t)(end - line)))) {
		int r;

		*newline = '\0';
		if (strlen(line) != (size_t)(newline - line))
			return -EPROTO;
		r = wg_uapi_read_line(reader, line);
		if (r < 0)
			return r;
		line = newline + 1;
	}
	operation->used = (size_t)(end - line);
	if (operation->used >= WG_UAPI_LINE_SIZE)
		return -EPROTO;
	memmove(operation->buffer, line, operation->used);
	return 0;
}

/* Reads the answer; its end must be there, so that a device that dies amid a dump leaves no half of one. */
static int receive(struct operation *operation, struct wg_uapi_reader *reader)
{
	while (!reader->done) {
		int r = limit(operation, SO_RCVTIMEO);
		ssize_t n;

		if (r < 0)
			return r;
		n = recv(operation->fd, operation->buffer + operation->used,
			 sizeof(operation->buffer) - operation->used, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			return -EPROTO;
		operation->used += (size_t)n;
		r = take_lines(operation, reader);
		if (r < 0)
			return r;
	}
	return reader->result;
}

/* Sends the rest and reads the result. */
static int finish(struct operation *operation, int write_result, struct wg_uapi_reader *reader)
{
	int r = write_result;

	if (r == 0)
		r = write_line("", operation);
	if (r == 0)
		r = flush(operation);
	/* A device that refuses a line hangs up amid the request; its reason is waiting for us. */
	if (r == -EPIPE || r == -ECONNRESET) {
		int reason;

		operation->used = 0;
		reason = receive(operation, reader);
		return reason < 0 && reader->has_result ? reason : r;
	}
	return r < 0 ? r : receive(operation, reader);
}

static int uapi_device_dump(void *state, struct wg_device *device)
{
	_cleanup_operation_ struct operation operation = {.fd = -1};
	struct wg_uapi_reader reader = {.device = device};
	int r = begin(state, &operation);

	if (r == 0)
		r = write_line("get=1", &operation);
	return r < 0 ? r : finish(&operation, 0, &reader);
}

static int uapi_device_open(const char *interface, void **ret_state)
{
	_cleanup_operation_ struct operation operation = {.fd = -1};
	struct uapi_device *device;
	int r;

	if (interface[0] == '\0' || strlen(interface) >= IFNAMSIZ || strchr(interface, '/'))
		return -EINVAL;
	device = calloc(1, sizeof(*device));
	if (!device)
		return -ENOMEM;
	device->address.sun_family = AF_UNIX;
	snprintf(device->address.sun_path, sizeof(device->address.sun_path), SOCKET_FOLDER "%s.sock",
		 interface);
	r = begin(device, &operation);
	if (r < 0) {
		free(device);
		return r;
	}
	*ret_state = device;
	return 0;
}

/*
 * wireguard-go binds its sockets anew for any listen_port line, also for the port that it has, and packets of
 * every peer are lost meanwhile.
 */
static int drop_unchanged_port(struct uapi_device *device, struct wg_request *request)
{
	struct wg_device current = {0};
	int r = uapi_device_dump(device, &current);

	if (r == 0 && current.listen_port == request->listen_port)
		request->set_listen_port = false;
	wg_device_clear(&current);
	return r;
}

static int set_once(struct uapi_device *device, const struct wg_request *request)
{
	_cleanup_operation_ struct operation operation = {.fd = -1};
	struct wg_uapi_reader reader = {0};
	int r = begin(device, &operation);

	if (r < 0)
		return r;
	r = write_line("set=1", &operation);
	if (r == 0)
		r = wg_uapi_write_interface(request, write_line, &operation);
	for (size_t i = 0; r == 0 && i < request->n_changes; i++)
		r = wg_uapi_write_peer(&request->changes[i], write_line, &operation);
	return finish(&operation, r, &reader);
}

static int uapi_device_set(void *state, const struct wg_request *request)
{
	struct wg_request part = *request;
	size_t done = 0;
	int r = 0;

	if (part.set_listen_port)
		r = drop_unchanged_port(state, &part);
	do {
		size_t left = request->n_changes - done;

		part.changes = request->changes + done;
		part.n_changes = left < CHANGES_PER_OPERATION ? left : CHANGES_PER_OPERATION;
		if (r == 0)
			r = set_once(state, &part);
		done += part.n_changes;
		part.private_key = NULL;
		part.set_listen_port = part.set_mark = false;
	} while (r == 0 && done < request->n_changes);
	return r;
}

const struct wg_backend wg_uapi_backend = {
	.kind = "userspace",
	.open = uapi_device_open,
	.close = free,
	.dump = uapi_device_dump,
	.set = uapi_device_set,
};
