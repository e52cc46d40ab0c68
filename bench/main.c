// SPDX-License-Identifier: BSD-2-Clause
/* bench PART [--family 4|6] [--scattered] [--peers N] [--rounds N] [--milliseconds N] [--loads N --earlier
 * FILE
 * --now FILE [--or FILE]]: run.py calls it. */
#include "bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct {
	const char *name;
	void (*run)(const struct bench_options *options);
} parts[] = {
	{"cost", bench_cost},     {"contend", bench_contend}, {"forward", bench_forward},
	{"scrape", bench_scrape}, {"credit", bench_credit},   {"tunnel", bench_tunnel},
	{"polls", bench_polls},   {"lengths", bench_lengths},
};

static const struct option known[] = {
	{"family", required_argument, NULL, 'f'},       {"scattered", no_argument, NULL, 's'},
	{"peers", required_argument, NULL, 'p'},        {"rounds", required_argument, NULL, 'r'},
	{"milliseconds", required_argument, NULL, 'm'}, {"earlier", required_argument, NULL, 'e'},
	{"now", required_argument, NULL, 'n'},          {"or", required_argument, NULL, 'o'},
	{"loads", required_argument, NULL, 'l'},        {NULL, 0, NULL, 0},
};

static uint32_t number(const char *text, uint32_t highest)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value < 1 || value > highest)
		fail("%s: a number from 1 to %u is wanted", text, highest);
	return (uint32_t)value;
}

static struct bench_options parse(int argc, char **argv)
{
	struct bench_options options = {.family = AF_INET,
					.dense = true,
					.peers = 1000,
					.rounds = 5,
					.milliseconds = 500,
					.loads = 4};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'f':
			options.family = number(optarg, 6) == 6 ? AF_INET6 : AF_INET;
			break;
		case 's':
			options.dense = false;
			break;
		case 'p':
			options.peers = number(optarg, 100000);
			break;
		case 'r':
			options.rounds = number(optarg, 10000);
			break;
		case 'm':
			options.milliseconds = number(optarg, 60000);
			break;
		case 'e':
			options.builds[0] = optarg;
			break;
		case 'n':
			options.builds[1] = optarg;
			break;
		case 'o':
			options.fallback = optarg;
			break;
		case 'l':
			options.loads = number(optarg, 1000);
			break;
		default:
			exit(2);
		}
	}
	return options;
}

int main(int argc, char **argv)
{
	struct bench_options options = parse(argc, argv);

	for (size_t i = 0; optind < argc && i < ARRAY_SIZE(parts); i++)
		if (strcmp(argv[optind], parts[i].name) == 0) {
			parts[i].run(&options);
			return 0;
		}
	fputs("bench: usage: bench cost|contend|forward|scrape|credit|tunnel|polls|lengths [OPTIONS]\n",
	      stderr);
	return 2;
}
