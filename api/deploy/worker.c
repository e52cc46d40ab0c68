// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/worker.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "deploy/bootstrap.h"
#include "deploy/supervisor.h"
#include "deploy/task.h"
#include "deploy/upkeep.h"
#include "deploy/worker_state.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define POLL_INTERVAL   (5 * NSEC_PER_SEC)
#define RENEW_INTERVAL  (10 * NSEC_PER_SEC)
#define UPKEEP_INTERVAL (30 * NSEC_PER_SEC)
#define BACKOFF_MIN     (NSEC_PER_SEC / 10)
#define BACKOFF_MAX     (5 * NSEC_PER_SEC)
#define FAREWELL        (10 * NSEC_PER_SEC) /* for a deleted gateway's last report */
#define STOP_PATIENCE   (5 * NSEC_PER_SEC)
#define TIDY_INTERVAL   NSEC_PER_SEC
#define RESTORE_PAUSE   NSEC_PER_SEC
#define RESTORE_AGAIN   (30 * NSEC_PER_SEC)
#define MAX_JOBS        64
#define MAX_POLL_FDS    4096

/* How many of a kind run at once. Deployments have places of their own: a deletion can take long. */
static const unsigned max_running[TASK_KINDS] = {[TASK_DEPLOY] = 8, [TASK_DESTROY] = 24, [TASK_ROUTES] = 8,
						 [TASK_LOGS] = 4,   [TASK_TRASH] = 1,    [TASK_RESTORE] = 1};

/* ---- tasks ----------------------------------------------------------------------------------------------
 */

static bool is_running(const struct task *task)
{
	return task->pidfd >= 0;
}

static void cancel(struct task *task)
{
	task->cancelled = true;
	task_kill(task);
}

static void on_step(struct task *task, const char *step, void *data)
{
	struct worker *worker = data;

	if (task->kind == TASK_RESTORE) {
		log_warning("%s", step);
		return;
	}
	log_debug("gateway %s, attempt %u: %s", task->job.gateway, task->job.attempt, step);
	/* A step counts only while the job is ours. */
	if (task->has_job && worker->queue && queue_log(worker->queue, &task->job, step, "begun") == -ESTALE)
		cancel(task);
}

static void set_error(struct task *task, const char *message)
{
	task->done = task->failed = true;
	snprintf(task->error, sizeof(task->error), "%s", message);
}

/* Gives the deployment a one-time token if it has none that it can use. */
static int make_token(struct worker *worker, const struct task *task, const struct deploy_spec *spec,
		      char *token, bool *ret_has_token)
{
	unsigned char hash[BOOTSTRAP_HASH_SIZE];
	int r;

	*ret_has_token = false;
	if (!task->has_job || !worker->driver->needs_token(worker->host, spec))
		return 0;
	bootstrap_make_token(token, hash);
	r = queue_set_token(worker->queue, &task->job, hash, sizeof(hash), BOOTSTRAP_TOKEN_LIFETIME);
	*ret_has_token = r == 0;
	return r;
}

static int start_with_spec(struct worker *worker, struct task *task)
{
	_cleanup_spec_ struct deploy_spec *spec = NULL;
	char token[BOOTSTRAP_TOKEN_SIZE];
	struct json_problem problem = {0};
	bool has_token = false;
	int r = deploy_spec_parse(task->job.spec, &spec, &problem);

	if (r == -EINVAL) {
		set_error(task, problem.message);
		return 0;
	}
	if (r == 0 && task->kind == TASK_DEPLOY) {
		supervisor_remove(worker->supervisor, task->job.gateway);
		r = make_token(worker, task, spec, token, &has_token);
	}
	if (r == 0)
		r = task_start(task, worker->driver, worker->host, spec, has_token ? token : NULL);
	sodium_memzero(token, sizeof(token));
	return r;
}

static int start(struct worker *worker, struct task *task)
{
	if (task->kind == TASK_DEPLOY || task->kind == TASK_ROUTES)
		return start_with_spec(worker, task);
	if (task->kind == TASK_DESTROY)
		supervisor_remove(worker->supervisor, task->job.gateway);
	return task_start(task, worker->driver, worker->host, NULL, NULL);
}

static bool has_place(const struct worker *worker, enum task_kind kind)
{
	unsigned running = 0;

	for (const struct task *task = worker->tasks; task; task = task->next)
		running += task->kind == kind && is_running(task);
	return running < max_running[kind];
}

