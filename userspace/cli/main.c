// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll: the command line. */
#include "base/guard.h"
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	int r = guard_memory();

	if (r < 0) {
		fprintf(stderr, "wiretoll: could not keep tokens out of core dumps: %s\n", strerror(-r));
		return 1;
	}
	return cli_run(argc, argv);
}
