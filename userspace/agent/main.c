// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll-agent: meters and configures one gateway. See docs/agent-protocol.md and docs/netns-driver.md. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/privileges.h"
#include "agent/run.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/log.h"
#include "journal/journal.h"
#include "meter/audit.h"

#define VERSION "0.1.0"

static const char help_text[] =
	"Usage: wiretoll-agent --base DIR --bpf DIR [--journal-size MIB] [--log-level LEVEL]\n"
	"Meters and configures one gateway's WireGuard interface, and reports to the API.\n"
	"\n"
	"  --base DIR         the gateway's folder: bootstrap.json or agent.json, private.key, journal/\n"
	"  --bpf DIR          a folder in a BPF file system, for the meter's pins\n"
	"  --journal-size MIB what BASE/journal may take: 16 to 1048576 (default 256)\n"
	"  --log-level LEVEL  error, warning, info (default) or debug\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 the gateway is deleted, 1 stopped or failed (start it again), 2 wrong usage.\n";

struct options {
	const char *base, *bpf;
	enum log_level level;
	int64_t settle_seconds;
	int64_t journal_mib;
	bool help, version;
};

static int usage_error(const char *message, const char *value)
{
	fprintf(stderr, "wiretoll-agent: %s%s\nTry 'wiretoll-agent --help'.\n", message, value);
	return 2;
}

static int parse_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *ret_number)
{
	char *end, message[96];
	long long number;

	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno || end == text || *end || number < min || number > max) {
		snprintf(message, sizeof(message), "%s is no number from %" PRId64 " to %" PRId64 ": ",
			 option, min, max);
		return usage_error(message, text);
	}
	*ret_number = number;
	return 0;
}

/* Returns 0, or 2 after a message. */
static int parse_options(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{"base", required_argument, NULL, 'b'},
		{"bpf", required_argument, NULL, 'p'},
		{"log-level", required_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{"journal-size", required_argument, NULL, 'j'},
		/* For tests, which cannot wait for what is settled after 100 s. */
		{"settle-seconds", required_argument, NULL, 's'},
		{NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'b':
			options->base = optarg;
			break;
		case 'p':
			options->bpf = optarg;
			break;
		case 'l':
			if (log_level_parse(optarg, &options->level) < 0)
				return usage_error("--log-level is none of error, warning, info, debug: ",
						   optarg);
			break;
		case 's':
			if (parse_number("--settle-seconds", optarg, 1, 3600, &options->settle_seconds) != 0)
				return 2;
			break;
		case 'j':
			if (parse_number("--journal-size", optarg, 16, 1 << 20, &options->journal_mib) != 0)
				return 2;
			break;
		case 'h':
			options->help = true;
			break;
		case 'v':
			options->version = true;
			break;
		default:
			return usage_error("see the accepted options", "");
		}
	}
	if (optind < argc)
		return usage_error("unexpected argument: ", argv[optind]);
	if (!options->help && !options->version && (!options->base || !options->bpf))
		return usage_error("--base DIR and --bpf DIR are required", "");
	return 0;
}

int main(int argc, char **argv)
{
	struct options options = {.level = LOG_LEVEL_INFO,
				  .settle_seconds = AUDIT_SETTLE_SECONDS,
				  .journal_mib = JOURNAL_MAX_BYTES >> 20};
	int status = parse_options(argc, argv, &options);
	int r;

	if (status != 0)
		return status;
	if (options.help) {
		fputs(help_text, stdout);
		return 0;
	}
	if (options.version) {
		puts("wiretoll-agent " VERSION);
		return 0;
	}
	log_setup("wiretoll-agent", options.level);
	umask(077);
	r = guard_memory();
	if (r == 0)
		r = privileges_drop();
	if (r < 0) {
		log_error("could not give up what it does not need: %s", strerror(-r));
		return 1;
	}
	/* One arena: the resolver's threads would otherwise keep one each. */
	mallopt(M_ARENA_MAX, 1);
	if (sodium_init() < 0) {
		log_error("could not initialise the cryptographic library");
		return 1;
	}
	json_wipe_what_is_freed();
	return run_agent(&(struct run_options){.base = options.base,
					       .bpf_folder = options.bpf,
					       .settle_seconds = options.settle_seconds,
					       .journal_bytes = (uint64_t)options.journal_mib << 20});
}
