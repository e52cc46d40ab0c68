// SPDX-License-Identifier: BSD-2-Clause
#include "backup.h"

#include "base/file.h"
#include "base/log.h"
#include "base/spawn.h"
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The API serves no database without its schema's version: it is brought back last, when all else is done. */
#define VERSION_TABLE "gateway schema_migration"

#define PROGRESS_NS (200 * 1000 * 1000L)

#define LOOKS_FOR_SESSIONS 16 /* for 3 s */

/*
 * Where the connection file says that the database is, as libpq's environment variables: arguments can be
 * seen by everybody on the machine, the environment by our own user only.
 */
static int export_connection(const char *database_file)
{
	char *text = NULL, *why = NULL;
	PQconninfoOption *options;
	size_t length = 0;
	int r = file_read(database_file, 8192, &text, &length);

	if (r < 0) {
		log_error("could not read %s: %s", database_file, strerror(-r));
		return r;
	}
	text[strcspn(text, "\r\n")] = '\0';
	options = PQconninfoParse(text, &why);
	sodium_memzero(text, length);
	free(text);
	PQfreemem(why); /* it would quote the text */
	if (!options) {
		log_error("%s is not a libpq connection string", database_file);
		return -EINVAL;
	}
	for (PQconninfoOption *option = options; option->keyword; option++) {
		if (option->val && option->envvar && setenv(option->envvar, option->val, 1) != 0)
			r = -errno;
		if (option->val)
			sodium_memzero(option->val, strlen(option->val));
	}
	PQconninfoFree(options);
	return r;
}

static void say_size(const char *what, int fd)
{
	struct stat status;

	if (fstat(fd, &status) == 0)
		fprintf(stderr, "\r%s: %jd kB", what, (intmax_t)status.st_size / 1000);
}

/* Waits for the program; on a terminal it says meanwhile how much of the file there is. */
static int wait_for(const char *name, pid_t pid, const char *what, int fd)
{
	const struct timespec pause = {.tv_nsec = PROGRESS_NS};
	const bool tell = fd >= 0 && isatty(STDERR_FILENO);
	int status;
	pid_t ended;

	while ((ended = waitpid(pid, &status, tell ? WNOHANG : 0)) == 0 || (ended < 0 && errno == EINTR)) {
		say_size(what, fd);
		nanosleep(&pause, NULL);
	}
	if (tell)
		fputc('\n', stderr);
	if (ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	log_error("%s failed; it said why above", name);
	return -EIO;
}

/* Its messages go to our standard error. */
static int run(const char *const *argv, const char *what, int input, int output)
{
	const struct spawn spawn = {
		.argv = argv,
		.input_fd = input,
		.output_fd = output,
		.error_fd = STDERR_FILENO,
		.output = "/dev/null",
		.parent_death_signal = SIGTERM,
	};
	pid_t pid;
	int r = spawn_start(&spawn, &pid);

	if (r < 0) {
		log_error("could not start %s (Debian: postgresql-client): %s", argv[0], strerror(-r));
		return r;
	}
	return wait_for(argv[0], pid, what, output);
}

static int sync_folder(const char *file)
{
	_cleanup_free_ char *folder = strdup(file);
	_cleanup_close_ int fd = -1;
	char *slash = folder ? strrchr(folder, '/') : NULL;

	if (!folder)
		return -ENOMEM;
	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) != 0 ? -errno : 0;
}

/* The file has its name when it is whole and on the disk. */
static int finish_file(int fd, const char *part, const char *file)
{
	int r = fsync(fd) == 0 && link(part, file) == 0 ? 0 : -errno;

	if (r == 0)
		r = sync_folder(file);
	if (r < 0)
		log_error("could not write %s: %s", file, strerror(-r));
	return r;
}