static bool may_start(const struct worker *worker, const struct task *task)
{
	if (!has_place(worker, task->kind))
		return false;
	for (const struct task *other = worker->tasks; other != task; other = other->next)
		if (strcmp(other->job.gateway, task->job.gateway) == 0)
			return false;
	return task->start_by_ns <= clock_boot_ns() ||
	       !supervisor_agent_expected(worker->supervisor, task->job.gateway);
}

static void try_start(struct worker *worker, struct task *task)
{
	int r = start(worker, task);

	if (r == -ESTALE || r == -ENOTCONN)
		cancel(task);
	else if (r < 0)
		set_error(task, strerror(-r));
}

/* Tells the queue. Returns whether the task is over: without a database it waits. */
static bool report(struct worker *worker, struct task *task)
{
	int r;

	if (!task->has_job)
		return true;
	r = queue_finish(worker->queue, &task->job, task->failed ? task->error : NULL, task->transient);
	if (r == -ENOTCONN)
		return false;
	if (r == -EIO)
		log_error("could not finish the job of gateway %s: %s", task->job.gateway,
			  queue_error(worker->queue));
	worker->next_poll_ns = 0;
	return true;
}

static void note_result(struct worker *worker, struct task *task)
{
	static const char *const names[] = {[TASK_DEPLOY] = "deploy",
					    [TASK_DESTROY] = "destroy",
					    [TASK_ROUTES] = "set the routes of",
					    [TASK_LOGS] = "begin the logs anew of",
					    [TASK_TRASH] = "remove what is left of deleted",
					    [TASK_RESTORE] = "restore"};

	if (task->failed && task->kind == TASK_RESTORE) {
		log_error("could not keep tunnels from this host: %s", task->error);
		return;
	}
	if (task->failed) {
		log_error("could not %s gateway %s, attempt %u: %s", names[task->kind], task->job.gateway,
			  task->job.attempt, task->error);
		worker->failures++;
		return;
	}
	if (task->kind == TASK_LOGS || task->kind == TASK_TRASH || task->kind == TASK_RESTORE)
		return;
	if (task->kind == TASK_DEPLOY && supervisor_add(worker->supervisor, task->job.gateway) < 0)
		set_error(task, "out of memory");
	if (task->kind == TASK_ROUTES) {
		if (queue_note_routes(worker->queue, &task->job, task->refused) < 0)
			log_warning("could not tell which routes of gateway %s are left out: %s",
				    task->job.gateway, queue_error(worker->queue));
		upkeep_note_routes(worker, task);
	} else {
		upkeep_forget_routes(worker, task->job.gateway);
	}
	log_info("gateway %s, attempt %u: %s done", task->job.gateway, task->job.attempt, names[task->kind]);
}

/* Returns whether the task is over. */
static bool advance(struct worker *worker, struct task *task)
{
	if (is_running(task)) {
		task_read(task, on_step, worker);
		if (!task_check_end(task, on_step, worker))
			return false;
		if (!task->cancelled)
			note_result(worker, task);
	}
	if (!task->cancelled && !task->done && may_start(worker, task))
		try_start(worker, task);
	if (is_running(task))
		return false;
	return task->cancelled || (task->done && report(worker, task));
}

static bool advance_each(struct worker *worker)
{
	struct task **link = &worker->tasks;
	bool ended = false;

	while (*link) {
		struct task *task = *link;

		if (advance(worker, task)) {
			*link = task->next;
			task_free(task);
			ended = true;
		} else {
			link = &task->next;
		}
	}
	return ended;
}

/* Until nothing more happens: an earlier task may have waited for the place of a later one. */
static void advance_all(struct worker *worker)
{
	while (advance_each(worker))
		;
}

/* ---- this host's own tasks ------------------------------------------------------------------------------
 */

static void add_own_task(struct worker *worker, enum task_kind kind, const char *gateway)
{
	struct queue_job job = {0};
	struct task *task;

	if (worker_has_task(worker, gateway))
		return;
	snprintf(job.gateway, sizeof(job.gateway), "%s", gateway);
	if (worker_add_task(worker, kind, &job, &task) < 0)
		log_error("out of memory");
}

static void tidy_logs(const char *gateway, void *data)
{
	struct worker *worker = data;

	if (worker->driver->logs_full(worker->host, gateway))
		add_own_task(worker, TASK_LOGS, gateway);
}

