// SPDX-License-Identifier: BSD-2-Clause
#include "work.h"

#include "base/clock.h"
#include "billing/intake.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARK_BUCKETS 1024  /* a power of two */
#define COLLECTORS   2     /* one waits for the disk while the other works */
#define MAX_WEIGHT   20000 /* rows in one transaction, unless one request alone has more */

/*
 * A transaction costs several times what one small report in it does, so a report waits a moment for others.
 * Not when these would make no difference, and not that of a gateway that was answered just now: it has more
 * to tell.
 */
#define GATHER_NS     (NSEC_PER_SEC / 50)
#define ENOUGH        16  /* requests */
#define ENOUGH_WEIGHT 400 /* rows */
#define JUST_NOW_NS   (NSEC_PER_SEC / 5)

struct list {
	struct exchange *head, *tail;
};

struct work {
	pthread_mutex_t mutex;
	pthread_cond_t ready;    /* something is queued, or stopping */
	pthread_cond_t deadline; /* for the timer: stopping */
	pthread_cond_t gathered; /* for the collectors: something is collected, or the workers have ended */
	const char *database_file;
	struct list queue;
	unsigned queued_new, queue_limit;
	struct list parked[PARK_BUCKETS];
	/*
	 * A wake-up that comes between a handler's look at the database and its parking would be lost. So
	 * wake-ups are numbered, each bucket knows its last, and a handler that began before it runs again at
	 * once.
	 */
	uint64_t wakes, last_wake[PARK_BUCKETS];
	struct list collected;
	int64_t answered_ns[PARK_BUCKETS]; /* the last report of a bucket's gateways */
	bool stopping, workers_ended;
	unsigned n_threads, n_collectors;
	bool has_timer;
	pthread_t timer, collectors[COLLECTORS], threads[];
};

static void append(struct list *list, struct exchange *exchange)
{
	exchange->previous = list->tail;
	exchange->next = NULL;
	*(list->tail ? &list->tail->next : &list->head) = exchange;
	list->tail = exchange;
}

static void detach(struct list *list, struct exchange *exchange)
{
	*(exchange->previous ? &exchange->previous->next : &list->head) = exchange->next;
	*(exchange->next ? &exchange->next->previous : &list->tail) = exchange->previous;
	exchange->previous = exchange->next = NULL;
}

static unsigned bucket_of(const char *key)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *key; key++)
		hash = (hash ^ (uint8_t)*key) * 16777619u;
	return hash & (PARK_BUCKETS - 1);
}

/* Under the mutex. Requests that were admitted once are never refused for a full queue. */
static void enqueue_again(struct work *work, struct exchange *exchange)
{
	append(&work->queue, exchange);
	pthread_cond_signal(&work->ready);
}

/* Under the mutex: back into the queue go those of the bucket that match the key, or are overdue. */
static void unpark(struct work *work, struct list *bucket, const char *key, int64_t now_ns)
{
	for (struct exchange *exchange = bucket->head, *next; exchange; exchange = next) {
		bool overdue = work->stopping || exchange->park_until_ns <= now_ns;

		next = exchange->next;
		if (!overdue && !(key && strcmp(exchange->park_key, key) == 0))
			continue;
		exchange->request.expired = overdue;
		detach(bucket, exchange);
		enqueue_again(work, exchange);
	}
}

/* Under the mutex. */
static void park(struct work *work, struct exchange *exchange)
{
	unsigned bucket = bucket_of(exchange->park_key);

	if (work->stopping) {
		exchange->request.expired = true;
		enqueue_again(work, exchange);
	} else if (work->last_wake[bucket] > exchange->wakes_seen) {
		enqueue_again(work, exchange);
	} else {
		append(&work->parked[bucket], exchange);
	}
}

int request_park(struct request *request, const char *key, unsigned seconds)
{
	struct exchange *exchange = request->transport;

	/* Woken for nothing, it keeps its first deadline. */
	if (exchange->park_until_ns == 0)
		exchange->park_until_ns = clock_boot_ns() + seconds * NSEC_PER_SEC;
	snprintf(exchange->park_key, sizeof(exchange->park_key), "%s", key);
	return HANDLER_PARK;
}

void work_wake(struct work *work, const char *key)
{
	pthread_mutex_lock(&work->mutex);
	work->wakes++;
	if (key) {
		unsigned bucket = bucket_of(key);

		work->last_wake[bucket] = work->wakes;
		unpark(work, &work->parked[bucket], key, INT64_MIN);
	}
	for (unsigned i = 0; !key && i < PARK_BUCKETS; i++) {
		work->last_wake[i] = work->wakes;
		for (struct exchange *exchange = work->parked[i].head, *next; exchange; exchange = next) {
			next = exchange->next;
			detach(&work->parked[i], exchange);
			enqueue_again(work, exchange);
		}
	}
	pthread_mutex_unlock(&work->mutex);
}

