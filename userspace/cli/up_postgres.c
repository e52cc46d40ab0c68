// SPDX-License-Identifier: BSD-2-Clause
#include "cli/up_postgres.h"
#include "base/clock.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PASSWORD_SIZE    44
#define MAX_SOCKET_PATH  100 /* sun_path has 108 bytes */
#define SOCKET_NAME      ".s.PGSQL.5432"
#define PASSWORD_FILE    "secrets/postgres.password"
#define SHUTDOWN_SECONDS 30
#define START_SECONDS    60

static int sleep_ms(long milliseconds)
{
	return nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

/* ---- where things are -----------------------------------------------------------------------------------
 */

/* The newest version's program. */
static int find_program(const char *name, up_path path)
{
	long newest = -1;
	glob_t found;

	if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++) {
			long version = strtol(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"), NULL, 10);

			if (version > newest) {
				newest = version;
				snprintf(path, PATH_MAX, "%s/%s", found.gl_pathv[i], name);
			}
		}
		globfree(&found);
	}
	return newest < 0 ? up_fail(-ENOENT, "no PostgreSQL in /usr/lib/postgresql: run `make deps`") : 0;
}

static int find_user(struct passwd *ret_user)
{
	const struct passwd *user = getpwnam("postgres");

	if (!user)
		return up_fail(-ENOENT, "this host has no user postgres: run `make deps`");
	*ret_user = *user;
	return 0;
}

/* ---- preparing ------------------------------------------------------------------------------------------
 */

