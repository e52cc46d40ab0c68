// SPDX-License-Identifier: BSD-2-Clause
#include "cli/signals.h"

#include <errno.h>
#include <sys/signalfd.h>

sigset_t signals_that_end(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	return signals;
}

int signals_open(bool children, int *ret_fd)
{
	sigset_t signals = signals_that_end();
	int fd;

	if (children)
		sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}
