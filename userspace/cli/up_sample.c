// SPDX-License-Identifier: BSD-2-Clause
/* The child of `wiretoll up --sample` that sets the sample up and keeps it going. */
#include "cli/up_sample.h"

#include "cli/signals.h"
#include "cli/up_sample_parts.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATUS_FAILED  1 /* nothing to try again */
#define STATUS_STOPPED 2 /* it ran; something of it has ended */

struct helpers {
	pid_t wireguard, traffic; /* 0: not running */
};

static void end_helper(pid_t pid, int number)
{
	if (pid <= 0)
		return;
	kill(pid, number);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int set_up(const struct up *up, struct session *session, struct helpers *helpers)
{
	int r;

	sample_say("location, plan, users, VPC and gateway");
	r = sample_login(up, session);
	if (r == 0)
		r = sample_fill(up, session);
	if (r == 0)
		r = sample_await_gateway(session);
	if (r < 0)
		return r;
	sample_say("the gateway is active; a client connects");
	r = sample_connect_client(session, &helpers->wireguard);
	if (r < 0)
		return r;
	r = sample_start_traffic(&helpers->traffic);
	if (r < 0)
		return session_fail(session, r, "could not start the traffic: %s", strerror(-r));
	sample_say("traffic flows between the laptop and the server");
	return sample_print_logins(session);
}

/* Until asked to stop, or until one of the helpers ends. */
static int keep_going(void)
{
	siginfo_t info;

	while (sample_wait(500) == 0) {
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid > 0)
			return STATUS_STOPPED;
	}
	return 0;
}

static int run(const struct up *up)
{
	_cleanup_session_ struct session session = {0};
	struct helpers helpers = {0};
	int status = STATUS_FAILED;
	int r = set_up(up, &session, &helpers);

	if (r == 0)
		status = keep_going();
	else if (r == -EINTR || sample_wait(0) < 0)
		status = 0;
	else
		up_fail(r, "the sample could not be set up: %s", session.problem);
	end_helper(helpers.traffic, SIGKILL);
	end_helper(helpers.wireguard, SIGTERM);
	return status;
}

int up_sample_start(const struct up *up, pid_t *ret_pid)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int status = STATUS_FAILED;

		/* The lock on the state folder is not ours to hold. */
		if (setsid() >= 0 && syscall(SYS_close_range, 3, ~0U, 0) == 0 &&
		    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) == 0 && getppid() == parent)
			status = run(up);
		fflush(stdout);
		_exit(status);
	}
	*ret_pid = pid;
	return 0;
}
