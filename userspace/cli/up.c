// SPDX-License-Identifier: BSD-2-Clause
/* `wiretoll up`: a whole control plane on this host, with a PostgreSQL of its own. Gateways outlive it. */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/listen.h"
#include "cli/commands.h"
#include "cli/http_client.h"
#include "cli/signals.h"
#include "cli/up_control.h"
#include "cli/up_options.h"
#include "cli/up_postgres.h"
#include "cli/up_sample.h"
#include "cli/up_sample_parts.h"
#include "cli/up_services.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define READY_SECONDS 60
#define DOWN_SECONDS  60

/* ---- the state folder -----------------------------------------------------------------------------------
 */

/* PostgreSQL, the API and gateways run under users of their own, which must get through to their folders. */
static int check_passable(const char *path)
{
	up_path partial;
	struct stat status;

	snprintf(partial, sizeof(partial), "%s", path);
	for (char *slash = strchr(partial + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash)
			*slash = '\0';
		if (stat(partial, &status) == 0 && !(status.st_mode & S_IXOTH))
			return up_fail(
				-EACCES,
				"%s (mode %04o) lets no other user through to %s: choose another folder, "
				"or chmod o+x it",
				partial, status.st_mode & 07777, path);
		if (!slash)
			return 0;
		*slash = '/';
	}
}

static int make_passable(const char *path)
{
	int r = up_make_folder(path, 0, 0711);

	return r == 0 ? check_passable(path) : r;
}

