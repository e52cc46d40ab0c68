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
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUND_MS   100
#define MAX_EVENTS 64
/* Of libmicrohttpd's two threads for an address that is listened on, one is always free of them. */
#define MAX_AT_WORK 1

TAILQ_HEAD(list, handshake);

/*
 * A connection's, for as long as it lives. It belongs to libmicrohttpd's thread, except while it is in a
 * list: whoever takes it off the list resumes it.
 */
struct handshake {
	struct handshakes *all;
	struct MHD_Connection *connection;
	int fd;
	bool has_turn; /* is one of those at work */
	bool is_over, is_watched, is_expired;
	int64_t from_ns, until_ns;
	struct list *list; /* NULL: it is libmicrohttpd's */
	TAILQ_ENTRY(handshake) place;
};

struct handshakes {
	pthread_mutex_t mutex;
	struct list early;  /* it is not time for them */
	struct list queue;  /* for a turn at work, in the order in which they came */
	struct list silent; /* their clients are to send something */
	unsigned n_at_work;
	int64_t limit_ns;
	bool stopping;
	int epoll, stop; /* `stop` is readable when it is time to end */
	pthread_t watcher;
};

/* From here on, all functions up to the watcher run under the mutex. */
static void attach(struct handshake *handshake, struct list *list)
{
	handshake->list = list;
	TAILQ_INSERT_TAIL(list, handshake, place);
}

static void detach(struct handshake *handshake)
{
	TAILQ_REMOVE(handshake->list, handshake, place);
	handshake->list = NULL;
}

static void suspend(struct handshake *handshake, struct list *list)
{
	MHD_suspend_connection(handshake->connection);
	attach(handshake, list);
}

static void resume(struct handshake *handshake)
{
	detach(handshake);
	MHD_resume_connection(handshake->connection); /* from here on it is not ours */
}

static void take_turn(struct handshake *handshake)
{
	handshake->has_turn = true;
	handshake->all->n_at_work++;
}

static void give_turns(struct handshakes *all)
{
	struct handshake *next;

	while (all->n_at_work < MAX_AT_WORK && (next = TAILQ_FIRST(&all->queue))) {
		take_turn(next);
		resume(next);
	}
}

static void end_turn(struct handshake *handshake)
{
	if (!handshake->has_turn)
		return;
	handshake->has_turn = false;
	handshake->all->n_at_work--;
	give_turns(handshake->all);
}

static void enqueue(struct handshake *handshake)
{
	detach(handshake);
	attach(handshake, &handshake->all->queue);
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

static void expire(struct handshake *handshake)
{
	if (handshake->is_watched)
		epoll_ctl(handshake->all->epoll, EPOLL_CTL_DEL, handshake->fd, NULL);
	handshake->is_expired = true;
	resume(handshake);
}

static void make_round(struct handshakes *all, int64_t now_ns)
{
	struct handshake *handshake, *next;

	for (handshake = TAILQ_FIRST(&all->early); handshake; handshake = next) {
		next = TAILQ_NEXT(handshake, place);
		if (handshake->from_ns <= now_ns)
			enqueue(handshake);
	}
	for (handshake = TAILQ_FIRST(&all->silent); handshake; handshake = next) {
		next = TAILQ_NEXT(handshake, place);
		if (handshake->until_ns > now_ns)
			continue;
		metrics_count_connection(CONNECTION_WITHOUT_HANDSHAKE);
		expire(handshake);
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
				enqueue(events[i].data.ptr);
		}
		if (now_ns >= round_ns) {
			make_round(all, now_ns);
			round_ns = now_ns + ROUND_MS * 1000000LL;
		}
		give_turns(all);
		stopping = all->stopping;
		pthread_mutex_unlock(&all->mutex);
	}
	return NULL;
}

/* 0: it is its turn. -EAGAIN: it is suspended until then. */
static int wait_for_turn(struct handshake *handshake)
{
	struct handshakes *all = handshake->all;
	int r = -EAGAIN;

	pthread_mutex_lock(&all->mutex);
	if (all->stopping) {
		r = -ESHUTDOWN;
	} else if (clock_boot_ns() < handshake->from_ns) {
		suspend(handshake, &all->early);
	} else if (all->n_at_work >= MAX_AT_WORK) {
		suspend(handshake, &all->queue);
	} else {
		take_turn(handshake);
		r = 0;
	}
	pthread_mutex_unlock(&all->mutex);
	return r;
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
		suspend(handshake, &all->silent);
		end_turn(handshake);
	}
	pthread_mutex_unlock(&all->mutex);
	return r < 0 ? r : -EAGAIN;
}

/* GnuTLS reads through this, on libmicrohttpd's thread. */
static ssize_t pull(gnutls_transport_ptr_t pointer, void *data, size_t size)
{
	struct handshake *handshake = pointer;
	ssize_t length;
	int r = 0;

	if (handshake->is_over)
		return recv(handshake->fd, data, size, 0);
	if (handshake->is_expired)
		r = -ETIMEDOUT;
	else if (!handshake->has_turn)
		r = wait_for_turn(handshake);
	if (r < 0) {
		errno = -r;
		return -1;
	}
	length = recv(handshake->fd, data, size, 0);
	if (length < 0 && errno == EAGAIN)
		errno = -wait_for_client(handshake);
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
	if (!incoming)
		return 0;
	handshake->is_over = true;
	pthread_mutex_lock(&handshake->all->mutex);
	end_turn(handshake);
	pthread_mutex_unlock(&handshake->all->mutex);
	return 0;
}

struct handshake *handshake_begin(struct handshakes *all, struct MHD_Connection *connection, int64_t from_ns)
{
	struct handshake *handshake = calloc(1, sizeof(*handshake));
	gnutls_session_t session =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;

	if (!handshake)
		return NULL;
	handshake->all = all;
	handshake->connection = connection;
	handshake->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	handshake->from_ns = from_ns;
	handshake->until_ns = from_ns + all->limit_ns;
	gnutls_transport_set_ptr2(session, handshake, (gnutls_transport_ptr_t)(intptr_t)handshake->fd);
	gnutls_transport_set_pull_function(session, pull);
	gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_FINISHED, GNUTLS_HOOK_POST, on_finished);
	return handshake;
}

void handshake_end(struct handshake *handshake)
{
	if (!handshake)
		return;
	pthread_mutex_lock(&handshake->all->mutex);
	end_turn(handshake); /* one that has failed */
	pthread_mutex_unlock(&handshake->all->mutex);
	free(handshake);
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
	TAILQ_INIT(&all->early);
	TAILQ_INIT(&all->queue);
	TAILQ_INIT(&all->silent);
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
	struct list *lists[] = {&all->early, &all->queue, &all->silent};

	pthread_mutex_lock(&all->mutex);
	all->stopping = true;
	pthread_mutex_unlock(&all->mutex);
	eventfd_write(all->stop, 1);
	pthread_join(all->watcher, NULL);
	pthread_mutex_lock(&all->mutex);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		while (!TAILQ_EMPTY(lists[i]))
			expire(TAILQ_FIRST(lists[i]));
	}
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
