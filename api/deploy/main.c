// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll-deployd: puts gateways on this host and takes them down, as the queue in the database says. */
#include "base/guard.h"
#include "base/log.h"
#include "deploy/worker.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OPTION_STATE = 1,
	OPTION_RUN,
	OPTION_DATABASE,
	OPTION_HYPERVISOR,
	OPTION_API_PORT,
	OPTION_CA,
	OPTION_AGENT,
	OPTION_LOG_LEVEL,
	OPTION_DESTROY_ALL,
	OPTION_HELP
};

static const struct option long_options[] = {
	{"state", required_argument, NULL, OPTION_STATE},
	{"run", required_argument, NULL, OPTION_RUN},
	{"database-file", required_argument, NULL, OPTION_DATABASE},
	{"hypervisor", required_argument, NULL, OPTION_HYPERVISOR},
	{"api-port", required_argument, NULL, OPTION_API_PORT},
	{"ca-file", required_argument, NULL, OPTION_CA},
	{"agent", required_argument, NULL, OPTION_AGENT},
	{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
	{"destroy-all", no_argument, NULL, OPTION_DESTROY_ALL},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

static void usage(FILE *stream)
{
	fputs("usage: wiretoll-deployd --state DIR --run DIR --database-file FILE --hypervisor NAME…\n"
	      "                        --api-port PORT --ca-file FILE --agent PATH [--log-level LEVEL]\n"
	      "       wiretoll-deployd --state DIR --run DIR --destroy-all\n"
	      "\n"
	      "  --state DIR           where gateways keep keys and journals\n"
	      "  --run DIR             where their mounts and pid files are, below /run\n"
	      "  --database-file FILE  holds the connection string (mode 0600)\n"
	      "  --hypervisor NAME     a name of this host in the inventory; may be repeated\n"
	      "  --api-port PORT       of the API, on this host's addresses on the public bridges\n"
	      "  --ca-file FILE        what agents verify the API's certificate with\n"
	      "  --agent PATH          the program wiretoll-agent\n"
	      "  --log-level LEVEL     error, warning, info (default) or debug\n"
	      "  --destroy-all         take all gateways off this host, keep their keys and journals, and "
	      "exit\n",
	      stream);
}

struct arguments {
	struct worker_options worker;
	enum log_level level;
	bool destroy_all;
	bool help;
};

static int copy_path(char *target, size_t size, const char *path)
{
	if (path[0] != '/' || strlen(path) >= size) {
		fprintf(stderr, "wiretoll-deployd: \"%s\" is not an absolute path of less than %zu bytes\n",
			path, size);
		return -EINVAL;
	}
	snprintf(target, size, "%s", path);
	return 0;
}

static int parse_port(const char *text, uint16_t *ret_port)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || port < 1 || port > 65535) {
		fprintf(stderr, "wiretoll-deployd: --api-port \"%s\" is not a port (1 to 65535)\n", text);
		return -EINVAL;
	}
	*ret_port = (uint16_t)port;
	return 0;
}

static int add_hypervisor(struct worker_options *worker, const char *name)
{
	if (worker->n_hypervisors == WORKER_MAX_HYPERVISORS) {
		fprintf(stderr, "wiretoll-deployd: at most %d times --hypervisor\n", WORKER_MAX_HYPERVISORS);
		return -EINVAL;
	}
	worker->hypervisors[worker->n_hypervisors++] = name;
	return 0;
}

static int take_option(struct arguments *arguments, int option, const char *value)
{
	struct deploy_host *host = &arguments->worker.host;

	switch (option) {
	case OPTION_STATE:
		return copy_path(host->state, sizeof(host->state), value);
	case OPTION_RUN:
		return copy_path(host->run, sizeof(host->run), value);
	case OPTION_DATABASE:
		arguments->worker.database_file = value;
		return 0;
	case OPTION_HYPERVISOR:
		return add_hypervisor(&arguments->worker, value);
	case OPTION_API_PORT:
		return parse_port(value, &host->api_port);
	case OPTION_CA:
		return copy_path(host->ca_file, sizeof(host->ca_file), value);
	case OPTION_AGENT:
		return copy_path(host->agent, sizeof(host->agent), value);
	case OPTION_LOG_LEVEL:
		if (log_level_parse(value, &arguments->level) == 0)
			return 0;
		fprintf(stderr, "wiretoll-deployd: --log-level \"%s\" is not error, warning, info or debug\n",
			value);
		return -EINVAL;
	case OPTION_DESTROY_ALL:
		arguments->destroy_all = true;
		return 0;
	case OPTION_HELP:
		arguments->help = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int check_complete(const struct arguments *arguments)
{
	const struct deploy_host *host = &arguments->worker.host;
	bool complete = host->state[0] && host->run[0];

	if (!arguments->destroy_all)
		complete = complete && arguments->worker.database_file &&
			   arguments->worker.n_hypervisors > 0 && host->api_port && host->ca_file[0] &&
			   host->agent[0];
	if (!complete)
		fputs("wiretoll-deployd: an option is missing\n", stderr);
	return complete ? 0 : -EINVAL;
}

static int parse(int argc, char **argv, struct arguments *arguments)
{
	int option, r = 0;

	while (r == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		r = take_option(arguments, option, optarg);
	if (r == 0 && optind < argc) {
		fprintf(stderr, "wiretoll-deployd: \"%s\" is not an option\n", argv[optind]);
		r = -EINVAL;
	}
	return r < 0 || arguments->help ? r : check_complete(arguments);
}

static void block_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	static struct arguments arguments = {.level = LOG_LEVEL_INFO};
	int r;

	if (parse(argc, argv, &arguments) < 0) {
		usage(stderr);
		return 2;
	}
	if (arguments.help) {
		usage(stdout);
		return 0;
	}
	log_setup("wiretoll-deployd", arguments.level);
	if (geteuid() != 0 || guard_memory() < 0 || sodium_init() < 0) {
		log_error("could not start: needs root, to make namespaces");
		return 1;
	}
	block_signals();
	r = arguments.destroy_all ? worker_destroy_all(&driver_netns, &arguments.worker)
				  : worker_run(&driver_netns, &arguments.worker);
	if (r < 0)
		log_error("could not %s: %s", arguments.destroy_all ? "take all gateways down" : "work",
			  strerror(-r));
	return r < 0 ? 1 : 0;
}
