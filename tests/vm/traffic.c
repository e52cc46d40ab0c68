// SPDX-License-Identifier: BSD-2-Clause
/* TCP, SCTP and UDP between the places of the lab, both ends in one process. See lab.h. */
#include "lab.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT     7777
#define STALL_MS 500
#define STALLS   240
#define WAIT_MS  60000
#define LATE_MS  3000 /* a datagram that has not arrived by then is lost */
#define LARGEST  65536

static uint8_t buffer[LARGEST];

static struct sockaddr_in6 address_of(const char *text)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};

	assert_int_equal(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
	return address;
}

static int bound_socket(int place, const struct sockaddr_in6 *address, int type, int protocol)
{
	const int on = 1, room = 8 << 20;
	int fd = lab_socket(place, AF_INET6, type, protocol);

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	if (type == SOCK_DGRAM)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
	return fd;
}

/* The address that a place sends from to another; any port. */
static struct sockaddr_in6 source_of(int place, const struct sockaddr_in6 *to)
{
	struct sockaddr_in6 from;
	socklen_t size = sizeof(from);
	int fd = lab_socket(place, AF_INET6, SOCK_DGRAM, 0);

	assert_int_equal(connect(fd, (const struct sockaddr *)to, sizeof(*to)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&from, &size), 0);
	close(fd);
	from.sin6_port = 0;
	return from;
}

/*
 * Connects two sockets, each of one address: SCTP would take any other way, too. In flight is no more than
 * WireGuard's queues hold.
 */
static void connect_stream(int protocol, int from, int to, const char *text, int *ret_sender,
			   int *ret_receiver)
{
	const struct sockaddr_in6 address = address_of(text), source = source_of(from, &address);
	const int room = 200000;
	int listener = bound_socket(to, &address, SOCK_STREAM, protocol);

	assert_int_equal(listen(listener, 1), 0);
	*ret_sender = bound_socket(from, &source, SOCK_STREAM, protocol);
	assert_int_equal(setsockopt(*ret_sender, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	assert_int_equal(connect(*ret_sender, (const struct sockaddr *)&address, sizeof(address)), 0);
	*ret_receiver = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(*ret_receiver >= 0);
	assert_int_equal(fcntl(*ret_sender, F_SETFL, O_NONBLOCK), 0);
	close(listener);
}

/* Moves up to `bytes`; returns what has arrived when that is all, or when nothing moves any more. */
static size_t move(int sender, int receiver, size_t bytes, int stall_ms)
{
	struct pollfd ends[] = {{.fd = receiver, .events = POLLIN}, {.fd = sender, .events = POLLOUT}};
	size_t sent = 0, arrived = 0;

	while (arrived < bytes) {
		size_t left = bytes - sent;
		ssize_t n;

		/* Only arrival is progress: a buffer takes bytes that never leave. */
		if (poll(ends, left ? 2 : 1, stall_ms) <= 0)
			break;
		n = read(receiver, buffer, sizeof(buffer));
		arrived += n > 0 ? (size_t)n : 0;
		n = left ? write(sender, buffer, left < sizeof(buffer) ? left : sizeof(buffer)) : 0;
		sent += n > 0 ? (size_t)n : 0;
	}
	return arrived;
}

/* Of /proc/net/snmp: a line of names, and under it one of values. */
static uint64_t retransmitted_at(int place)
{
	char names[1024], values[1024], *name = names, *value = values, *found;
	FILE *file = lab_open(place, "/proc/thread-self/net/snmp");

	while (fgets(names, sizeof(names), file) && fgets(values, sizeof(values), file))
		if (strncmp(names, "Tcp:", 4) == 0)
			break;
	fclose(file);
	while ((found = strsep(&name, " ")) && strcmp(found, "RetransSegs"))
		assert_non_null(strsep(&value, " "));
	assert_non_null(found);
	return strtoull(value, NULL, 10);
}

static uint64_t retransmitted(void)
{
	uint64_t sum = 0;

	for (int place = GATEWAY; place <= CUSTOMERS; place++)
		sum += retransmitted_at(place);
	return sum;
}

static void send_stream(int protocol, int from, int to, const char *address, size_t bytes)
{
	int sender, receiver;

	connect_stream(protocol, from, to, address, &sender, &receiver);
	assert_int_equal(move(sender, receiver, bytes, WAIT_MS), bytes);
	close(sender);
	close(receiver);
}

uint64_t lab_tcp(int from, int to, const char *address, size_t bytes)
{
	uint64_t before = retransmitted();

	send_stream(IPPROTO_TCP, from, to, address, bytes);
	return retransmitted() - before;
}

void lab_sctp(int from, int to, const char *address, size_t bytes)
{
	send_stream(IPPROTO_SCTP, from, to, address, bytes);
}

size_t lab_until_exhausted(const struct meter *meter, int protocol, int from, int to, const char *address)
{
	const struct linger reset = {.l_onoff = 1};
	struct meter_limit_state limit = {0};
	int sender, receiver;
	size_t arrived = 0;

	connect_stream(protocol, from, to, address, &sender, &receiver);
	/* A busy machine stalls of its own accord. */
	for (int i = 0; i < STALLS && !limit.exhausted; i++) {
		arrived += move(sender, receiver, SIZE_MAX, STALL_MS);
		meter_read_limit(meter, &limit);
	}
	/* Nothing of it is to be sent again later. */
	setsockopt(sender, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(sender);
	setsockopt(receiver, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(receiver);
	return arrived;
}

static size_t receive_all(int fd, int wait_ms, size_t expected)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	size_t arrived = 0;

	while (arrived < expected && poll(&end, 1, wait_ms) > 0) {
		ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);

		arrived += n > 0 ? (size_t)n : 0;
	}
	return arrived;
}

size_t lab_udp(const struct lab_datagrams *datagrams)
{
	const struct sockaddr_in6 to = address_of(datagrams->address);
	const int segment = datagrams->segment, room = 4 << 20;
	int receiver = bound_socket(datagrams->to, &to, SOCK_DGRAM, 0);
	int sender = lab_socket(datagrams->from, AF_INET6, SOCK_DGRAM, 0);
	size_t size = datagrams->size, sent = 0, arrived = 0, expected = 0;

	assert_int_equal(setsockopt(sender, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)), 0);
	if (segment)
		assert_int_equal(setsockopt(sender, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
	for (int i = 0; i < datagrams->count; i++, size += datagrams->step) {
		assert_int_equal(sendto(sender, buffer, size, 0, (const struct sockaddr *)&to, sizeof(to)),
				 size);
		sent += size;
		expected += size;
		/* In step with the receiver: this is about lengths, not about speed. What is lost is waited
		 * for once. */
		if (i % 8 == 7 || i == datagrams->count - 1) {
			arrived += receive_all(receiver, LATE_MS, expected);
			expected = 0;
		}
	}
	close(sender);
	close(receiver);
	return sent - arrived;
}
