// SPDX-License-Identifier: BSD-2-Clause
#include "work.h"

#include "base/clock.h"
#include "caller.h"
#include "metrics.h"
#include "share.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PARK_BUCKETS 1024 /* a power of two */
#define COMMITTERS                                                                                           \
	3 /* one for small reports only; of the others one waits for the disk while the other works */
#define MAX_WEIGHT 20000 /* rows in one transaction, unless one request alone has more */

/* How long a statement waits for a row that another change has locked: a worker's; a committer's, which tries
 * again. */
#define SESSION(name, lock_timeout)                                                                          \
	"SELECT pg_catalog.set_config('application_name', '" name "', false), "                              \
	"pg_catalog.set_config('lock_timeout', '" lock_timeout "', false)"
#define WORKER_SESSION     SESSION("wiretoll", "10s")
#define COMMITTER_SESSION  SESSION("wiretoll-reports", "100ms")
#define LOCKED_AGAIN_NS    (NSEC_PER_SEC / 10)
#define LOCKED_PATIENCE_NS (10 * NSEC_PER_SEC)

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

struct crew {
	struct work *work;
	struct shares *shares;
	pthread_cond_t ready; /* something may be worked on, or stopping */
	unsigned n_threads;
	pthread_t threads[MAX_WORKERS];
};

/* What shares a transaction, and in which order committers are spared: one may be kept waiting by the last.
 */
enum lane { LIGHT, HEAVY, LOCKED };

struct committer {
	struct work *work;
	enum lane last_lane;
	pthread_t thread;
};

struct work {
	pthread_mutex_t mutex;
	pthread_cond_t deadline; /* for the timer: stopping */
	pthread_cond_t gathered; /* for the committers: something is collected, or the workers have ended */
	const char *database_file;
	struct callers *callers;
	struct crew crews[N_CREWS];
	struct list parked[PARK_BUCKETS];
	/*
	 * A wake-up that comes between a handler's look at the database and its parking would be lost. So
	 * wake-ups are numbered, each bucket knows its last, and a handler that began before it runs again at
	 * once.
	 */
	uint64_t wakes, last_wake[PARK_BUCKETS];
	struct list collected;
	/*
	 * Who has the reports of an owner in a transaction, light or heavy ones: no second one does, so that
	 * the others have time for other owners'. Owners that share a bucket wait for each other.
	 */
	const struct committer *has_fleet[LOCKED][PARK_BUCKETS];
	int64_t answered_ns[PARK_BUCKETS]; /* the last report of a bucket's gateways */
	bool stopping, workers_ended;
	unsigned n_committers;
	bool has_timer;
	pthread_t timer;
	struct committer committers[COMMITTERS];
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
	struct crew *crew = &work->crews[exchange->crew];

	shares_return(crew->shares, exchange);
	pthread_cond_signal(&crew->ready);
}