static pid_t lock_owner(const char *path)
{
	_cleanup_free_ char *text = NULL;

	return file_read(path, 64, &text, NULL) == 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

/* Held by the open file: it goes with the process, however that ends. -EBUSY with the owner's pid. */
static int lock_state(const struct up *up, int *ret_fd, pid_t *ret_owner)
{
	char pid[16];
	up_path path;

	_cleanup_close_ int fd = open(up_join(up->state, "lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return up_fail(-errno, "could not open %s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		*ret_owner = lock_owner(path);
		return -EBUSY;
	}
	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || file_write_all(fd, pid, strlen(pid)) < 0)
		return up_fail(-EIO, "could not write %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int find_programs(struct up *up)
{
	char self[UP_PATH_SIZE];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0 || length == sizeof(self) - 1)
		return up_fail(-ENAMETOOLONG, "could not find the folder of this program");
	self[length] = '\0';
	snprintf(up->programs, sizeof(up->programs), "%s", dirname(self));
	return 0;
}

/* ---- bringing it up -------------------------------------------------------------------------------------
 */

static int migrate(const struct up *up)
{
	up_path database;
	const char *arguments[] = {"migrate", "--database-file", up_join(up->state, UP_OWNER_FILE, database),
				   NULL};

	return up_run_api(up, UP_MIGRATE_UID, arguments, NULL);
}

static int keep_admin_token(const struct up *up, const char *token)
{
	up_path path;
	int r = file_replace(up_join(up->state, "admin-token", path), token, strlen(token), 0600);

	if (r < 0)
		return up_fail(r, "could not write %s: %s", path, strerror(-r));
	printf("one-time admin token: %s (also in %s)\n", token, path);
	return 0;
}

static int read_init_answer(const struct up *up, const char *text)
{
	_cleanup_json_ json_t *answer = json_loads(text, 0, NULL);
	const char *fingerprint = json_string_value(json_object_get(answer, "ca_fingerprint"));
	const char *token = json_string_value(json_object_get(answer, "admin_token"));

	if (!fingerprint)
		return up_fail(-EPROTO, "wiretoll-api init gave no fingerprint");
	for (size_t i = 0; i < up->n_listen; i++)
		printf("API: https://%s\n", up->listen[i]);
	printf("fingerprint of its CA: %s\n", fingerprint);
	for (size_t i = 0; i < up->n_hypervisors; i++)
		printf("this host as a hypervisor: %s\n", up->hypervisors[i]);
	return token ? keep_admin_token(up, token) : 0;
}

static int init_api(const struct up *up)
{
	up_path state, database;
	const char *arguments[] = {"init", "--state", state, "--database-file", database, NULL};
	char *output = NULL;
	int r = up_make_folder(up_join(up->state, "api", state), UP_API_UID, 0700);

	up_join(up->state, UP_API_FILE, database);
	if (r == 0)
		r = up_run_api(up, UP_API_UID, arguments, &output);
	if (r < 0)
		return r;
	r = read_init_answer(up, output);
	sodium_memzero(output, strlen(output));
	free(output);
	return r;
}

static bool is_healthy(const struct up *up, const char *ca_pem, char problem[static HTTP_PROBLEM_SIZE])
{
	_cleanup_reply_ struct http_reply reply = {0};
	struct http_client *client = NULL;
	char url[128];
	int r;

	up_own_url(up, url);
	if (http_open(url, ca_pem, NULL, &client) < 0)
		return false;
	/* Short: signals wait meanwhile. */
	http_set_patience(client, 1);
	r = http_request(client, "GET", "/v1/health", NULL, &reply, problem);
	http_close(client);
	if (r == 0 && reply.status != 200)
		snprintf(problem, HTTP_PROBLEM_SIZE, "status %ld", reply.status);
	return r == 0 && reply.status == 200;
}

/* Returns 1 when a signal asks to stop, 0 after `timeout_ms` at the latest, with all services tended. */
static int wait_and_tend(struct up_processes *processes, int signal_fd, int timeout_ms)
{
	struct pollfd wait = {.fd = signal_fd, .events = POLLIN};
	struct signalfd_siginfo info;
	int due = up_services_tend(processes);

	if (due >= 0 && (timeout_ms < 0 || due < timeout_ms))
		timeout_ms = due;
	if (poll(&wait, 1, timeout_ms) <= 0)
		return 0;
	if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	return info.ssi_signo != SIGCHLD;
}

static int wait_until_healthy(struct up_processes *processes, int signal_fd)
{
	int64_t end = clock_boot_ns() + READY_SECONDS * NSEC_PER_SEC;
	char problem[HTTP_PROBLEM_SIZE] = "";
	_cleanup_free_ char *ca_pem = NULL;
	up_path path;
	int r = file_read(up_join(processes->up->state, "api/ca.pem", path), 65536, &ca_pem, NULL);

	if (r < 0)
		return up_fail(r, "could not read %s: %s", path, strerror(-r));
	while (!is_healthy(processes->up, ca_pem, problem)) {
		if (clock_boot_ns() > end)
			return up_fail(-ETIMEDOUT, "the API does not answer: %s", problem);
		if (wait_and_tend(processes, signal_fd, 20))
			return -EINTR;
	}
	return 0;
}

/*
 * Whether the API will get the addresses that it is to listen at. Looked at before anything is made or told,
 * as an API that cannot listen would be started again and again.
 */
static int check_listen(const struct up *up)
{
	for (size_t i = 0; i < up->n_listen; i++) {
		char bound[LISTEN_TEXT_SIZE];
		int fd = listen_on(up->listen[i], bound);

		if (fd < 0)
			return up_fail(fd, "cannot listen at %s: %s; --listen ADDRESS:PORT names another",
				       up->listen[i], strerror(-fd));
		close(fd);
	}
	return 0;
}

static int bring_up(struct up_processes *processes, int signal_fd)
{
	const struct up *up = processes->up;
	int r = up->sample ? up_sample_prepare(up) : 0;

	if (r == 0)
		r = check_listen(up);
	if (r == 0)
		r = up_postgres_prepare(up);
	if (r == 0)
		r = up_services_start(processes, UP_POSTGRES);
	if (r == 0)
		r = up_postgres_set_up(up, processes->of[UP_POSTGRES].pid);
	if (r == 0)
		r = migrate(up);
	if (r == 0)
		r = init_api(up);
	if (r == 0)
		r = up_services_start(processes, UP_API);
	if (r == 0)
		r = wait_until_healthy(processes, signal_fd);
	if (r == 0)
		r = up_services_start(processes, UP_DEPLOYD);
	if (r < 0)
		return r;
	puts("ready");
	fflush(stdout);
	return up->sample ? up_services_start(processes, UP_SAMPLE) : 0;
}

/* Until a signal asks to stop, or the sample gives up. */
static int serve(struct up_processes *processes, int signal_fd)
{
	while (!wait_and_tend(processes, signal_fd, -1))
		if (processes->up->sample && up_services_gave_up(processes, UP_SAMPLE))
			return -EIO;
	return 0;
}

static int destroy_gateways(const struct up *up)
{
	up_path program;
	const char *argv[] = {up_join(up->programs, "wiretoll-deployd", program),
			      "--state",
			      up->state,
			      "--run",
			      up->run,
			      "--destroy-all",
			      NULL};
	struct spawn spawn = {.argv = argv, .new_session = true};
	_cleanup_free_ char *error = NULL;
	int r = spawn_run(spawn, NULL, NULL, &error);

	if (r != 0)
		return up_fail(-EIO, "could not take all gateways down: %s", r < 0 ? strerror(-r) : error);
	return 0;
}

/* ---- the end of a sample --------------------------------------------------------------------------------
 */

/* Only what is known: the run folder may be anybody's. */
static int clear_run_folder(const struct up *up)
{
	static const char *const names[] = {"gw", "pg"};
	up_path path;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++)
		r = up_remove_folder(up_join(up->run, names[i], path));
	if (r == 0 && up->remove_run && rmdir(up->run) < 0 && errno != ENOTEMPTY)
		r = up_fail(-errno, "could not remove %s: %s", up->run, strerror(errno));
	return r;
}

static int clear_folders(const struct up *up)
{
	int r = clear_run_folder(up);

	return r == 0 && up->remove_state ? up_remove_folder(up->state) : r;
}

/* A sample that never began, because something of another's was in its way, has touched nothing. */
static int end_sample(const struct up *up)
{
	int r = 0;

	if (up_sample_exists(up)) {
		sample_say("removing the gateway and the networks");
		r = destroy_gateways(up);
		if (r == 0)
			r = up_sample_remove(up);
	}
	return r == 0 ? clear_folders(up) : r;
}

static int run_up(struct up *up)
{
	struct up_processes processes = {.up = up};
	_cleanup_close_ int lock = -1;
	_cleanup_close_ int signal_fd = -1;
	pid_t owner = 0;
	int r = lock_state(up, &lock, &owner);

	if (r == -EBUSY)
		return up_fail(r, "another `wiretoll up` (pid %d) runs on %s", (int)owner, up->state);
	signal(SIGPIPE, SIG_IGN);
	if (r == 0) {
		r = signals_open(true, &signal_fd);
		if (r < 0)
			up_fail(r, "could not watch for signals: %s", strerror(-r));
	}
	if (r == 0)
		r = bring_up(&processes, signal_fd);
	if (r == 0)
		r = serve(&processes, signal_fd);
	up_services_stop(&processes);
	/* Asked to stop before it was ready is no failure. */
	if (r == -EINTR)
		r = 0;
	if (up->sample) {
		int ended = end_sample(up);

		r = r == 0 ? ended : r;
	}
	return r;
}

/* ---- taking it down -------------------------------------------------------------------------------------
 */

static int stop_other(const struct up *up, int *ret_lock)
{
	int64_t end = clock_boot_ns() + DOWN_SECONDS * NSEC_PER_SEC;
	pid_t owner = 0, told = 0;
	int r;

	/* A sample takes the folder along. */
	while ((r = make_passable(up->state)) == 0 && (r = lock_state(up, ret_lock, &owner)) == -EBUSY) {
		if (owner > 0 && owner != told && kill(owner, SIGTERM) == 0)
			told = owner;
		if (clock_boot_ns() > end)
			return up_fail(r, "the `wiretoll up` with pid %d does not stop", (int)owner);
		poll(NULL, 0, 50);
	}
	return r;
}

/* Asking for the lock has made the folders anew, if the other was a sample that took its own along, and the
 * worker, asked to destroy what is there, has made its own in them.
 */
static void forget_empty_folders(const struct up *up)
{
	static const char *const workers[] = {"gw", "log", "token", "trash"};
	up_path path;

	if (access(up_join(up->state, "pg", path), F_OK) == 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
		if (rmdir(up_join(up->state, workers[i], path)) < 0 && errno != ENOENT)
			return;
	(void)unlink(up_join(up->state, "first_uid", path));
	(void)unlink(up_join(up->state, "lock", path));
	(void)rmdir(up->state);
	(void)rmdir(up->run);
}

static int run_down(const struct up *up)
{
	_cleanup_close_ int lock = -1;
	int r = stop_other(up, &lock);

	if (r == 0)
		r = destroy_gateways(up);
	if (r == 0)
		r = up_sample_remove(up);
	if (r == 0 && up->sample)
		r = clear_folders(up);
	if (r == 0)
		forget_empty_folders(up);
	return r;
}

int cmd_up(int argc, char **argv)
{
	static struct up up;
	enum up_action action = UP_ACTION_UP;
	int r;

	if (up_parse(argc, argv, &up, &action) < 0) {
		up_usage(stderr);
		return 2;
	}
	if (action == UP_ACTION_HELP) {
		up_usage(stdout);
		return 0;
	}
	if (geteuid() != 0) {
		up_fail(-EPERM, "needs root, to make network namespaces and to run each part under a user of "
				"its own");
		return 1;
	}
	r = sodium_init() < 0 ? -EIO : find_programs(&up);
	if (r == 0)
		r = make_passable(up.state);
	if (r == 0)
		r = make_passable(up.run);
	if (r == 0)
		r = action == UP_ACTION_DOWN ? run_down(&up) : run_up(&up);
	return r < 0 ? 1 : 0;
}