static void tidy(struct worker *worker)
{
	int64_t now = clock_boot_ns();

	if (now < worker->next_tidy_ns)
		return;
	worker->next_tidy_ns = now + TIDY_INTERVAL;
	supervisor_each(worker->supervisor, tidy_logs, worker);
	/* Of no gateway that there is: the task with no name. */
	if (worker->driver->has_trash(worker->host))
		add_own_task(worker, TASK_TRASH, "");
}

/* What is to be read says nothing but that somebody has changed something, perhaps this worker itself. */
static void hear_host(struct worker *worker)
{
	char words[4096];
	bool heard = false;

	while (worker->host_fd >= 0 &&
	       (recv(worker->host_fd, words, sizeof(words), MSG_DONTWAIT) >= 0 || errno == ENOBUFS))
		heard = true;
	if (heard && worker->next_restore_ns > worker->last_restore_ns + RESTORE_PAUSE)
		worker->next_restore_ns = worker->last_restore_ns + RESTORE_PAUSE;
}

/* Of no gateway that there is, either. A change that comes while it runs is looked at by the next one. */
static void restore(struct worker *worker)
{
	int64_t now = clock_boot_ns();

	hear_host(worker);
	if (now < worker->next_restore_ns || worker_has_task(worker, "host"))
		return;
	worker->last_restore_ns = now;
	worker->next_restore_ns = now + RESTORE_AGAIN;
	add_own_task(worker, TASK_RESTORE, "host");
}

/* ---- jobs -----------------------------------------------------------------------------------------------
 */

/* The same job may come again when its lease ran out while the database was away. */
static bool is_known(const struct worker *worker, const struct queue_job *job)
{
	for (struct task *task = worker->tasks; task; task = task->next) {
		if (!task->has_job || task->cancelled || strcmp(task->job.gateway, job->gateway) != 0)
			continue;
		if (task->job.attempt == job->attempt && task->job.absent == job->absent)
			return true;
		cancel(task);
	}
	return false;
}

static int take_job(struct worker *worker, struct queue_job *job)
{
	struct task *task;
	int r;

	if (is_known(worker, job))
		return 0;
	if (job->absent) {
		/* The agent of an earlier worker gets its last word, too. */
		r = supervisor_add(worker->supervisor, job->gateway);
		if (r < 0)
			return r;
	}
	r = worker_add_task(worker, job->absent ? TASK_DESTROY : TASK_DEPLOY, job, &task);
	if (r < 0)
		return r;
	task->has_job = true;
	task->forget = true;
	if (task->job.absent)
		task->start_by_ns = clock_boot_ns() + FAREWELL;
	return 0;
}

static size_t count_jobs(const struct worker *worker)
{
	size_t n = 0;

	for (const struct task *task = worker->tasks; task; task = task->next)
		n += task->has_job;
	return n;
}

static int claim_jobs(struct worker *worker, const char *hypervisor)
{
	while (count_jobs(worker) < MAX_JOBS) {
		struct queue_job job = {0};
		int r = queue_claim(worker->queue, hypervisor, &job);

		if (r == 0)
			r = take_job(worker, &job);
		queue_job_clear(&job);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
	}
	return 0;
}

/* A job whose goal has changed to absent meanwhile goes on as a deletion. */
static int turn_around(struct worker *worker, struct task *task)
{
	struct queue_job job = task->job;

	job.absent = true;
	job.spec = strdup(task->job.spec);
	if (!job.spec)
		return -ENOMEM;
	cancel(task);

	int r = take_job(worker, &job);

	queue_job_clear(&job);
	return r;
}

static int renew_jobs(struct worker *worker)
{
	for (struct task *task = worker->tasks; task; task = task->next) {
		bool absent;
		int r;

		if (!task->has_job || task->cancelled)
			continue;
		r = queue_renew(worker->queue, &task->job, &absent);
		if (r == -ESTALE)
			cancel(task);
		else if (r == 0 && absent && !task->job.absent)
			r = turn_around(worker, task);
		if (r < 0 && r != -ESTALE)
			return r;
	}
	return 0;
}

/* ---- the loop -------------------------------------------------------------------------------------------
 */

static void register_hypervisors(struct worker *worker)
{
	for (size_t i = 0; i < worker->n_hypervisors; i++) {
		struct worker_hypervisor *hypervisor = &worker->hypervisors[i];
		int r;

		if (hypervisor->id[0])
			continue;
		r = queue_register(worker->queue, hypervisor->name, worker->driver->name, hypervisor->id);
		if (r == 0)
			log_info("serving the hypervisor \"%s\"", hypervisor->name);
		else if (r == -ENOENT && !hypervisor->missed)
			log_warning("no hypervisor \"%s\" with the driver %s yet: waiting for the operator "
				    "to create it",
				    hypervisor->name, worker->driver->name);
		hypervisor->missed = true;
	}
}

