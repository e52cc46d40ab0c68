// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll: the command line. */
#include "cli/commands.h"

int main(int argc, char **argv)
{
	return cli_run(argc, argv);
}