int backup_run(const char *database_file, const char *file)
{
	static const char *const argv[] = {"pg_dump", "--format=custom", "--schema=gateway",
					   "--schema=billing", NULL};
	_cleanup_close_ int fd = -1;
	char part[PATH_MAX];
	struct stat status;
	int r;

	if (snprintf(part, sizeof(part), "%s.XXXXXX", file) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	if (lstat(file, &status) == 0) {
		log_error("%s is there already: accepted is the name of a new file", file);
		return -EEXIST;
	}
	fd = mkostemp(part, O_CLOEXEC); /* 0600, and nobody else's */
	if (fd < 0) {
		r = -errno;
		log_error("could not create %s: %s", part, strerror(-r));
		return r;
	}
	r = export_connection(database_file);
	if (r == 0)
		r = run(argv, "saved", 0, fd);
	if (r == 0)
		r = finish_file(fd, part, file);
	unlink(part);
	if (r == 0 && fstat(fd, &status) == 0)
		log_info("saved %jd bytes to %s; the sealing key and the certificates are in the state "
			 "folder, not in it",
			 (intmax_t)status.st_size, file);
	return r;
}

static int count_sessions(struct db *db, int *ret_n)
{
	_cleanup_result_ PGresult *found = NULL;
	int r = DB_QUERY(db, &found,
			 "SELECT FROM pg_stat_activity WHERE datname = current_database() "
			 "AND usename IN ('wiretoll_api', 'wiretoll_deploy')");

	if (r < 0)
		return r;
	*ret_n = PQntuples(found);
	return 0;
}

/*
 * Who is connected would go on in the middle of it, give out numbers of the past, and lose its temporary
 * tables. PostgreSQL ends a session a moment after its process has ended.
 */
static int check_nobody_is_there(struct db *db)
{
	const struct timespec pause = {.tv_nsec = PROGRESS_NS};
	int n = 0, r;

	for (int look = 0; look < LOOKS_FOR_SESSIONS; look++) {
		if (look > 0)
			nanosleep(&pause, NULL);
		r = count_sessions(db, &n);
		if (r < 0 || n == 0)
			return r;
	}
	log_error("%d sessions of wiretoll_api and wiretoll_deploy are connected to the database: stop the "
		  "API and the deployment workers first",
		  n);
	return -EBUSY;
}

/* Whether there is nothing that a restore would meet; or makes it so. */
static int make_room(struct db *db, bool replace)
{
	_cleanup_result_ PGresult *found = NULL;
	int r = DB_QUERY(db, &found, "SELECT FROM pg_namespace WHERE nspname IN ('gateway', 'billing')");

	if (r < 0)
		return r;
	if (PQntuples(found) > 0 && !replace) {
		log_error("the database is not empty: restore into a new one, or say --replace to lose what "
			  "is in it");
		return -ENOTEMPTY;
	}
	r = check_nobody_is_there(db);
	if (r < 0)
		return r;
	r = DB_EXECUTE(db, "DROP SCHEMA IF EXISTS gateway, billing CASCADE");
	if (r >= 0)
		r = DB_EXECUTE(db, "CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public");
	return r < 0 ? r : 0;
}

/* The archive's table of contents without the version's rows, as a temporary file that is open and has no
 * name. */
static int list_contents(int archive, int *ret_fd)
{
	static const char *const argv[] = {"pg_restore", "--list", NULL};
	_cleanup_close_ int all = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	_cleanup_close_ int chosen = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	FILE *in = NULL;
	char *line = NULL;
	size_t size = 0;
	int r = all < 0 || chosen < 0 ? -errno : run(argv, "listed", archive, all);

	if (r == 0 && lseek(all, 0, SEEK_SET) == 0)
		in = fdopen(dup(all), "r");
	while (r == 0 && in && getline(&line, &size, in) > 0) {
		if (!strstr(line, " TABLE DATA " VERSION_TABLE " "))
			r = file_write_all(chosen, line, strlen(line));
	}
	free(line);
	if (!in || fclose(in) != 0)
		r = r < 0 ? r : -EIO;
	if (r == 0)
		*ret_fd = TAKE_FD(chosen);
	return r;
}

static int restore_all(int archive, int contents)
{
	char list[64];
	const char *const argv[] = {"pg_restore",           "--dbname=",       "--no-owner", "--no-comments",
				    "--single-transaction", "--exit-on-error", list,         NULL};

	snprintf(list, sizeof(list), "--use-list=/proc/%d/fd/%d", getpid(), contents);
	return run(argv, "restored", archive, 0);
}

static int restore_version(int archive)
{
	static const char *const argv[] = {
		"pg_restore",      "--dbname=", "--data-only", "--schema=gateway", "--table=schema_migration",
		"--exit-on-error", NULL};

	return run(argv, "restored", archive, 0);
}

/* What is restored is of the past: see billing.note_restored(). */
static int note_restored(struct db *db)
{
	_cleanup_result_ PGresult *row = NULL;
	int r = DB_QUERY(db, &row,
			 "SELECT number, billing.rfc3339(taken) AS taken FROM billing.note_restored()");

	if (r == 0)
		log_info("restored what was there at %s; agents fill in what they have reported since "
			 "(restoration %s)",
			 db_value(row, 0, "taken"), db_value(row, 0, "number"));
	return r;
}

static int restore_from(struct db *db, int archive, bool replace)
{
	_cleanup_close_ int contents = -1;
	int r = list_contents(archive, &contents);

	if (r == 0)
		r = make_room(db, replace);
	if (r == 0 && lseek(archive, 0, SEEK_SET) == 0)
		r = restore_all(archive, contents);
	if (r == 0)
		r = note_restored(db);
	if (r == 0 && lseek(archive, 0, SEEK_SET) == 0)
		r = restore_version(archive);
	return r;
}

int restore_run(const char *database_file, const char *file, bool replace)
{
	_cleanup_close_ int archive = open(file, O_RDONLY | O_CLOEXEC);
	struct db *db;
	int r;

	if (archive < 0) {
		r = -errno;
		log_error("could not open %s: %s", file, strerror(-r));
		return r;
	}
	r = db_open(database_file, &db);
	if (r < 0) {
		log_error("could not connect to the database named in %s: %s", database_file,
			  db_open_reason(r));
		return r;
	}
	r = export_connection(database_file);
	if (r == 0)
		r = restore_from(db, archive, replace);
	if (r < 0 && db_last_error(db)->message[0])
		log_error("could not restore %s: %s", file, db_last_error(db)->message);
	db_close(db);
	return r;
}