/* Under the mutex: what it has in work no more may be what others of its share wait for. */
static void done(struct work *work, struct exchange *exchange)
{
	struct crew *crew = &work->crews[exchange->crew];

	shares_done(crew->shares, exchange);
	pthread_cond_signal(&crew->ready);
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

/* The next exchange; NULL when the pool stops and nothing waits. */
static struct exchange *take(struct crew *crew)
{
	struct work *work = crew->work;
	struct exchange *exchange;

	pthread_mutex_lock(&work->mutex);
	while (!(exchange = shares_take(crew->shares)) && !work->stopping)
		pthread_cond_wait(&crew->ready, &work->mutex);
	if (exchange)
		exchange->wakes_seen = work->wakes;
	pthread_mutex_unlock(&work->mutex);
	return exchange;
}

/* The thread's connection, made or mended when needed; NULL when the database is away. */
static struct db *connection_of(struct db **db, const char *file, const char *session)
{
	int r = *db ? db_ensure(*db) : db_open(file, db);

	if (r == 0 && db_is_new(*db))
		r = DB_EXECUTE(*db, session);
	return r < 0 ? NULL : *db;
}

static bool admits(struct exchange *exchange)
{
	struct work *work = exchange->work;
	struct share_key key;
	bool admitted;

	caller_learn(work->callers, exchange, &key);
	pthread_mutex_lock(&work->mutex);
	admitted = shares_move(work->crews[exchange->crew].shares, exchange, &key);
	/* Of whom it was thought to be, another may be worked on now. */
	pthread_cond_signal(&work->crews[exchange->crew].ready);
	pthread_mutex_unlock(&work->mutex);
	return admitted;
}

static int64_t *last_answer(struct work *work, const struct exchange *exchange)
{
	return &work->answered_ns[bucket_of(exchange->request.principal.gateway)];
}

static void collect_at(struct work *work, struct exchange *exchange, int64_t due_ns)
{
	pthread_mutex_lock(&work->mutex);
	exchange->due_ns = due_ns;
	append(&work->collected, exchange);
	pthread_cond_broadcast(&work->gathered);
	pthread_mutex_unlock(&work->mutex);
}

/* It is its gateway's alone from now on, and no more its owner's. False: that one has another in work. */
static bool collect(struct work *work, struct exchange *exchange)
{
	int64_t now_ns = clock_boot_ns();
	struct share_key key;
	bool just_now, has_room;

	exchange->is_read = true;
	caller_learn(work->callers, exchange, &key);
	pthread_mutex_lock(&work->mutex);
	has_room = shares_move(work->crews[exchange->crew].shares, exchange, &key);
	pthread_cond_signal(&work->crews[exchange->crew].ready);
	just_now = now_ns - *last_answer(work, exchange) < JUST_NOW_NS;
	pthread_mutex_unlock(&work->mutex);
	if (!has_room) /* behind its gateway's report before */
		return false;
	exchange->give_up_ns = now_ns + LOCKED_PATIENCE_NS;
	collect_at(work, exchange, just_now ? now_ns : now_ns + GATHER_NS);
	return true;
}

static void answered(struct work *work, struct exchange *exchange)
{
	pthread_mutex_lock(&work->mutex);
	done(work, exchange);
	pthread_mutex_unlock(&work->mutex);
	exchange->state = EXCHANGE_DONE;
	MHD_resume_connection(exchange->connection); /* from here on it is not ours */
}

static const char *busy_text(const struct exchange *exchange, enum share_result result)
{
	static const char *const texts[N_SHARE_KINDS] = {
		[SHARE_OWNER] = "too many requests of this owner wait already",
		[SHARE_GATEWAY] = "too many requests of this gateway wait already",
		[SHARE_REPORTS] = "too many reports of this gateway wait already",
		[SHARE_FLEET] = "too many reports of this owner's gateways wait already",
		[SHARE_ADDRESS] = "too many requests from this address wait already",
	};
	enum share_kind kind = result == SHARES_FULL  ? N_SHARE_KINDS
			       : result == FLEET_FULL ? SHARE_FLEET
						      : exchange->share_key.kind;

	metrics_count_refused(kind);
	return kind == N_SHARE_KINDS ? "the server is busy" : texts[kind];
}

/* It is in no queue any more. */
static void turn_away(struct exchange *exchange, enum share_result result)
{
	dispatch_busy(exchange, busy_text(exchange, result));
	exchange->state = EXCHANGE_DONE;
	MHD_resume_connection(exchange->connection);
}

/* Until those of the same share that are in work make room. */
static void let_wait(struct work *work, struct exchange *exchange)
{
	struct exchange *refused;
	enum share_result result;

	pthread_mutex_lock(&work->mutex);
	done(work, exchange);
	result = shares_offer(work->crews[exchange->crew].shares, exchange, &refused);
	pthread_mutex_unlock(&work->mutex);
	if (refused)
		turn_away(refused, SHARE_FULL);
	if (result != SHARE_TAKEN)
		turn_away(exchange, result);
}

static void *worker(void *argument)
{
	struct crew *crew = argument;
	struct work *work = crew->work;
	struct exchange *exchange;
	struct db *db = NULL, *connected;

	while ((exchange = take(crew))) {
		connected = connection_of(&db, work->database_file, WORKER_SESSION);
		if (connected)
			db_made_ready(connected);
		switch (dispatch(exchange, connected, admits)) {
		case HANDLER_PARK:
			pthread_mutex_lock(&work->mutex);
			done(work, exchange);
			park(work, exchange);
			pthread_mutex_unlock(&work->mutex);
			break;
		case HANDLER_COLLECT:
			if (!collect(work, exchange))
				let_wait(work, exchange);
			break;
		case HANDLER_WAIT:
			let_wait(work, exchange);
			break;
		default:
			answered(work, exchange);
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

static enum lane lane_of(const struct exchange *exchange)
{
	return exchange->is_locked                                ? LOCKED
	       : exchange->request.raw_body_length >= HEAVY_BYTES ? HEAVY
								  : LIGHT;
}

static size_t weight_of(const struct exchange *exchange)
{
	return exchange->request.collector->weight(&exchange->request);
}

/* Under the mutex. What is locked is tried by itself and in short: it keeps nobody. */
static const struct committer **holder_of(struct work *work, const struct exchange *exchange)
{
	enum lane lane = lane_of(exchange);

	return lane == LOCKED ? NULL : &work->has_fleet[lane][bucket_of(exchange->request.principal.owner)];
}

static bool is_elsewhere(const struct committer *committer, const struct exchange *exchange)
{
	const struct committer **holder = holder_of(committer->work, exchange);

	return holder && *holder && *holder != committer;
}

/* Under the mutex: when a transaction is to begin with what is collected; INT64_MAX: not before more is. */
static int64_t due_at(const struct committer *committer)
{
	size_t n = 0, weight = 0;
	int64_t due_ns = INT64_MAX;

	for (const struct exchange *exchange = committer->work->collected.head; exchange;
	     exchange = exchange->next) {
		if (lane_of(exchange) > committer->last_lane || is_elsewhere(committer, exchange))
			continue;
		if (exchange->due_ns < due_ns)
			due_ns = exchange->due_ns;
		if (lane_of(exchange) == LOCKED)
			continue;
		weight += weight_of(exchange);
		if (++n == ENOUGH || weight >= ENOUGH_WEIGHT)
			return 0;
	}
	return due_ns;
}

/* Under the mutex. */
static void wait_for_collected(const struct committer *committer)
{
	struct work *work = committer->work;
	int64_t due_ns, left_ns;

	while (!work->workers_ended && (due_ns = due_at(committer), left_ns = due_ns - clock_boot_ns()) > 0) {
		struct timespec until;

		if (due_ns == INT64_MAX) {
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

/* Under the mutex. */
static bool joins(const struct committer *committer, struct exchange *const *group, size_t n,
		  const struct exchange *exchange)
{
	enum lane lane = lane_of(exchange);

	if (is_elsewhere(committer, exchange) && !committer->work->workers_ended)
		return false;
	if (n > 0)
		return lane == lane_of(group[0]) && lane != LOCKED &&
		       exchange->request.collector == group[0]->request.collector &&
		       !is_among(group, n, exchange->request.principal.gateway);
	/* At the end those that are spared may have gone already, and nothing is to be left. */
	if (committer->work->workers_ended)
		return true;
	return lane <= committer->last_lane && (lane != LOCKED || exchange->due_ns <= clock_boot_ns());
}

/* The next requests to commit together, of a gateway one at most; 0 when the workers have ended and nothing
 * is left. */
static size_t gather(const struct committer *committer, struct exchange *group[static MAX_COLLECTED])
{
	struct work *work = committer->work;
	const struct committer **holder;
	size_t n = 0, weight = 0;

	pthread_mutex_lock(&work->mutex);
	while (n == 0) {
		wait_for_collected(committer);
		for (struct exchange *exchange = work->collected.head, *next; exchange && n < MAX_COLLECTED;
		     exchange = next) {
			next = exchange->next;
			if (!joins(committer, group, n, exchange))
				continue;
			if (n > 0 && weight + weight_of(exchange) > MAX_WEIGHT)
				break;
			weight += weight_of(exchange);
			detach(&work->collected, exchange);
			group[n++] = exchange;
			holder = holder_of(work, exchange);
			if (holder)
				*holder = committer;
		}
		if (work->workers_ended)
			break;
	}
	pthread_mutex_unlock(&work->mutex);
	return n;
}

/* Under the mutex, after the transaction: the next report of these owners may be anybody's. */
static void let_go(const struct committer *committer)
{
	for (size_t lane = 0; lane < LOCKED; lane++) {
		for (size_t i = 0; i < PARK_BUCKETS; i++) {
			if (committer->work->has_fleet[lane][i] == committer)
				committer->work->has_fleet[lane][i] = NULL;
		}
	}
	pthread_cond_broadcast(&committer->work->gathered);
}

/* Before they are answered: their agents may be back at once. */
static void note_answers(const struct committer *committer, struct exchange *const *group, size_t n)
{
	struct work *work = committer->work;
	int64_t now_ns = clock_boot_ns();

	pthread_mutex_lock(&work->mutex);
	for (size_t i = 0; i < n; i++)
		*last_answer(work, group[i]) = now_ns;
	let_go(committer);
	pthread_mutex_unlock(&work->mutex);
}

static void *collect_and_commit(void *argument)
{
	struct committer *committer = argument;
	struct exchange *group[MAX_COLLECTED];
	struct work *work = committer->work;
	struct db *db = NULL;
	size_t n;

	/* All of them at once, that the first reports find them ready; without a database it is tried again
	 * then. */
	connection_of(&db, work->database_file, COMMITTER_SESSION);
	while ((n = gather(committer, group)) > 0) {
		dispatch_collected(group, n, connection_of(&db, work->database_file, COMMITTER_SESSION));
		note_answers(committer, group, n);
		for (size_t i = 0; i < n; i++) {
			if (group[i]->is_locked)
				collect_at(work, group[i], clock_boot_ns() + LOCKED_AGAIN_NS);
			else
				answered(work, group[i]);
		}
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

bool work_offer(struct work *work, struct exchange *exchange, const char **ret_why)
{
	enum share_result result = SHARES_FULL;
	struct exchange *refused = NULL;
	struct crew *crew;

	exchange->work = work;
	exchange->crew = strncmp(exchange->path, "/v1/agent/", 10) == 0 ? AGENTS : CUSTOMERS;
	crew = &work->crews[exchange->crew];
	caller_guess(work->callers, exchange);
	pthread_mutex_lock(&work->mutex);
	if (!work->stopping)
		result = shares_offer(crew->shares, exchange, &refused);
	if (result == SHARE_TAKEN) {
		/* Suspended before a worker can see it: a resume must never come first. */
		exchange->state = EXCHANGE_WORKING;
		MHD_suspend_connection(exchange->connection);
		pthread_cond_signal(&crew->ready);
	}
	pthread_mutex_unlock(&work->mutex);
	if (refused)
		turn_away(refused, SHARE_FULL);
	*ret_why = result == SHARE_TAKEN ? NULL : busy_text(exchange, result);
	return result == SHARE_TAKEN;
}

/* At least one of whatever it is. */
static unsigned part_of(unsigned whole, unsigned divisor)
{
	return whole < 2 * divisor ? 1 : whole / divisor;
}

/*
 * A quarter of the workers, and no more than half of the processors: where the database has the same ones,
 * its sessions and not the workers are what others would wait for.
 */
static unsigned owner_in_work(unsigned workers)
{
	unsigned processors = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), part = part_of(workers, 4);

	return processors / 2 < part ? part_of(processors, 2) : part;
}

static int start_crew(struct work *work, enum crew_name name, unsigned workers, unsigned queue)
{
	struct crew *crew = &work->crews[name];
	struct share_limits limits[N_SHARE_KINDS] = {
		[SHARE_OWNER] = {owner_in_work(workers), part_of(queue, 4)},
		[SHARE_GATEWAY] = {1, part_of(queue, 4)},
		[SHARE_REPORTS] = {1, 8},
		[SHARE_FLEET] = {part_of(queue, 8), part_of(queue, 4)},
		[SHARE_ADDRESS] = {part_of(workers, 2), part_of(queue, 2)},
	};
	int r = shares_new(queue, limits, &crew->shares);

	crew->work = work;
	while (crew->n_threads < workers && r == 0) {
		r = -pthread_create(&crew->threads[crew->n_threads], NULL, worker, crew);
		crew->n_threads += r == 0;
	}
	return r;
}

static int start_committer(struct work *work, enum lane last_lane)
{
	struct committer *committer = &work->committers[work->n_committers];
	int r;

	committer->work = work;
	committer->last_lane = last_lane;
	r = -pthread_create(&committer->thread, NULL, collect_and_commit, committer);
	work->n_committers += r == 0;
	return r;
}

static void init_conditions(struct work *work)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&work->mutex, NULL);
	for (size_t i = 0; i < N_CREWS; i++)
		pthread_cond_init(&work->crews[i].ready, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&work->deadline, &monotonic);
	pthread_cond_init(&work->gathered, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

int work_start(const struct work_settings *settings, struct work **ret_work)
{
	struct work *work = calloc(1, sizeof(*work));
	int r;

	if (!work)
		return -ENOMEM;
	work->database_file = settings->database_file;
	work->wakes = 1; /* 0 marks an exchange that no worker has seen */
	init_conditions(work);
	r = callers_new(&work->callers);
	if (r == 0)
		r = start_crew(work, CUSTOMERS, settings->workers, settings->queue);
	if (r == 0)
		r = start_crew(work, AGENTS, settings->agent_workers, settings->queue);
	for (int lane = LIGHT; lane < COMMITTERS && r == 0; lane++)
		r = start_committer(work, (enum lane)lane);
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
	for (size_t i = 0; i < N_CREWS; i++) {
		if (work->crews[i].shares)
			shares_open(work->crews[i].shares);
		pthread_cond_broadcast(&work->crews[i].ready);
	}
	pthread_cond_broadcast(&work->deadline);
	pthread_mutex_unlock(&work->mutex);
	for (size_t i = 0; i < N_CREWS; i++) {
		for (unsigned k = 0; k < work->crews[i].n_threads; k++)
			pthread_join(work->crews[i].threads[k], NULL);
	}
	pthread_mutex_lock(&work->mutex);
	work->workers_ended = true;
	pthread_cond_broadcast(&work->gathered);
	pthread_mutex_unlock(&work->mutex);
	for (unsigned i = 0; i < work->n_committers; i++)
		pthread_join(work->committers[i].thread, NULL);
	if (work->has_timer)
		pthread_join(work->timer, NULL);
}

void work_free(struct work *work)
{
	if (!work)
		return;
	for (size_t i = 0; i < N_CREWS; i++) {
		shares_free(work->crews[i].shares);
		pthread_cond_destroy(&work->crews[i].ready);
	}
	callers_free(work->callers);
	pthread_cond_destroy(&work->deadline);
	pthread_cond_destroy(&work->gathered);
	pthread_mutex_destroy(&work->mutex);
	free(work);
}
