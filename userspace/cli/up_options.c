// SPDX-License-Identifier: BSD-2-Clause
#include "cli/up_options.h"
#include "cli/up_sample_parts.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANY4 "0.0.0.0:"

static const struct option long_options[] = {
	{"state", required_argument, NULL, 's'},  {"run", required_argument, NULL, 'r'},
	{"listen", required_argument, NULL, 'l'}, {"sample", no_argument, NULL, 'e'},
	{"down", no_argument, NULL, 'd'},         {"hypervisor", required_argument, NULL, 'y'},
	{"help", no_argument, NULL, 'h'},         {0},
};

void up_usage(FILE *stream)
{
	fputs("usage: wiretoll up [--state DIR] [--run DIR] [--listen ADDRESS:PORT]… [--hypervisor NAME]… "
	      "[--sample] [--down]\n"
	      "\n"
	      "Runs PostgreSQL, the API and the deployment worker on this host until Ctrl-C; gateways run on "
	      "after it.\n"
	      "\n"
	      "  --state DIR            everything to keep (default /var/lib/wiretoll, with --sample "
	      "/var/lib/wiretoll-sample)\n"
	      "  --run DIR              sockets and mounts, gone at a reboot (default /run/wiretoll, with "
	      "--sample /run/wiretoll-sample)\n"
	      "  --listen ADDRESS:PORT  where the API listens (default 0.0.0.0:8443 and [::]:8443); may be "
	      "repeated, with one port\n"
	      "  --hypervisor NAME      a name of this host in the inventory (default: its host name); may "
	      "be repeated\n"
	      "  --sample               also sample data, a gateway with a client and live traffic, and "
	      "one-time "
	      "tokens to sign in; the end\n"
	      "                         removes all of it, with the state folder if --state was not given or "
	      "did not exist before\n"
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

static int take_option(struct up *up, int option, enum up_action *action)
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
		*action = UP_ACTION_DOWN;
		return 0;
	case 'e':
		up->sample = true;
		return 0;
	case 'h':
		*action = UP_ACTION_HELP;
		return 0;
	default:
		return -EINVAL;
	}
}

static bool listens_everywhere(const struct up *up)
{
	for (size_t i = 0; i < up->n_listen; i++)
		if (strncmp(up->listen[i], ANY4, strlen(ANY4)) == 0)
			return true;
	return false;
}

/* The sample's gateway asks the host's address on its own network. */
static int listen_for_sample(struct up *up)
{
	static char text[32];

	if (!up->sample || listens_everywhere(up))
		return 0;
	snprintf(text, sizeof(text), SAMPLE_HOST "%s", strrchr(up->listen[0], ':'));
	return add_listen(up, text);
}

static int complete(struct up *up)
{
	static char name[HOST_NAME_MAX + 1];
	const char *suffix = up->sample ? "-sample" : "";
	bool everywhere = up->n_listen == 0;
	int r = 0;

	if (everywhere)
		r = add_listen(up, ANY4 "8443");
	if (r == 0 && everywhere && access("/proc/net/if_inet6", F_OK) == 0)
		r = add_listen(up, "[::]:8443");
	if (r == 0)
		r = listen_for_sample(up);
	gethostname(name, sizeof(name) - 1);
	if (up->n_hypervisors == 0)
		up->hypervisors[up->n_hypervisors++] = name;
	up->remove_state = up->sample && (!up->state[0] || access(up->state, F_OK) < 0);
	up->remove_run = up->sample && (!up->run[0] || access(up->run, F_OK) < 0);
	if (!up->state[0])
		snprintf(up->state, sizeof(up->state), "/var/lib/wiretoll%s", suffix);
	if (!up->run[0])
		snprintf(up->run, sizeof(up->run), "/run/wiretoll%s", suffix);
	return r;
}

int up_parse(int argc, char **argv, struct up *up, enum up_action *action)
{
	int option, r = 0;

	optind = 1;
	while (r == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		r = take_option(up, option, action);
	if (r == 0 && optind < argc)
		r = up_fail(-EINVAL, "\"%s\" is not an option", argv[optind]);
	if (r == 0)
		r = complete(up);
	return r;
}