static int consult_queue(struct worker *worker)
{
	int64_t now = clock_boot_ns();
	int r = renew_jobs(worker);

	register_hypervisors(worker);
	for (size_t i = 0; i < worker->n_hypervisors && r == 0; i++)
		if (worker->hypervisors[i].id[0])
			r = claim_jobs(worker, worker->hypervisors[i].id);
	if (r < 0)
		return r;
	worker->next_poll_ns = now + POLL_INTERVAL;
	worker->next_renew_ns = now + RENEW_INTERVAL;
	r = upkeep(worker, now >= worker->next_upkeep_ns);
	if (r == 0 && now >= worker->next_upkeep_ns)
		worker->next_upkeep_ns = now + UPKEEP_INTERVAL;
	return r;
}

static void connect_queue(struct worker *worker)
{
	int r = queue_connect(worker->queue);

	if (r == 0) {
		if (worker->disconnected)
			log_info("the database is there again");
		worker->disconnected = false;
		worker->backoff_ns = BACKOFF_MIN;
		worker->next_poll_ns = 0;
		return;
	}
	if (!worker->disconnected)
		log_error("could not reach the database: %s", queue_error(worker->queue));
	worker->disconnected = true;
	worker->next_connect_ns = clock_boot_ns() + worker->backoff_ns;
	worker->backoff_ns = worker->backoff_ns * 2 > BACKOFF_MAX ? BACKOFF_MAX : worker->backoff_ns * 2;
}

