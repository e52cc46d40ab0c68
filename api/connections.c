// SPDX-License-Identifier: BSD-2-Clause
#include "connections.h"

#include "base/clock.h"
#include "caller.h"
#include "handshake.h"
#include "metrics.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HANDSHAKE_SECONDS 10
#define PER_GATEWAY       8
#define BYTES_PER_SECOND  16384 /* slower ones are not waited for */
#define ROUND_NS          (NSEC_PER_SEC / 4)
#define BURST_SECONDS     5
#define PACES             32768 /* a power of two */

/* Whose they are: an address's, or a gateway's. Exists while there is one. */
struct account {
	struct share_key key; /* first: what the tree compares */
	unsigned connections;
};

struct client {
	struct connections *all;
	struct handshake *handshake;
	struct account *account;
	struct exchange *exchange; /* of libmicrohttpd's thread alone */
	int fd;
	atomic_int_fast64_t until_ns;
	struct client *previous, *next;
};

struct connections {
	pthread_mutex_t mutex;
	pthread_cond_t stop;
	bool stopping, has_thread;
	unsigned per_address;
	int64_t handshake_ns, request_ns;
	int64_t interval_ns; /* between the connections of an address whose burst is spent */
	/*
	 * When an address's burst is whole again, in the place that a keyed hash has chosen: nobody can
	 * choose with whom to share one.
	 */
	int64_t whole_ns[PACES];
	uint8_t pace_key[crypto_shorthash_KEYBYTES];
	void *accounts;
	struct client *clients;
	struct handshakes *handshakes;
	pthread_t thread;
};

static int compare(const void *a, const void *b)
{
	const struct share_key *left = a, *right = b;

	return left->kind != right->kind ? (int)left->kind - (int)right->kind
					 : strcmp(left->name, right->name);
}

/* From here on, all functions up to sweep() run under the mutex. */
static unsigned count_of(struct connections *all, const struct share_key *key)
{
	struct account **found = tfind(key, &all->accounts, compare);

	return found ? (*found)->connections : 0;
}

/* Without memory it is nobody's. */
static void enter(struct client *client, const struct share_key *key)
{
	struct account **found = tfind(key, &client->all->accounts, compare), *account;

	account = found ? *found : calloc(1, sizeof(*account));
	if (!account)
		return;
	account->key = *key;
	if (!found && !tsearch(account, &client->all->accounts, compare)) {
		free(account);
		return;
	}
	account->connections++;
	client->account = account;
}

static void leave(struct client *client)
{
	struct account *account = client->account;

	client->account = NULL;
	if (!account || --account->connections > 0)
		return;
	tdelete(account, &client->all->accounts, compare);
	free(account);
}

/* One more new connection of this address: from when on it may cost something. */
static int64_t pace(struct connections *all, const struct share_key *key, int64_t now_ns)
{
	union {
		uint8_t bytes[crypto_shorthash_BYTES];
		uint32_t number;
	} hash;
	int64_t *whole_ns, from_ns;

	crypto_shorthash(hash.bytes, (const uint8_t *)key->name, strlen(key->name), all->pace_key);
	whole_ns = &all->whole_ns[hash.number & (PACES - 1)];
	*whole_ns = (*whole_ns > now_ns ? *whole_ns : now_ns) + all->interval_ns;
	from_ns = *whole_ns - BURST_SECONDS * NSEC_PER_SEC;
	return from_ns > now_ns ? from_ns : now_ns;
}

static void end_overdue(struct connections *all)
{
	int64_t now_ns = clock_boot_ns();

	for (struct client *client = all->clients; client; client = client->next) {
		if (atomic_load(&client->until_ns) > now_ns)
			continue;
		/* libmicrohttpd's thread sees the end of the stream, and closes it. */
		shutdown(client->fd, SHUT_RDWR);
		atomic_store(&client->until_ns, INT64_MAX);
		metrics_count_connection(CONNECTION_TOO_SLOW);
	}
}

static void *sweep(void *argument)
{
	struct connections *all = argument;
	struct timespec next;

	pthread_mutex_lock(&all->mutex);
	while (!all->stopping) {
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_nsec += ROUND_NS;
		next.tv_sec += next.tv_nsec / NSEC_PER_SEC;
		next.tv_nsec %= NSEC_PER_SEC;
		pthread_cond_timedwait(&all->stop, &all->mutex, &next);
		end_overdue(all);
	}
	pthread_mutex_unlock(&all->mutex);
	return NULL;
}

enum MHD_Result connections_accept(void *context, const struct sockaddr *address, socklen_t size)
{
	struct connections *all = context;
	struct share_key key = {.kind = SHARE_ADDRESS};
	bool has_room;

	(void)size;
	caller_address(address, key.name);
	pthread_mutex_lock(&all->mutex);
	has_room = count_of(all, &key) < all->per_address;
	pthread_mutex_unlock(&all->mutex);
	if (!has_room)
		metrics_count_connection(CONNECTION_OF_TOO_MANY);
	return has_room ? MHD_YES : MHD_NO;
}

