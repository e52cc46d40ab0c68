// SPDX-License-Identifier: BSD-2-Clause
#include "net/netlink.h"

#include <errno.h>
#include <limits.h>
#include <netlink/errno.h>
#include <netlink/socket.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

/* The kernel fills dumps up to the size that the reader offers, and never beyond 32 KiB. */
#define RECEIVE_SIZE  65536
#define DUMP_ATTEMPTS 16

int netlink_open(int protocol, struct nl_sock **ret_socket)
{
	const struct timeval timeout = {.tv_sec = NETLINK_TIMEOUT_SECONDS};
	struct nl_sock *sock = nl_socket_alloc();
	int fd, r;

	if (!sock)
		return -ENOMEM;
	r = nl_connect(sock, protocol);
	if (r < 0) {
		nl_socket_free(sock);
		return r == -NLE_NOMEM ? -ENOMEM : r == -NLE_PERM ? -EPERM : -EPROTONOSUPPORT;
	}
	fd = nl_socket_get_fd(sock);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0) {
		r = -errno;
		nl_socket_free(sock);
		return r;
	}
	*ret_socket = sock;
	return 0;
}

struct nl_msg *netlink_message(uint16_t type, uint16_t flags, size_t size)
{
	struct nl_msg *message = nlmsg_alloc_size(size);

	if (message && !nlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, type, 0, NLM_F_REQUEST | flags)) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

void netlink_message_free(struct nl_msg *message)
{
	if (!message)
		return;
	sodium_memzero(nlmsg_hdr(message), nlmsg_get_max_size(message));
	nlmsg_free(message);
}

static int kernel_result(const struct nlmsghdr *header)
{
	int error = 0;

	/* Both NLMSG_ERROR and NLMSG_DONE begin with the error; DONE may come without. */
	if (nlmsg_datalen(header) >= (int)sizeof(error))
		memcpy(&error, nlmsg_data(header), sizeof(error));
	else if (header->nlmsg_type == NLMSG_ERROR)
		error = -EPROTO;
	return error < 0 ? error : 0;
}

void netlink_consume(struct netlink_answer *answer, const void *buffer, size_t length,
		     const struct netlink_reader *reader)
{
	int remaining = length > INT_MAX ? INT_MAX : (int)length;

	for (struct nlmsghdr *header = (struct nlmsghdr *)buffer;
	     nlmsg_ok(header, remaining) && !answer->done; header = nlmsg_next(header, &remaining)) {
		int r = 0;

		if (header->nlmsg_seq != answer->sequence || header->nlmsg_type == NLMSG_NOOP)
			continue;
		if (header->nlmsg_flags & NLM_F_DUMP_INTR)
			answer->interrupted = true;
		if (header->nlmsg_type == NLMSG_ERROR || header->nlmsg_type == NLMSG_DONE) {
			answer->done = true;
			r = kernel_result(header);
		} else if (header->nlmsg_type == NLMSG_OVERRUN) {
			r = -EOVERFLOW;
		} else if (reader && answer->result == 0) {
			r = reader->message(header, reader->data);
		}
		if (answer->result == 0)
			answer->result = r;
	}
}

static int receive(int fd, struct netlink_answer *answer, char *buffer, const struct netlink_reader *reader)
{
	struct sockaddr_nl sender = {0};
	socklen_t sender_size = sizeof(sender);
	ssize_t got = recvfrom(fd, buffer, RECEIVE_SIZE, MSG_TRUNC, (struct sockaddr *)&sender, &sender_size);

	if (got < 0) {
		if (errno == EINTR)
			return 0;
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	if (got > RECEIVE_SIZE)
		return -EMSGSIZE;
	/* Any process may send to our port; only the kernel is port 0. */
	if (sender.nl_pid == 0)
		netlink_consume(answer, buffer, (size_t)got, reader);
	return 0;
}

static int exchange(struct nl_sock *socket, struct nl_msg *message, const struct netlink_reader *reader,
		    char *buffer, struct netlink_answer *answer)
{
	int fd = nl_socket_get_fd(socket);
	struct nlmsghdr *header = nlmsg_hdr(message);
	ssize_t sent;

	header->nlmsg_seq = NL_AUTO_SEQ;
	nl_complete_msg(socket, message);
	*answer = (struct netlink_answer){.sequence = header->nlmsg_seq};
	do {
		sent = send(fd, header, header->nlmsg_len, 0);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	while (!answer->done) {
		int r = receive(fd, answer, buffer, reader);

		if (r < 0)
			return r;
	}
	return answer->result;
}

int netlink_request(struct nl_sock *socket, struct nl_msg *message, const struct netlink_reader *reader)
{
	_cleanup_free_ char *buffer = malloc(RECEIVE_SIZE);
	struct netlink_answer answer;
	int r = -EAGAIN;

	if (!buffer)
		return -ENOMEM;
	for (int attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
		if (attempt > 0 && reader && reader->restart)
			reader->restart(reader->data);
		r = exchange(socket, message, reader, buffer, &answer);
		if (r < 0 || !answer.interrupted)
			break;
		r = -EAGAIN;
	}
	/* A dump of WireGuard holds the private key. */
	sodium_memzero(buffer, RECEIVE_SIZE);
	return r;
}

int netlink_ask(int protocol, struct nl_msg *message, const struct netlink_reader *reader)
{
	struct nl_sock *socket = NULL;
	int r = netlink_open(protocol, &socket);

	if (r == 0)
		r = netlink_request(socket, message, reader);
	nl_socket_free(socket);
	return r;
}
