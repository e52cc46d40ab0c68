// SPDX-License-Identifier: BSD-2-Clause
/* A packet socket on a layer 3 device, and the sums of what it sees. See capture.h. */
#include "capture.h"

#include "lab.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_MS  50
#define QUIET_MS 500 /* longer than an acknowledgement is put off */

struct capture {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	struct capture_totals totals;
	atomic_bool stop;
};

/* The length that the packet's own header states. */
static uint64_t stated_length(const uint8_t *header)
{
	if (header[0] >> 4 == 4)
		return (uint64_t)header[2] << 8 | header[3];
	if (header[0] >> 4 == 6)
		return 40 + ((uint64_t)header[4] << 8 | header[5]);
	return 0;
}

/*
 * Whether it is for an address of WireGuard's network or of a peer's prefixes, as all that comes out of it
 * is. What the kernel takes out of SRv6 it hands to the same device again, whose captures then see it, too:
 * it has come in already.
 */
static bool is_outermost(const uint8_t *header)
{
	if (header[0] >> 4 == 4)
		return header[16] == 10 && (header[17] == 8 || header[17] == 50);
	return header[24] == 0xfd && header[25] == 0x08;
}

static void count(struct capture *capture, const uint8_t *header, uint64_t length, uint8_t type)
{
	enum capture_direction direction = type == PACKET_OUTGOING ? CAPTURE_OUT : CAPTURE_IN;
	struct capture_totals *totals = &capture->totals;

	if (direction == CAPTURE_IN && !is_outermost(header))
		return;
	totals->bytes[direction] += length;
	totals->packets[direction]++;
	totals->odd += length != stated_length(header);
	if (length > totals->largest[direction])
		totals->largest[direction] = length;
}

/* One packet; whether there was one. It is never in nobody's hands: who reads the totals misses none. */
static bool take(struct capture *capture)
{
	struct sockaddr_ll from = {0};
	socklen_t size = sizeof(from);
	uint8_t header[40] = {0};
	ssize_t length;

	pthread_mutex_lock(&capture->lock);
	length = recvfrom(capture->fd, header, sizeof(header), MSG_TRUNC | MSG_DONTWAIT,
			  (struct sockaddr *)&from, &size);
	if (length > 0)
		count(capture, header, (uint64_t)length, from.sll_pkttype);
	pthread_mutex_unlock(&capture->lock);
	return length > 0;
}

static void *run_capture(void *data)
{
	struct capture *capture = data;
	struct pollfd end = {.fd = capture->fd, .events = POLLIN};

	while (!atomic_load(&capture->stop))
		if (poll(&end, 1, 50) > 0)
			take(capture);
	return NULL;
}

struct capture *capture_start(int place, const char *interface)
{
	struct capture *capture = calloc(1, sizeof(*capture));
	struct sockaddr_ll on = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	const int room = 128 << 20;

	assert_non_null(capture);
	on.sll_ifindex = lab_ifindex(place, interface);
	capture->fd = lab_socket(place, AF_PACKET, SOCK_RAW, 0);
	assert_int_equal(setsockopt(capture->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), 0);
	assert_int_equal(bind(capture->fd, (const struct sockaddr *)&on, sizeof(on)), 0);
	assert_int_equal(pthread_mutex_init(&capture->lock, NULL), 0);
	assert_int_equal(pthread_create(&capture->thread, NULL, run_capture, capture), 0);
	return capture;
}

struct capture_totals capture_read(struct capture *capture)
{
	struct tpacket_stats statistics = {0};
	socklen_t size = sizeof(statistics);
	struct capture_totals totals;

	while (take(capture))
		;
	/* The kernel forgets them as it tells them. */
	assert_int_equal(getsockopt(capture->fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &size), 0);
	pthread_mutex_lock(&capture->lock);
	capture->totals.lost += statistics.tp_drops;
	totals = capture->totals;
	pthread_mutex_unlock(&capture->lock);
	return totals;
}

static bool agrees(const struct capture_totals *truth, const struct meter_totals *totals, bool uploads)
{
	return totals->download_bytes == truth->bytes[CAPTURE_IN] &&
	       (!uploads || totals->upload_bytes == truth->bytes[CAPTURE_OUT]);
}

bool capture_settles(struct capture *capture, const struct meter *meter, uint32_t slot, bool uploads,
		     int seconds)
{
	uint64_t before = 0;

	for (int i = 0, quiet = 0; i < seconds * (1000 / LOOK_MS); i++) {
		struct capture_totals truth = capture_read(capture);
		uint64_t now = truth.packets[CAPTURE_IN] + truth.packets[CAPTURE_OUT];
		struct meter_totals totals;

		meter_read(meter, slot, &totals);
		quiet = now == before && agrees(&truth, &totals, uploads) ? quiet + 1 : 0;
		if (quiet * LOOK_MS >= QUIET_MS)
			return true;
		before = now;
		usleep(LOOK_MS * 1000);
	}
	return false;
}

void capture_stop(struct capture *capture)
{
	atomic_store(&capture->stop, true);
	assert_int_equal(pthread_join(capture->thread, NULL), 0);
	pthread_mutex_destroy(&capture->lock);
	close(capture->fd);
	free(capture);
}
