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
#include <time.h>
#include <unistd.h>

#define PORT     7777
#define STALL_MS 500
#define WAIT_MS  60000
#define LATE_MS  3000 /* a datagram that has not arrived by then is lost */
#define LARGEST  65536
#define ROOM     200000

static uint8_t buffer[LARGEST];

static struct sockaddr_in6 address_of(const char *text, size_t number)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6,
				       .sin6_port = htons((uint16_t)(PORT + number))};

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

/* A stream and how far it has come. */
struct course {
	const struct lab_stream *stream;
	int sender, receiver;
	size_t sent, arrived;
};

/*
 * Connects two sockets, each of one address: SCTP would take any other way, too. In flight is no more than
 * WireGuard's queues hold.
 */
static void connect_stream(struct course *course, const struct lab_stream *stream, size_t number, int room)
{
	const struct sockaddr_in6 address = address_of(stream->address, number),
				  source = source_of(stream->from, &address);
	const int protocol = stream->protocol, segment = stream->segment;
	const int type = protocol == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM;
	int listener = bound_socket(stream->to, &address, type, protocol);

	*course = (struct course){.stream = stream};
	if (type == SOCK_STREAM)
		assert_int_equal(listen(listener, 1), 0);
	course->sender = bound_socket(stream->from, &source, type, protocol);
	assert_int_equal(setsockopt(course->sender, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	assert_int_equal(connect(course->sender, (const struct sockaddr *)&address, sizeof(address)), 0);
	if (type == SOCK_STREAM) {
		course->receiver = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		assert_true(course->receiver >= 0);
		close(listener);
	} else {
		course->receiver = listener;
		assert_int_equal(setsockopt(course->sender, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)),
				 0);
	}
}

static void close_stream(const struct course *course)
{
	close(course->sender);
	close(course->receiver);
}

/* How much may be sent at once: a message of SCTP whole or not at all, datagrams only when all before have
 * arrived. */
static size_t sendable(const struct course *course)
{
	size_t left = course->stream->bytes - course->sent, most = sizeof(buffer);

	if (course->stream->protocol == IPPROTO_SCTP)
		most /= 4;
	if (course->stream->protocol == IPPROTO_UDP)
		most = course->sent == course->arrived ? 16 * (size_t)course->stream->segment : 0;
	return left < most ? left : most;
}

static bool has_arrived(const struct course *course)
{
	return course->arrived == course->stream->bytes;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static size_t sent_to(int fd, size_t size)
{
	ssize_t n = size ? send(fd, buffer, size, MSG_DONTWAIT) : 0;

	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	return n > 0 ? (size_t)n : 0;
}

/* Moves what can be moved now, or in half a second. Whether anything has arrived: only that is progress, as a
 * buffer takes bytes that never leave. */
static bool advance(struct course *courses, size_t n)
{
	struct pollfd ends[2 * LAB_STREAMS];
	bool arrived = false;

	assert_true(n <= LAB_STREAMS);
	for (size_t i = 0; i < n; i++) {
		ends[2 * i] = (struct pollfd){.fd = courses[i].receiver, .events = POLLIN};
		ends[2 * i + 1] = (struct pollfd){.fd = sendable(&courses[i]) ? courses[i].sender : -1,
						  .events = POLLOUT};
	}
	if (poll(ends, 2 * n, STALL_MS) <= 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		struct course *course = &courses[i];
		ssize_t in = recv(course->receiver, buffer, sizeof(buffer), MSG_DONTWAIT);

		if (ends[2 * i + 1].revents & POLLOUT)
			course->sent += sent_to(course->sender, sendable(course));
		course->arrived += in > 0 ? (size_t)in : 0;
		arrived |= in > 0;
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

size_t lab_streams(const struct lab_stream *streams, size_t n, void (*beside)(void *), void *data)
{
	struct course courses[LAB_STREAMS];
	int64_t last = now_ms(), late = 0;
	size_t missing = 0;
	bool going = true;

	assert_true(n <= LAB_STREAMS);
	for (size_t i = 0; i < n; i++)
		connect_stream(&courses[i], &streams[i], i, ROOM / (int)n);
	while (going && late < WAIT_MS) {
		if (advance(courses, n))
			last = now_ms();
		late = now_ms() - last;
		going = false;
		/* A datagram that is late is lost; the others are sent again. */
		for (size_t i = 0; i < n; i++)
			going |= !has_arrived(&courses[i]) &&
				 (streams[i].protocol != IPPROTO_UDP || late < LATE_MS);
		if (beside)
			beside(data);
	}
	for (size_t i = 0; i < n; i++) {
		missing += streams[i].bytes - courses[i].arrived;
		if (streams[i].protocol != IPPROTO_UDP)
			assert_true(has_arrived(&courses[i]));
		close_stream(&courses[i]);
	}
	return missing;
}

uint64_t lab_tcp(int from, int to, const char *address, size_t bytes)
{
	const struct lab_stream stream = {IPPROTO_TCP, from, to, address, bytes, 0};
	uint64_t before = retransmitted();

	lab_streams(&stream, 1, NULL, NULL);
	return retransmitted() - before;
}

void lab_sctp(int from, int to, const char *address, size_t bytes)
{
	const struct lab_stream stream = {IPPROTO_SCTP, from, to, address, bytes, 0};

	lab_streams(&stream, 1, NULL, NULL);
}

static bool is_exhausted(const struct meter *meter, uint32_t slot)
{
	struct meter_limit_state limit;

	if (slot)
		assert_int_equal(meter_read_peer_limit(meter, slot, &limit), 0);
	else
		meter_read_limit(meter, &limit);
	return limit.exhausted;
}

size_t lab_until_exhausted(const struct meter *meter, uint32_t slot, int protocol, int from, int to,
			   const char *address)
{
	const struct lab_stream stream = {protocol, from, to, address, SIZE_MAX, 0};
	const struct linger reset = {.l_onoff = 1};
	struct course course;

	connect_stream(&course, &stream, 0, ROOM);
	/* A busy machine stalls of its own accord. */
	for (int64_t last = now_ms(); !is_exhausted(meter, slot) && now_ms() - last < 2 * WAIT_MS;)
		if (advance(&course, 1))
			last = now_ms();
	while (advance(&course, 1))
		;
	/* Nothing of it is to be sent again later. */
	setsockopt(course.sender, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	setsockopt(course.receiver, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close_stream(&course);
	return course.arrived;
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
	const struct sockaddr_in6 to = address_of(datagrams->address, 0);
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