/* The next exchange; NULL when the pool stops and the queue is empty. */
static struct exchange *take(struct work *work)
{
	struct exchange *exchange;

	pthread_mutex_lock(&work->mutex);
	while (!work->queue.head && !work->stopping)
		pthread_cond_wait(&work->ready, &work->mutex);
	exchange = work->queue.head;
	if (exchange) {
		detach(&work->queue, exchange);
		if (exchange->wakes_seen == 0 && work->queued_new > 0)
			work->queued_new--;
		exchange->wakes_seen = work->wakes;
	}
	pthread_mutex_unlock(&work->mutex);
	return exchange;
}

/* The worker's connection, made or mended when needed; NULL when the database is away. */
static struct db *connection_of(struct db **db, const char *file)
{
	int r = *db ? db_ensure(*db) : db_open(file, db);

	return r < 0 ? NULL : *db;
}

int request_collect(struct request *request, void *prepared, void (*free_prepared)(void *prepared))
{
	if (request->prepared) /* of a try before */
		request->free_prepared(request->prepared);
	request->prepared = prepared;
	request->free_prepared = free_prepared;
	return HANDLER_COLLECT;
}

static int64_t *last_answer(struct work *work, const struct exchange *exchange)
{
	return &work->answered_ns[bucket_of(exchange->request.principal.gateway)];
}

static void collect(struct work *work, struct exchange *exchange)
{
	int64_t now_ns = clock_boot_ns();

	pthread_mutex_lock(&work->mutex);
	exchange->due_ns = now_ns - *last_answer(work, exchange) < JUST_NOW_NS ? now_ns : now_ns + GATHER_NS;
	append(&work->collected, exchange);
	pthread_cond_signal(&work->gathered);
	pthread_mutex_unlock(&work->mutex);
}

static void answered(struct exchange *exchange)
{
	exchange->state = EXCHANGE_DONE;
	MHD_resume_connection(exchange->connection); /* from here on it is not ours */
}

static void *worker(void *argument)
{
	struct work *work = argument;
	struct exchange *exchange;
	struct db *db = NULL;

	while ((exchange = take(work))) {
		switch (dispatch(exchange, connection_of(&db, work->database_file))) {
		case HANDLER_PARK:
			pthread_mutex_lock(&work->mutex);
			park(work, exchange);
			pthread_mutex_unlock(&work->mutex);
			break;
		case HANDLER_COLLECT:
			collect(work, exchange);
			break;
		default:
			answered(exchange);
		}
	}
	db_close(db);
	return NULL;
}

static bool is_among(struct exchange *const *group, size_t n, const char *gateway)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(group[i]->request.principal.gateway, gateway) == 0)
			return true;
	}
	return false;
}

/* Under the mutex: when a transaction is to begin with what is collected. */
static int64_t due_at(const struct work *work)
{
	size_t n = 0, weight = 0;
	int64_t due_ns = INT64_MAX;

	for (const struct exchange *exchange = work->collected.head; exchange; exchange = exchange->next) {
		weight += intake_weight(&exchange->request);
		if (++n == ENOUGH || weight >= ENOUGH_WEIGHT)
			return 0;
		if (exchange->due_ns < due_ns)
			due_ns = exchange->due_ns;
	}
	return due_ns;
}

