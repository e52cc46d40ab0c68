// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll-api: the HTTPS API and the billing clock. All of its state is in PostgreSQL. */
#include "base/guard.h"
#include "backup.h"
#include "base/log.h"
#include "init.h"
#include "server.h"
#include "store/migrate.h"
#include "work.h"

#include <errno.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct arguments {
	struct server_settings settings;
	bool new_admin_token, replace;
	const char *file;
};

struct subcommand {
	const char *name;
	const char *usage;
	bool needs_state, needs_database, needs_listen, needs_file;
	int (*run)(const struct arguments *arguments);
};

static int run_serve(const struct arguments *arguments)
{
	return server_run(&arguments->settings);
}

static int run_init(const struct arguments *arguments)
{
	return init_run(arguments->settings.state_folder, arguments->settings.database_file,
			arguments->new_admin_token);
}

/* Migrations give rights to the roles that there are: one that is made later would never have them. */
static int check_roles(struct db *db)
{
	_cleanup_result_ PGresult *row = NULL;
	const char *missing;
	int r = DB_QUERY(db, &row,
			 "SELECT string_agg(name, ', ') AS missing FROM unnest(ARRAY['wiretoll_api', "
			 "'wiretoll_deploy']) name WHERE name NOT IN (SELECT rolname FROM pg_roles)");

	if (r < 0) {
		log_error("could not look for the roles: %s", db_last_error(db)->message);
		return r;
	}
	missing = db_value(row, 0, "missing");
	if (!missing)
		return 0;
	log_error("the database has no role %s: create it before, as what is made now gives it its rights",
		  missing);
	return -ENOENT;
}

static int run_migrate(const struct arguments *arguments)
{
	const char *file = arguments->settings.database_file, *failed = "";
	struct db *db;
	int r;

	r = db_open(file, &db);
	if (r < 0) {
		log_error("could not connect to the database named in %s: %s", file, db_open_reason(r));
		return r;
	}
	r = check_roles(db);
	if (r < 0)
		goto out;
	r = migrate(db, &failed);
	if (r < 0)
		log_error("could not apply migration %s: %s", failed, db_last_error(db)->message);
	else
		log_info("schema %d, %d migrations applied", migrate_latest(), r);
out:
	db_close(db);
	return r < 0 ? r : 0;
}

static int run_backup(const struct arguments *arguments)
{
	return backup_run(arguments->settings.database_file, arguments->file);
}

static int run_restore(const struct arguments *arguments)
{
	return restore_run(arguments->settings.database_file, arguments->file, arguments->replace);
}

static const struct subcommand subcommands[] = {
	{"serve",
	 "--state DIR --database-file FILE --listen ADDRESS:PORT… [--workers N] [--agent-workers N] "
	 "[--queue N] [--connections N] "
	 "[--connections-per-address N] [--connections-per-second N] [--request-seconds N]",
	 true, true, true, false, run_serve},
	{"migrate", "--database-file FILE", false, true, false, false, run_migrate},
	{"init", "--state DIR [--database-file FILE [--new-admin-token]]", true, false, false, false,
	 run_init},
	{"backup", "--database-file FILE TO", false, true, false, true, run_backup},
	{"restore", "--database-file FILE [--replace] FROM", false, true, false, true, run_restore},
};

static const struct option options[] = {
	{"state", required_argument, NULL, 's'},
	{"database-file", required_argument, NULL, 'd'},
	{"listen", required_argument, NULL, 'l'},
	{"workers", required_argument, NULL, 'w'},
	{"agent-workers", required_argument, NULL, 'a'},
	{"queue", required_argument, NULL, 'q'},
	{"connections", required_argument, NULL, 'c'},
	{"connections-per-address", required_argument, NULL, 'p'},
	{"connections-per-second", required_argument, NULL, 'e'},
	{"request-seconds", required_argument, NULL, 't'},
	{"new-admin-token", no_argument, NULL, 'n'},
	{"replace", no_argument, NULL, 'r'},
	{"log-level", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static void print_usage(FILE *out)
{
	fprintf(out, "usage:\n");
	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++)
		fprintf(out, "  wiretoll-api %s %s\n", subcommands[i].name, subcommands[i].usage);
	fprintf(out, "every subcommand takes --log-level error|warning|info|debug and --help\n");
}

static int usage_error(const char *format, const char *value)
{
	fprintf(stderr, "wiretoll-api: ");
	fprintf(stderr, format, value);
	fprintf(stderr, "\n");
	print_usage(stderr);
	return -EINVAL;
}

static int parse_number(const char *name, const char *text, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || value == 0 || value > max) {
		fprintf(stderr, "wiretoll-api: --%s is \"%s\"; accepted is a number from 1 to %u\n", name,
			text, max);
		return -EINVAL;
	}
	*ret = (unsigned)value;
	return 0;
}