static struct client *begin(struct connections *all, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct share_key key = {.kind = SHARE_ADDRESS};
	struct client *client = calloc(1, sizeof(*client));
	int64_t now_ns = clock_boot_ns(), from_ns;

	if (!client)
		return NULL;
	caller_address(info ? info->client_addr : NULL, key.name);
	client->all = all;
	client->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	pthread_mutex_lock(&all->mutex);
	from_ns = pace(all, &key, now_ns);
	enter(client, &key);
	/* The handshake has a time of its own; the first request comes behind it. */
	atomic_init(&client->until_ns, from_ns + all->handshake_ns + all->request_ns);
	client->next = all->clients;
	if (client->next)
		client->next->previous = client;
	all->clients = client;
	pthread_mutex_unlock(&all->mutex);
	client->handshake = handshake_begin(all->handshakes, connection, from_ns);
	if (from_ns > now_ns)
		metrics_count_delayed();
	return client;
}

/* Before its socket is closed: whatever has the mutex and finds it in the list has the right descriptor. */
static void end(struct client *client)
{
	struct connections *all = client->all;

	pthread_mutex_lock(&all->mutex);
	leave(client);
	*(client->previous ? &client->previous->next : &all->clients) = client->next;
	if (client->next)
		client->next->previous = client->previous;
	pthread_mutex_unlock(&all->mutex);
	handshake_end(client->handshake);
	free(client);
}

void connections_notify(void *context, struct MHD_Connection *connection, void **socket_context,
			enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		*socket_context = begin(context, connection);
	else if (*socket_context)
		end(*socket_context);
}

static struct client *client_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

void connection_set_exchange(struct MHD_Connection *connection, struct exchange *exchange)
{
	struct client *client = client_of(connection);

	if (client)
		client->exchange = exchange;
}

struct exchange *connection_exchange(struct MHD_Connection *connection)
{
	struct client *client = client_of(connection);

	return client ? client->exchange : NULL;
}

static int64_t time_for(size_t bytes)
{
	return (int64_t)(bytes / BYTES_PER_SECOND) * NSEC_PER_SEC;
}

void connection_expect(struct MHD_Connection *connection, size_t bytes)
{
	struct client *client = client_of(connection);

	if (client)
		atomic_store(&client->until_ns, clock_boot_ns() + client->all->request_ns + time_for(bytes));
}

void connection_extend(struct MHD_Connection *connection, size_t bytes)
{
	struct client *client = client_of(connection);

	if (client)
		atomic_fetch_add(&client->until_ns, (int64_t)bytes * NSEC_PER_SEC / BYTES_PER_SECOND);
}

void connection_hold(struct MHD_Connection *connection)
{
	struct client *client = client_of(connection);

	if (client)
		atomic_store(&client->until_ns, INT64_MAX);
}

void connection_of_gateway(struct MHD_Connection *connection, const char *gateway)
{
	struct client *client = client_of(connection);
	struct share_key key = {.kind = SHARE_GATEWAY};

	if (!client)
		return;
	snprintf(key.name, sizeof(key.name), "%s", gateway);
	pthread_mutex_lock(&client->all->mutex);
	if ((!client->account || compare(&client->account->key, &key) != 0) &&
	    count_of(client->all, &key) < PER_GATEWAY) {
		leave(client);
		enter(client, &key);
	}
	pthread_mutex_unlock(&client->all->mutex);
}

int connections_start(unsigned per_address, unsigned per_second, unsigned request_seconds,
		      struct connections **ret_connections)
{
	struct connections *all = calloc(1, sizeof(*all));
	unsigned handshake_seconds =
		request_seconds < HANDSHAKE_SECONDS ? request_seconds : HANDSHAKE_SECONDS;
	pthread_condattr_t monotonic;
	int r;

	if (!all)
		return -ENOMEM;
	all->per_address = per_address;
	all->interval_ns = NSEC_PER_SEC / per_second;
	randombytes_buf(all->pace_key, sizeof(all->pace_key));
	all->handshake_ns = handshake_seconds * NSEC_PER_SEC;
	all->request_ns = request_seconds * NSEC_PER_SEC;
	pthread_mutex_init(&all->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&all->stop, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r = handshakes_start(handshake_seconds, &all->handshakes);
	if (r == 0)
		r = -pthread_create(&all->thread, NULL, sweep, all);
	all->has_thread = r == 0;
	if (r < 0) {
		connections_stop(all);
		connections_free(all);
		return r;
	}
	*ret_connections = all;
	return 0;
}

void connections_stop(struct connections *all)
{
	pthread_mutex_lock(&all->mutex);
	all->stopping = true;
	pthread_cond_broadcast(&all->stop);
	pthread_mutex_unlock(&all->mutex);
	if (all->has_thread)
		pthread_join(all->thread, NULL);
	if (all->handshakes)
		handshakes_stop(all->handshakes);
}

void connections_free(struct connections *all)
{
	if (!all)
		return;
	handshakes_free(all->handshakes);
	pthread_cond_destroy(&all->stop);
	pthread_mutex_destroy(&all->mutex);
	free(all);
}