/* Under the mutex. */
static void wait_for_collected(struct work *work)
{
	int64_t left_ns;

	while (!work->workers_ended && (left_ns = due_at(work) - clock_boot_ns()) > 0) {
		struct timespec until;

		if (!work->collected.head) {
			pthread_cond_wait(&work->gathered, &work->mutex);
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += left_ns;
		until.tv_sec += until.tv_nsec / NSEC_PER_SEC;
		until.tv_nsec %= NSEC_PER_SEC;
		pthread_cond_timedwait(&work->gathered, &work->mutex, &until);
	}
}

/* The next requests to commit together, of a gateway one at most; 0 when the workers have ended and nothing
 * is left. */
static size_t gather(struct work *work, struct exchange *group[static MAX_COLLECTED])
{
	size_t n = 0, weight = 0;

	pthread_mutex_lock(&work->mutex);
	wait_for_collected(work);
	for (struct exchange *exchange = work->collected.head, *next; exchange && n < MAX_COLLECTED;
	     exchange = next) {
		next = exchange->next;
		if (n > 0 && weight + intake_weight(&exchange->request) > MAX_WEIGHT)
			break;
		if (is_among(group, n, exchange->request.principal.gateway))
			continue;
		weight += intake_weight(&exchange->request);
		detach(&work->collected, exchange);
		group[n++] = exchange;
	}
	pthread_mutex_unlock(&work->mutex);
	return n;
}

/* Before they are answered: their agents may be back at once. */
static void note_answers(struct work *work, struct exchange *const *group, size_t n)
{
	int64_t now_ns = clock_boot_ns();

	pthread_mutex_lock(&work->mutex);
	for (size_t i = 0; i < n; i++)
		*last_answer(work, group[i]) = now_ns;
	pthread_mutex_unlock(&work->mutex);
}

static void *collector(void *argument)
{
	struct exchange *group[MAX_COLLECTED];
	struct work *work = argument;
	struct db *db = NULL;
	size_t n;

	while ((n = gather(work, group)) > 0) {
		dispatch_collected(group, n, connection_of(&db, work->database_file));
		note_answers(work, group, n);
		for (size_t i = 0; i < n; i++)
			answered(group[i]);
	}
	db_close(db);
	return NULL;
}

/* Ends the polls whose time is over. */
static void *timer(void *argument)
{
	struct work *work = argument;
	struct timespec next;

	pthread_mutex_lock(&work->mutex);
	while (!work->stopping) {
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_sec++;
		pthread_cond_timedwait(&work->deadline, &work->mutex, &next);
		for (unsigned i = 0; i < PARK_BUCKETS; i++)
			unpark(work, &work->parked[i], NULL, clock_boot_ns());
	}
	pthread_mutex_unlock(&work->mutex);
	return NULL;
}

bool work_offer(struct work *work, struct exchange *exchange)
{
	bool taken;

	pthread_mutex_lock(&work->mutex);
	taken = !work->stopping && work->queued_new < work->queue_limit;
	if (taken) {
		/* Suspended before a worker can see it: a resume must never come first. */
		exchange->state = EXCHANGE_WORKING;
		MHD_suspend_connection(exchange->connection);
		work->queued_new++;
		append(&work->queue, exchange);
		pthread_cond_signal(&work->ready);
	}
	pthread_mutex_unlock(&work->mutex);
	return taken;
}

int work_start(unsigned workers, unsigned queue, const char *database_file, struct work **ret_work)
{
	struct work *work = calloc(1, sizeof(*work) + workers * sizeof(work->threads[0]));
	pthread_condattr_t monotonic;
	int r;

	if (!work)
		return -ENOMEM;
	work->database_file = database_file;
	work->queue_limit = queue;
	work->wakes = 1; /* 0 marks an exchange that no worker has seen */
	pthread_mutex_init(&work->mutex, NULL);
	pthread_cond_init(&work->ready, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&work->deadline, &monotonic);
	pthread_cond_init(&work->gathered, &monotonic);
	pthread_condattr_destroy(&monotonic);
	for (r = 0; work->n_threads < workers && r == 0;) {
		r = -pthread_create(&work->threads[work->n_threads], NULL, worker, work);
		work->n_threads += r == 0;
	}
	while (work->n_collectors < COLLECTORS && r == 0) {
		r = -pthread_create(&work->collectors[work->n_collectors], NULL, collector, work);
		work->n_collectors += r == 0;
	}
	if (r == 0)
		r = -pthread_create(&work->timer, NULL, timer, work);
	work->has_timer = r == 0;
	if (r < 0) {
		work_stop(work);
		work_free(work);
		return r;
	}
	*ret_work = work;
	return 0;
}

void work_stop(struct work *work)
{
	if (!work)
		return;
	pthread_mutex_lock(&work->mutex);
	work->stopping = true;
	for (unsigned i = 0; i < PARK_BUCKETS; i++)
		unpark(work, &work->parked[i], NULL, 0);
	pthread_cond_broadcast(&work->ready);
	pthread_cond_broadcast(&work->deadline);
	pthread_mutex_unlock(&work->mutex);
	for (unsigned i = 0; i < work->n_threads; i++)
		pthread_join(work->threads[i], NULL);
	pthread_mutex_lock(&work->mutex);
	work->workers_ended = true;
	pthread_cond_broadcast(&work->gathered);
	pthread_mutex_unlock(&work->mutex);
	for (unsigned i = 0; i < work->n_collectors; i++)
		pthread_join(work->collectors[i], NULL);
	if (work->has_timer)
		pthread_join(work->timer, NULL);
}

void work_free(struct work *work)
{
	if (!work)
		return;
	pthread_cond_destroy(&work->deadline);
	pthread_cond_destroy(&work->gathered);
	pthread_cond_destroy(&work->ready);
	pthread_mutex_destroy(&work->mutex);
	free(work);
}
