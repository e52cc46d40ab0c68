// SPDX-License-Identifier: BSD-2-Clause
#include "handshake.h"

#include "base/clock.h"
#include "metrics.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUND_MS   1000
#define MAX_EVENTS 64

/*
 * A connection's, for as long as it lives. It belongs to libmicrohttpd's thread, except while it waits:
 * whoever takes it off the list resumes it.
 */
struct handshake {
	struct handshakes *all;
	struct MHD_Connection *connection;
	int fd;
	bool is_over, is_watched, is_expired;
	int64_t until_ns;
	struct handshake *previous, *next;
};

struct handshakes {
	pthread_mutex_t mutex;
	struct handshake *waiting;
	int64_t limit_ns;
	bool stopping;
	int epoll, stop; /* `stop` is readable when it is time to end */
	pthread_t watcher;
};

/* From here on, all functions up to the watcher run under the mutex. */
static void attach(struct handshakes *all, struct handshake *handshake)
{
	handshake->previous = NULL;
	handshake->next = all->waiting;
	if (all->waiting)
		all->waiting->previous = handshake;
	all->waiting = handshake;
}

static void detach(struct handshakes *all, struct handshake *handshake)
{
	*(handshake->previous ? &handshake->previous->next : &all->waiting) = handshake->next;
	if (handshake->next)
		handshake->next->previous = handshake->previous;
}

/* For one event, so that none can come for a connection that has been resumed and closed. */
static int watch(struct handshake *handshake)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = handshake};
	int operation = handshake->is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (epoll_ctl(handshake->all->epoll, operation, handshake->fd, &event) < 0)
		return -errno;
	handshake->is_watched = true;
	return 0;
}

static void resume(struct handshake *handshake)
{
	detach(handshake->all, handshake);
	MHD_resume_connection(handshake->connection); /* from here on it is not ours */
}

static void expire(struct handshakes *all, int64_t now_ns)
{
	for (struct handshake *handshake = all->waiting, *next; handshake; handshake = next) {
		next = handshake->next;
		if (handshake->until_ns > now_ns)
			continue;
		epoll_ctl(all->epoll, EPOLL_CTL_DEL, handshake->fd, NULL);
		handshake->is_expired = true;
		if (!all->stopping)
			metrics_count_connection(CONNECTION_WITHOUT_HANDSHAKE);
		resume(handshake);
	}
}

static void *watcher(void *argument)
{
	struct handshakes *all = argument;
	struct epoll_event events[MAX_EVENTS];
	int64_t round_ns = 0;
	bool stopping = false;

	while (!stopping) {
		int n = epoll_wait(all->epoll, events, MAX_EVENTS, ROUND_MS);
		int64_t now_ns = clock_boot_ns();

		pthread_mutex_lock(&all->mutex);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				resume(events[i].data.ptr);
		}
		if (now_ns >= round_ns) {
			expire(all, now_ns);
			round_ns = now_ns + ROUND_MS * 1000000LL;
		}
		stopping = all->stopping;
		pthread_mutex_unlock(&all->mutex);
	}
	return NULL;
}

static int wait_for_client(struct handshake *handshake)
{
	struct handshakes *all = handshake->all;
	int r;

	/* A client that always sends one more byte in time never waits when the rounds are made. */
	if (clock_boot_ns() >= handshake->until_ns) {
		metrics_count_connection(CONNECTION_WITHOUT_HANDSHAKE);
		return -ETIMEDOUT;
	}
	pthread_mutex_lock(&all->mutex);
	r = all->stopping ? -ESHUTDOWN : watch(handshake);
	if (r == 0) {
		MHD_suspend_connection(handshake->connection);
		attach(all, handshake);
	}
	pthread_mutex_unlock(&all->mutex);
	return r;
}

/* GnuTLS reads through this, on libmicrohttpd's thread. */
static ssize_t pull(gnutls_transport_ptr_t pointer, void *data, size_t size)
{
	struct handshake *handshake = pointer;
	ssize_t length;
	int r;

	if (handshake->is_expired) {
		errno = ETIMEDOUT;
		return -1;
	}
	length = recv(handshake->fd, data, size, 0);
	if (length < 0 && errno == EAGAIN && !handshake->is_over) {
		r = wait_for_client(handshake);
		errno = r < 0 ? -r : EAGAIN;
	}
	return length;
}

/* The client's is the last message that a server reads, with TLS 1.2 and 1.3. */
static int on_finished(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
		       const gnutls_datum_t *message)
{
	struct handshake *handshake = gnutls_transport_get_ptr(session);

	(void)type;
	(void)when;
	(void)message;
	if (incoming)
		handshake->is_over = true;
	return 0;
}

struct handshake *handshake_begin(struct handshakes *all, struct MHD_Connection *connection)
{
	struct handshake *handshake = calloc(1, sizeof(*handshake));
	gnutls_session_t session =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;

	if (!handshake)
		return NULL;
	handshake->all = all;
	handshake->connection = connection;
	handshake->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	handshake->until_ns = clock_boot_ns() + all->limit_ns;
	gnutls_transport_set_ptr2(session, handshake, (gnutls_transport_ptr_t)(intptr_t)handshake->fd);
	gnutls_transport_set_pull_function(session, pull);
	gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_FINISHED, GNUTLS_HOOK_POST, on_finished);
	return handshake;
}

int handshakes_start(unsigned seconds, struct handshakes **ret_handshakes)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct handshakes *all = calloc(1, sizeof(*all));
	int r = 0;

	if (!all)
		return -ENOMEM;
	all->limit_ns = seconds * NSEC_PER_SEC;
	pthread_mutex_init(&all->mutex, NULL);
	all->epoll = epoll_create1(EPOLL_CLOEXEC);
	all->stop = eventfd(0, EFD_CLOEXEC);
	if (all->epoll < 0 || all->stop < 0 || epoll_ctl(all->epoll, EPOLL_CTL_ADD, all->stop, &event) < 0)
		r = -errno;
	if (r == 0)
		r = -pthread_create(&all->watcher, NULL, watcher, all);
	if (r < 0) {
		handshakes_free(all);
		return r;
	}
	*ret_handshakes = all;
	return 0;
}

void handshakes_stop(struct handshakes *all)
{
	pthread_mutex_lock(&all->mutex);
	all->stopping = true;
	pthread_mutex_unlock(&all->mutex);
	eventfd_write(all->stop, 1);
	pthread_join(all->watcher, NULL);
	pthread_mutex_lock(&all->mutex);
	expire(all, INT64_MAX);
	pthread_mutex_unlock(&all->mutex);
}

void handshakes_free(struct handshakes *all)
{
	if (!all)
		return;
	if (all->epoll >= 0)
		close(all->epoll);
	if (all->stop >= 0)
		close(all->stop);
	pthread_mutex_destroy(&all->mutex);
	free(all);
}