static int add_listen(struct server_settings *settings, const char *address)
{
	if (settings->n_listen == MAX_LISTEN)
		return usage_error("--listen \"%s\" is one too many; accepted are 16", address);
	settings->listen[settings->n_listen++] = address;
	return 0;
}

static int take_option(int option, struct arguments *arguments)
{
	struct server_settings *settings = &arguments->settings;
	enum log_level level;

	switch (option) {
	case 's':
		settings->state_folder = optarg;
		return 0;
	case 'd':
		settings->database_file = optarg;
		return 0;
	case 'l':
		return add_listen(settings, optarg);
	case 'w':
		return parse_number("workers", optarg, MAX_WORKERS, &settings->workers);
	case 'a':
		return parse_number("agent-workers", optarg, MAX_WORKERS, &settings->agent_workers);
	case 'q':
		return parse_number("queue", optarg, 65536, &settings->queue);
	case 'c':
		return parse_number("connections", optarg, 65536, &settings->connections);
	case 'p':
		return parse_number("connections-per-address", optarg, 65536,
				    &settings->connections_per_address);
	case 'e':
		return parse_number("connections-per-second", optarg, 65536,
				    &settings->connections_per_second);
	case 't':
		return parse_number("request-seconds", optarg, 3600, &settings->request_seconds);
	case 'n':
		arguments->new_admin_token = true;
		return 0;
	case 'r':
		arguments->replace = true;
		return 0;
	case 'v':
		if (log_level_parse(optarg, &level) < 0)
			return usage_error("--log-level is \"%s\"; accepted are error, warning, info, debug",
					   optarg);
		log_setup("wiretoll-api", level);
		return 0;
	default:
		print_usage(stderr);
		return -EINVAL;
	}
}

static int parse(const struct subcommand *subcommand, int argc, char **argv, struct arguments *arguments)
{
	const struct server_settings *settings = &arguments->settings;
	int option, r;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h') {
			print_usage(stdout);
			exit(EXIT_DONE);
		}
		r = take_option(option, arguments);
		if (r < 0)
			return r;
	}
	if (subcommand->needs_file && optind < argc)
		arguments->file = argv[optind++];
	if (subcommand->needs_file && !arguments->file)
		return usage_error("%s", "the name of the backup's file is required");
	if (optind < argc)
		return usage_error("there is no argument \"%s\"", argv[optind]);
	if (subcommand->needs_state && !settings->state_folder)
		return usage_error("%s", "--state is required");
	if ((subcommand->needs_database || arguments->new_admin_token) && !settings->database_file)
		return usage_error("%s", "--database-file is required");
	if (subcommand->needs_listen && settings->n_listen == 0)
		return usage_error("%s", "--listen is required");
	return 0;
}

static const struct subcommand *find_subcommand(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++) {
		if (strcmp(subcommands[i].name, name) == 0)
			return &subcommands[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct arguments arguments = {.settings = {.workers = 8,
						   .agent_workers = 4,
						   .queue = 256,
						   .connections = 1000,
						   .connections_per_second = 20,
						   .request_seconds = 30}};
	const struct subcommand *subcommand = argc > 1 ? find_subcommand(argv[1]) : NULL;

	log_setup("wiretoll-api", LOG_LEVEL_INFO);
	if (!subcommand) {
		bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0);

		print_usage(help ? stdout : stderr);
		return help ? EXIT_DONE : EXIT_USAGE;
	}
	if (parse(subcommand, argc - 1, argv + 1, &arguments) < 0)
		return EXIT_USAGE;
	umask(077);
	if (guard_memory() < 0 || sodium_init() < 0) {
		log_error("could not keep secrets out of core dumps, or not initialise libsodium");
		return EXIT_FAILED;
	}
	return subcommand->run(&arguments) < 0 ? EXIT_FAILED : EXIT_DONE;
}
