// SPDX-License-Identifier: BSD-2-Clause
/* Errors, commands, clocks and samples. */
#include "bench.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("bench: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

void shell(const char *format, ...)
{
	char command[2048];
	va_list arguments;

	va_start(arguments, format);
	if (vsnprintf(command, sizeof(command), format, arguments) >= (int)sizeof(command))
		fail("this command is too long: %.60s", command);
	va_end(arguments);
	if (system(command) != 0)
		fail("this command failed: %s", command);
}

void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("cannot run on CPU %d", cpu);
}

static double clock_time(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

double thread_time(void)
{
	return clock_time(CLOCK_THREAD_CPUTIME_ID);
}

double wall_time(void)
{
	return clock_time(CLOCK_MONOTONIC);
}

/* The same numbers in every run (xorshift64). */
uint64_t random_number(void)
{
	static uint64_t state = 0x9e3779b97f4a7c15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

uint32_t in_turn(uint32_t round, uint32_t i, uint32_t count)
{
	return round & 1 ? count - 1 - i : i;
}

void series_add(struct series *series, double value)
{
	if (series->count == series->room) {
		series->room = series->room ? series->room * 2 : 16;
		series->values = realloc(series->values, series->room * sizeof(double));
		if (!series->values)
			fail("out of memory");
	}
	series->values[series->count++] = value;
}

void series_print(struct series *series, const char *unit, const char *name, ...)
{
	va_list arguments;

	fputs("{\"series\": \"", stdout);
	va_start(arguments, name);
	vprintf(name, arguments);
	va_end(arguments);
	printf("\", \"unit\": \"%s\", \"values\": [", unit);
	for (size_t i = 0; i < series->count; i++)
		printf("%s%.4f", i ? ", " : "", series->values[i]);
	puts("]}");
	fflush(stdout);
	free(series->values);
	series->values = NULL;
	series->count = series->room = 0;
}
