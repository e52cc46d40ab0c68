// SPDX-License-Identifier: BSD-2-Clause
/* `wiretoll up`: a whole control plane on this host, with a PostgreSQL of its own. Gateways outlive it. */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/http_client.h"
#include "cli/up_control.h"
#include "cli/up_postgres.h"
#include "cli/up_services.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define READY_SECONDS 60
#define DOWN_SECONDS  60

/* ---- small things ---------------------------------------------------------------------------------------
 */

const char *up_join(const char *folder, const char *name, up_path path)
{
	snprintf(path, sizeof(up_path), "%s/%s", folder, name);
	return path;
}

int up_fail(int error, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text[strcspn(text, "\n")] = '\0';
	fprintf(stderr, "wiretoll up: %s\n", text);
	return error;
}

int up_make_folder(const char *path, uid_t uid, mode_t mode)
{
	int r = file_make_folder(path, mode);

	if (r == 0 && (chmod(path, mode) < 0 || lchown(path, uid, (gid_t)-1) < 0))
		r = -errno;
	return r < 0 ? up_fail(r, "could not make the folder %s: %s", path, strerror(-r)) : 0;
}

/* ---- options --------------------------------------------------------------------------------------------
 */

static const struct option long_options[] = {
	{"state", required_argument, NULL, 's'},
	{"run", required_argument, NULL, 'r'},
	{"listen", required_argument, NULL, 'l'},
	{"down", no_argument, NULL, 'd'},
	{"hypervisor", required_argument, NULL, 'y'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *stream)
{
	fputs("usage: wiretoll up [--state DIR] [--run DIR] [--listen ADDRESS:PORT]… [--hypervisor NAME]… "
	      "[--down]\n"
	      "\n"
	      "Runs PostgreSQL, the API and the deployment worker on this host until Ctrl-C; gateways run on "
	      "after it.\n"
	      "\n"
	      "  --state DIR            everything to keep (default /var/lib/wiretoll)\n"
	      "  --run DIR              sockets and mounts, gone at a reboot (default /run/wiretoll)\n"
	      "  --listen ADDRESS:PORT  where the API listens (default [::]:8443); may be repeated, with one "
	      "port\n"
	      "  --hypervisor NAME      a name of this host in the inventory (default: its host name); may "
	      "be repeated\n"
	      "  --down                 stop, and take all gateways off this host; the state folder stays as "
	      "it is\n",
	      stream);
}

static int set_folder(char *target, const char *option, const char *path)
{
	if (path[0] != '/' || strlen(path) >= UP_PATH_SIZE)
		return up_fail(-EINVAL, "%s \"%s\" is not an absolute path of less than %d bytes", option,
			       path, UP_PATH_SIZE);
	snprintf(target, UP_PATH_SIZE, "%s", path);
	return 0;
}

static int add_listen(struct up *up, const char *text)
{
	const char *colon = strrchr(text, ':');
	char *end;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

	if (!colon || colon[1] < '0' || colon[1] > '9' || *end || port < 1 || port > 65535)
		return up_fail(-EINVAL,
			       "--listen \"%s\" is not ADDRESS:PORT (an IPv6 address in brackets, a port "
			       "from 1 to 65535)",
			       text);
	if (up->n_listen == UP_MAX_LISTEN)
		return up_fail(-EINVAL, "at most %d times --listen", UP_MAX_LISTEN);
	if (up->n_listen > 0 && strcmp(strrchr(up->listen[0], ':'), colon) != 0)
		return up_fail(-EINVAL, "--listen \"%s\" has another port than \"%s\": gateways are told one",
			       text, up->listen[0]);
	up->listen[up->n_listen++] = text;
	return 0;
}

static int add_hypervisor(struct up *up, const char *name)
{
	if (up->n_hypervisors == UP_MAX_HYPERVISORS)
		return up_fail(-EINVAL, "at most %d times --hypervisor", UP_MAX_HYPERVISORS);
	up->hypervisors[up->n_hypervisors++] = name;
	return 0;
}

enum action { ACTION_UP, ACTION_DOWN, ACTION_HELP };

static int take_option(struct up *up, int option, enum action *action)
{
	switch (option) {
	case 's':
		return set_folder(up->state, "--state", optarg);
	case 'r':
		return set_folder(up->run, "--run", optarg);
	case 'l':
		return add_listen(up, optarg);
	case 'y':
		return add_hypervisor(up, optarg);
	case 'd':
		*action = ACTION_DOWN;
		return 0;
	case 'h':
		*action = ACTION_HELP;
		return 0;
	default:
		return -EINVAL;
	}
}

static int parse(int argc, char **argv, struct up *up, enum action *action)
{
	int option, r = 0;

	optind = 1;
	while (r == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		r = take_option(up, option, action);
	if (r == 0 && optind < argc)
		r = up_fail(-EINVAL, "\"%s\" is not an option", argv[optind]);
	if (r == 0 && up->n_listen == 0)
		r = add_listen(up, "[::]:8443");
	return r;
}

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

static int run_api(const struct up *up, uid_t uid, const char *const *arguments, char **ret_output)
{
	up_path program;
	const char *argv[12] = {up_join(up->programs, "wiretoll-api", program)};
	struct spawn spawn = {.argv = argv, .uid = uid};
	_cleanup_free_ char *error = NULL;
	int r;

	for (size_t i = 0; arguments[i] && i + 2 < ARRAY_SIZE(argv); i++)
		argv[i + 1] = arguments[i];
	r = spawn_run(spawn, NULL, ret_output, &error);
	if (r != 0)
		return up_fail(r < 0 ? r : -EIO, "wiretoll-api %s failed: %s", arguments[0],
			       r < 0 ? strerror(-r) : error);
	return 0;
}

static int migrate(const struct up *up)
{
	up_path database;
	const char *arguments[] = {"migrate", "--database-file", up_join(up->state, UP_OWNER_FILE, database),
				   NULL};

	return run_api(up, UP_MIGRATE_UID, arguments, NULL);
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
		r = run_api(up, UP_API_UID, arguments, &output);
	if (r < 0)
		return r;
	r = read_init_answer(up, output);
	sodium_memzero(output, strlen(output));
	free(output);
	return r;
}

/* An address to ask oneself at: a wildcard's is the loopback. */
static void own_url(const char *listen, char url[static 128])
{
	static const char any6[] = "[::]:", any4[] = "0.0.0.0:";

	if (strncmp(listen, any6, strlen(any6)) == 0)
		snprintf(url, 128, "https://[::1]:%s", listen + strlen(any6));
	else if (strncmp(listen, any4, strlen(any4)) == 0)
		snprintf(url, 128, "https://127.0.0.1:%s", listen + strlen(any4));
	else
		snprintf(url, 128, "https://%.100s", listen);
}

static bool is_healthy(const struct up *up, const char *ca_pem, char problem[static HTTP_PROBLEM_SIZE])
{
	_cleanup_reply_ struct http_reply reply = {0};
	struct http_client *client = NULL;
	char url[128];
	int r;

	own_url(up->listen[0], url);
	if (http_open(url, ca_pem, NULL, &client) < 0)
		return false;
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

static int bring_up(struct up_processes *processes, int signal_fd)
{
	const struct up *up = processes->up;
	int r = up_postgres_prepare(up);

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
	if (r == 0) {
		puts("ready");
		fflush(stdout);
	}
	return r;
}

/* A terminal's Ctrl-C, a service manager's stop, and the end of a child, through one descriptor. */
static int open_signals(int *ret_fd)
{
	sigset_t signals;
	int fd;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return up_fail(-errno, "signalfd: %s", strerror(errno));
	*ret_fd = fd;
	return 0;
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
	if (r == 0)
		r = open_signals(&signal_fd);
	if (r == 0)
		r = bring_up(&processes, signal_fd);
	while (r == 0 && !wait_and_tend(&processes, signal_fd, -1))
		;
	up_services_stop(&processes);
	/* Asked to stop before it was ready is no failure. */
	return r == -EINTR ? 0 : r;
}

/* ---- taking it down -------------------------------------------------------------------------------------
 */

static int stop_other(const struct up *up, int *ret_lock)
{
	int64_t end = clock_boot_ns() + DOWN_SECONDS * NSEC_PER_SEC;
	pid_t owner = 0, told = 0;
	int r;

	while ((r = lock_state(up, ret_lock, &owner)) == -EBUSY) {
		if (owner > 0 && owner != told && kill(owner, SIGTERM) == 0)
			told = owner;
		if (clock_boot_ns() > end)
			return up_fail(r, "the `wiretoll up` with pid %d does not stop", (int)owner);
		poll(NULL, 0, 50);
	}
	return r;
}

static int run_down(const struct up *up)
{
	up_path program;
	const char *argv[] = {up_join(up->programs, "wiretoll-deployd", program),
			      "--state",
			      up->state,
			      "--run",
			      up->run,
			      "--destroy-all",
			      NULL};
	struct spawn spawn = {.argv = argv};
	_cleanup_free_ char *error = NULL;
	_cleanup_close_ int lock = -1;
	int r = stop_other(up, &lock);

	if (r < 0)
		return r;
	r = spawn_run(spawn, NULL, NULL, &error);
	if (r != 0)
		return up_fail(-EIO, "could not take all gateways down: %s", r < 0 ? strerror(-r) : error);
	return 0;
}

int cmd_up(int argc, char **argv)
{
	static struct up up = {.state = "/var/lib/wiretoll", .run = "/run/wiretoll"};
	enum action action = ACTION_UP;
	char name[HOST_NAME_MAX + 1] = "";
	int r;

	if (parse(argc, argv, &up, &action) < 0) {
		usage(stderr);
		return 2;
	}
	if (action == ACTION_HELP) {
		usage(stdout);
		return 0;
	}
	if (geteuid() != 0) {
		up_fail(-EPERM, "needs root, to make network namespaces and to run each part under a user of "
				"its own");
		return 1;
	}
	gethostname(name, sizeof(name) - 1);
	if (up.n_hypervisors == 0)
		up.hypervisors[up.n_hypervisors++] = name;
	r = sodium_init() < 0 ? -EIO : find_programs(&up);
	if (r == 0)
		r = make_passable(up.state);
	if (r == 0)
		r = make_passable(up.run);
	if (r == 0)
		r = action == ACTION_DOWN ? run_down(&up) : run_up(&up);
	return r < 0 ? 1 : 0;
}