static void attend_queue(struct worker *worker)
{
	int64_t now = clock_boot_ns();
	int r = 0;

	if (queue_fd(worker->queue) < 0) {
		if (now < worker->next_connect_ns)
			return;
		connect_queue(worker);
	}
	if (queue_has_news(worker->queue) || now >= worker->next_poll_ns)
		r = queue_fd(worker->queue) < 0 ? -ENOTCONN : consult_queue(worker);
	else if (now >= worker->next_renew_ns)
		r = renew_jobs(worker);
	if (r == 0 || r == -ENOTCONN)
		return;
	log_error("could not work on the queue: %s", r == -EIO ? queue_error(worker->queue) : strerror(-r));
	worker->next_poll_ns = clock_boot_ns() + POLL_INTERVAL;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t next_due(const struct worker *worker)
{
	int64_t next = supervisor_next_ns(worker->supervisor), now = clock_boot_ns();

	if (worker->queue)
		next = earlier(next, earlier(worker->next_tidy_ns, worker->next_restore_ns));
	if (worker->queue && queue_fd(worker->queue) < 0)
		next = earlier(next, worker->next_connect_ns);
	else if (worker->queue)
		next = earlier(next, earlier(worker->next_poll_ns, worker->next_renew_ns));
	for (const struct task *task = worker->tasks; task; task = task->next) {
		if (is_running(task))
			next = earlier(next, task->deadline_ns);
		else if (!task->done && task->start_by_ns > now)
			next = earlier(next, task->start_by_ns);
	}
	return next;
}

static void wait_for_something(struct worker *worker)
{
	int64_t next = next_due(worker), now = clock_boot_ns();
	struct pollfd *fds = worker->poll_fds;
	size_t n = 0;
	int timeout;

	fds[n++] = (struct pollfd){.fd = worker->signal_fd, .events = POLLIN};
	fds[n++] = (struct pollfd){.fd = worker->host_fd, .events = POLLIN};
	if (worker->queue && queue_fd(worker->queue) >= 0)
		fds[n++] = (struct pollfd){.fd = queue_fd(worker->queue), .events = POLLIN};
	for (const struct task *task = worker->tasks; task && n + 2 < MAX_POLL_FDS; task = task->next)
		if (is_running(task)) {
			fds[n++] = (struct pollfd){.fd = task->pidfd, .events = POLLIN};
			fds[n++] = (struct pollfd){.fd = task->progress_fd, .events = POLLIN};
		}
	n += supervisor_poll_fds(worker->supervisor, fds + n, MAX_POLL_FDS - n);
	if (next > now + POLL_INTERVAL)
		next = now + POLL_INTERVAL;
	timeout = next > now ? (int)((next - now + 999999) / 1000000) : 0;
	if (poll(fds, (nfds_t)n, timeout) < 0 && errno != EINTR)
		log_error("could not wait: %s", strerror(errno));
	if (fds[0].revents)
		worker->stopping = true;
}

static void turn(struct worker *worker)
{
	wait_for_something(worker);
	supervisor_dispatch(worker->supervisor);
	if (worker->queue)
		attend_queue(worker);
	if (worker->queue) {
		tidy(worker);
		restore(worker);
	}
	advance_all(worker);
}

/* Lets what is being done come to an end, so that the next worker need not wait for the leases. */
static void wind_down(struct worker *worker)
{
	int64_t end = clock_boot_ns() + STOP_PATIENCE;
	struct task *task = worker->tasks;

	while (task && clock_boot_ns() < end) {
		struct pollfd wait = {.fd = task->pidfd, .events = POLLIN};

		if (is_running(task) && poll(&wait, 1, 50) >= 0)
			advance_all(worker);
		for (task = worker->tasks; task && !is_running(task); task = task->next)
			;
	}
}

static void worker_clear(struct worker *worker)
{
	while (worker->tasks) {
		struct task *next = worker->tasks->next;

		task_free(worker->tasks);
		worker->tasks = next;
	}
	upkeep_clear(worker);
	supervisor_free(worker->supervisor);
	queue_free(worker->queue);
	cleanup_close(&worker->signal_fd);
	cleanup_close(&worker->host_fd);
	free(worker->poll_fds);
}

static int worker_prepare(struct worker *worker, const struct deploy_driver *driver,
			  struct worker_options *options)
{
	sigset_t signals;
	int r = driver->setup(&options->host);

	if (r < 0)
		return r;
	worker->driver = driver;
	worker->host = &options->host;
	worker->backoff_ns = BACKOFF_MIN;
	worker->n_hypervisors = options->n_hypervisors;
	for (size_t i = 0; i < options->n_hypervisors; i++)
		worker->hypervisors[i].name = options->hypervisors[i];
	worker->poll_fds = calloc(MAX_POLL_FDS, sizeof(*worker->poll_fds));
	if (!worker->poll_fds)
		return -ENOMEM;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	worker->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (worker->signal_fd < 0)
		return -errno;
	/* Without it, it is looked every half minute. */
	worker->host_fd = driver->listen();
	return supervisor_new(driver, &options->host, &worker->supervisor);
}

/* A database that is away comes back; a pooler before it stays until somebody has changed the connection. */
static int refuse_pooler(struct worker *worker)
{
	if (queue_connect(worker->queue) != -EPROTO)
		return 0;
	log_error("could not use the database: %s", queue_error(worker->queue));
	return -EPROTO;
}

int worker_run(const struct deploy_driver *driver, struct worker_options *options)
{
	struct worker worker = {.signal_fd = -1, .host_fd = -1};
	char name[96] = "", machine[64] = "host";
	int r = worker_prepare(&worker, driver, options);

	if (r == 0) {
		gethostname(machine, sizeof(machine) - 1);
		snprintf(name, sizeof(name), "%s/%d/%lld", machine, (int)getpid(), (long long)clock_utc_ns());
		r = queue_new(options->database_file, name, &worker.queue);
	}
	if (r == 0)
		r = refuse_pooler(&worker);
	if (r == 0)
		r = notify_manager("READY=1");
	while (r == 0 && !worker.stopping)
		turn(&worker);
	if (r == 0)
		wind_down(&worker);
	worker_clear(&worker);
	driver->teardown(&options->host);
	return r;
}

static void add_destroy(const char *gateway, unsigned attempt, void *data)
{
	struct worker *worker = data;
	struct queue_job job = {.attempt = attempt, .absent = true};
	struct task *task;

	if (worker_has_task(worker, gateway))
		return;
	snprintf(job.gateway, sizeof(job.gateway), "%s", gateway);
	if (worker_add_task(worker, TASK_DESTROY, &job, &task) < 0)
		worker->failures++;
}

int worker_destroy_all(const struct deploy_driver *driver, struct worker_options *options)
{
	struct worker worker = {.signal_fd = -1, .host_fd = -1};
	int r = worker_prepare(&worker, driver, options);

	if (r == 0)
		r = driver->list(&options->host, add_destroy, &worker);
	advance_all(&worker);
	while (r == 0 && worker.tasks && !worker.stopping)
		turn(&worker);
	if (r == 0 && (worker.failures > 0 || worker.stopping))
		r = -EBUSY;
	worker_clear(&worker);
	driver->teardown(&options->host);
	return r;
}