static void make_password(char password[static PASSWORD_SIZE])
{
	unsigned char bytes[32];

	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2base64(password, PASSWORD_SIZE, bytes, sizeof(bytes),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(bytes, sizeof(bytes));
}

static int write_secret(const struct up *up, const char *name, const char *text, uid_t uid)
{
	up_path path;
	int r = file_replace(up_join(up->state, name, path), text, strlen(text), 0600);

	if (r == 0 && chown(path, uid, (gid_t)-1) < 0)
		r = -errno;
	return r < 0 ? up_fail(r, "could not write %s: %s", path, strerror(-r)) : 0;
}

/* Beside its place first: a data folder that initdb could not finish must not be taken for one. */
static int init_database(const struct up *up, const struct passwd *user)
{
	up_path program, fresh, data, password_file, option;
	char password[PASSWORD_SIZE];
	const char *argv[] = {program,
			      "--auth=scram-sha-256",
			      "--username=postgres",
			      option,
			      "--encoding=UTF8",
			      "--locale=C",
			      "--pgdata",
			      fresh,
			      NULL};
	struct spawn spawn = {.argv = argv, .uid = user->pw_uid, .gid = user->pw_gid, .new_session = true};
	_cleanup_free_ char *error = NULL;
	int r = find_program("initdb", program);

	up_join(up->state, "pg.new", fresh);
	up_join(up->state, "pg", data);
	up_join(up->state, PASSWORD_FILE, password_file);
	if (r < 0)
		return r;
	snprintf(option, sizeof(option), "--pwfile=%.*s", PATH_MAX - 16, password_file);
	make_password(password);
	r = write_secret(up, PASSWORD_FILE, password, user->pw_uid);
	sodium_memzero(password, sizeof(password));
	if (r == 0)
		r = up_remove_folder(fresh);
	if (r == 0)
		r = up_make_folder(fresh, user->pw_uid, 0700);
	if (r < 0)
		return r;
	r = spawn_run(spawn, NULL, NULL, &error);
	if (r != 0)
		return up_fail(r < 0 ? r : -EIO, "initdb failed: %s", r < 0 ? strerror(-r) : error);
	return rename(fresh, data) < 0 ? up_fail(-errno, "could not rename %s: %s", fresh, strerror(errno))
				       : 0;
}

static bool works_on(long pid, const char *data)
{
	up_path link, folder, resolved;
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%ld/cwd", pid);
	length = readlink(link, folder, sizeof(folder) - 1);
	if (pid <= 0 || length < 0 || !realpath(data, resolved))
		return false;
	folder[length] = '\0';
	return strcmp(folder, resolved) == 0;
}

/* The server that works on the data folder, by its lock file; 0: none, whatever the file says. */
static pid_t running_server(const char *data)
{
	_cleanup_free_ char *text = NULL;
	up_path lock;
	long pid;

	if (file_read(up_join(data, "postmaster.pid", lock), 4096, &text, NULL) < 0)
		return 0;
	pid = strtol(text, NULL, 10);
	return works_on(pid, data) ? (pid_t)pid : 0;
}

static bool is_postgres(long pid)
{
	_cleanup_free_ char *name = NULL;
	up_path path;

	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	return file_read(path, 64, &name, NULL) == 0 && strcmp(name, "postgres\n") == 0;
}

/*
 * Sessions end by themselves when their server has died, but not one that waits for a lock which went with
 * another: it never ends, and while it holds the shared memory PostgreSQL does not start. There is no server.
 */
static void end_orphans(const char *data)
{
	DIR *processes = opendir("/proc");
	const struct dirent *entry;

	while (processes && (entry = readdir(processes))) {
		long pid = strtol(entry->d_name, NULL, 10);

		if (works_on(pid, data) && is_postgres(pid))
			kill((pid_t)pid, SIGKILL);
	}
	if (processes)
		closedir(processes);
}

static int clear_left_over(const struct up *up, const char *data)
{
	static const char *const names[] = {"pg/" SOCKET_NAME, "pg/" SOCKET_NAME ".lock"};
	int64_t end = clock_boot_ns() + SHUTDOWN_SECONDS * NSEC_PER_SEC;
	up_path path;
	pid_t pid;

	/* Of a `wiretoll up` that was killed; told to stop by its death, but make sure. */
	while ((pid = running_server(data)) > 0) {
		if (clock_boot_ns() > end)
			return up_fail(-EBUSY, "the PostgreSQL server %d still works on %s", (int)pid, data);
		kill(pid, SIGINT);
		sleep_ms(100);
	}
	/* The pid in it may be another process's by now, and PostgreSQL would believe it. */
	unlink(up_join(data, "postmaster.pid", path));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(up_join(up->run, names[i], path));
	return 0;
}

int up_postgres_prepare(const struct up *up)
{
	up_path path, data;
	struct passwd user = {0};
	int r = find_user(&user);

	if (r < 0)
		return r;
	up_join(up->run, "pg/" SOCKET_NAME, path);
	if (strlen(path) >= MAX_SOCKET_PATH)
		return up_fail(-ENAMETOOLONG,
			       "%s is too long for a socket (at most %d bytes): choose a shorter --run", path,
			       MAX_SOCKET_PATH);
	r = up_make_folder(up_join(up->state, "secrets", path), 0, 0711);
	if (r == 0)
		r = up_make_folder(up_join(up->run, "pg", path), user.pw_uid, 0755);
	if (r < 0)
		return r;
	up_join(up->state, "pg", data);
	up_join(data, "PG_VERSION", path);
	if (access(path, F_OK) < 0)
		return init_database(up, &user);
	return clear_left_over(up, data);
}

int up_postgres_start(const struct up *up, pid_t *ret_pid)
{
	up_path program, data, log, socket_option;
	const char *argv[] = {program, "-D", data, "-c", "listen_addresses=", "-c", socket_option, NULL};
	struct spawn spawn = {.argv = argv, .new_session = true, .parent_death_signal = SIGINT};
	struct passwd user = {0};
	int r = find_user(&user);

	if (r == 0)
		r = find_program("postgres", program);
	if (r < 0)
		return r;
	up_join(up->state, "pg", data);
	end_orphans(data);
	snprintf(socket_option, sizeof(socket_option), "unix_socket_directories=%s/pg", up->run);

	/* Opened by us: the server's user cannot create files in the state folder. */
	_cleanup_close_ int fd = open(up_join(up->state, "postgres.log", log),
				      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return up_fail(-errno, "could not open %s: %s", log, strerror(errno));
	spawn.uid = user.pw_uid;
	spawn.gid = user.pw_gid;
	spawn.output_fd = spawn.error_fd = fd;
	r = spawn_start(&spawn, ret_pid);
	return r < 0 ? up_fail(r, "could not start PostgreSQL: %s", strerror(-r)) : 0;
}

/* ---- roles and files ------------------------------------------------------------------------------------
 */

static int connect_as_superuser(const struct up *up, const char *database, PGconn **ret_connection)
{
	_cleanup_free_ char *password = NULL;
	up_path path, host;
	size_t length;
	int r = file_read(up_join(up->state, PASSWORD_FILE, path), 4096, &password, &length);

	if (r < 0)
		return up_fail(r, "could not read %s: %s", path, strerror(-r));

	const char *const keywords[] = {"host", "port", "user", "dbname", "password", "connect_timeout",
					NULL};
	const char *const values[] = {
		up_join(up->run, "pg", host), "5432", "postgres", database, password, "5", NULL};

	*ret_connection = PQconnectdbParams(keywords, values, 0);
	sodium_memzero(password, length);
	return PQstatus(*ret_connection) == CONNECTION_OK ? 0 : -EAGAIN;
}

static int wait_for_server(const struct up *up, pid_t pid, PGconn **ret_connection)
{
	int64_t end = clock_boot_ns() + START_SECONDS * NSEC_PER_SEC;

	for (;;) {
		PGconn *connection = NULL;
		siginfo_t info = {0};
		int r = connect_as_superuser(up, "postgres", &connection);

		if (r == 0) {
			*ret_connection = connection;
			return 0;
		}
		if (r == -EAGAIN && clock_boot_ns() > end)
			r = up_fail(-ETIMEDOUT, "PostgreSQL does not answer: %s", PQerrorMessage(connection));
		PQfinish(connection);
		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
			r = up_fail(-ECHILD, "PostgreSQL ended: see %s/postgres.log", up->state);
		if (r != -EAGAIN)
			return r;
		sleep_ms(20);
	}
}

static int execute(PGconn *connection, const char *sql)
{
	PGresult *result = PQexec(connection, sql);
	ExecStatusType status = PQresultStatus(result);

	PQclear(result);
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return 0;
	return up_fail(-EIO, "PostgreSQL: %s", PQerrorMessage(connection));
}

static bool exists(PGconn *connection, const char *sql, const char *name)
{
	PGresult *result = PQexecParams(connection, sql, 1, NULL, &name, NULL, NULL, 0);
	bool found = PQntuples(result) > 0;

	PQclear(result);
	return found;
}

static const struct {
	const char *role, *file;
	uid_t uid;
} roles[] = {
	{"wiretoll_owner", UP_OWNER_FILE, UP_MIGRATE_UID},
	{"wiretoll_api", UP_API_FILE, UP_API_UID},
	{"wiretoll_deploy", UP_DEPLOY_FILE, 0},
};

/* The server gets the verifier only: the password itself is in no log and no statement. */
static int set_password(PGconn *connection, const char *role, const char *password)
{
	char *verifier = PQencryptPasswordConn(connection, password, role, "scram-sha-256");
	char sql[512];
	int r;

	if (!verifier)
		return up_fail(-EIO, "PostgreSQL: %s", PQerrorMessage(connection));
	snprintf(sql, sizeof(sql), "ALTER ROLE %s LOGIN PASSWORD '%s'", role, verifier);
	PQfreemem(verifier);
	r = execute(connection, sql);
	sodium_memzero(sql, sizeof(sql));
	return r;
}

static int set_up_role(const struct up *up, PGconn *connection, size_t index)
{
	char password[PASSWORD_SIZE], sql[128], text[PATH_MAX + 256];
	const char *role = roles[index].role;
	int r = 0;

	if (!exists(connection, "SELECT FROM pg_roles WHERE rolname = $1", role)) {
		snprintf(sql, sizeof(sql), "CREATE ROLE %s", role);
		r = execute(connection, sql);
	}
	make_password(password);
	if (r == 0)
		r = set_password(connection, role, password);
	snprintf(text, sizeof(text), "host='%s/pg' port=5432 dbname=wiretoll user=%s password=%s\n", up->run,
		 role, password);
	if (r == 0)
		r = write_secret(up, roles[index].file, text, roles[index].uid);
	sodium_memzero(password, sizeof(password));
	sodium_memzero(text, sizeof(text));
	return r;
}

int up_postgres_set_up(const struct up *up, pid_t pid)
{
	PGconn *connection = NULL;
	int r = wait_for_server(up, pid, &connection);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(roles) && r == 0; i++)
		r = set_up_role(up, connection, i);
	if (r == 0 && !exists(connection, "SELECT FROM pg_database WHERE datname = $1", "wiretoll"))
		r = execute(connection, "CREATE DATABASE wiretoll OWNER wiretoll_owner");
	if (r == 0)
		r = execute(connection, "REVOKE ALL ON DATABASE wiretoll FROM PUBLIC");
	if (r == 0)
		r = execute(connection,
			    "GRANT CONNECT ON DATABASE wiretoll TO wiretoll_api, wiretoll_deploy");
	PQfinish(connection);
	return r;
}
