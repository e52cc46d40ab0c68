// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/task.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE (60 * NSEC_PER_SEC)

enum { EXIT_DONE, EXIT_FAILED, EXIT_TRANSIENT };

void task_kill(struct task *task)
{
	/* The whole group: the call may be waiting for a program of its own. */
	if (task->pidfd >= 0)
		kill(-task->pid, SIGKILL);
}

static void collect_end(struct task *task, siginfo_t *ret_info)
{
	while (waitid(P_PIDFD, (id_t)task->pidfd, ret_info, WEXITED) < 0 && errno == EINTR)
		;
	close(TAKE_FD(task->pidfd));
	close(TAKE_FD(task->progress_fd));
}

void task_free(struct task *task)
{
	siginfo_t info;

	if (task->pidfd >= 0) {
		task_kill(task);
		collect_end(task, &info);
	}
	queue_job_clear(&task->job);
	json_decref(task->refused);
	free(task);
}

/* What may be otherwise in a moment; all else needs somebody to change something. */
static bool is_transient(int error)
{
	return error == -EAGAIN || error == -EBUSY || error == -ENOMEM || error == -ETIMEDOUT ||
	       error == -EIO || error == -EINTR;
}

static int call(const struct task *task, const struct deploy_driver *driver, const struct deploy_host *host,
		const struct deploy_spec *spec, const char *token, int progress_fd)
{
	struct deploy_progress progress = {.fd = progress_fd};

	switch (task->kind) {
	case TASK_DEPLOY:
		return driver->deploy(host, spec, token, &progress);
	case TASK_DESTROY:
		return driver->destroy(host, task->job.gateway, task->forget, &progress);
	case TASK_ROUTES:
		return driver->routes(host, spec, &progress);
	case TASK_LOGS:
		return driver->rotate_logs(host, task->job.gateway, &progress);
	case TASK_TRASH:
		return driver->empty_trash(host, &progress);
	case TASK_RESTORE:
		return driver->restore(host, &progress);
	case TASK_KINDS:
		break;
	}
	return -EINVAL;
}

static void enter_child(void)
{
	sigset_t none;

	setpgid(0, 0);
	/* Nobody would read the result: the next worker begins the job anew. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int task_start(struct task *task, const struct deploy_driver *driver, const struct deploy_host *host,
	       const struct deploy_spec *spec, const char *token)
{
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		enter_child();
		r = call(task, driver, host, spec, token, fds[1]);
		_exit(r == 0 ? EXIT_DONE : is_transient(r) ? EXIT_TRANSIENT : EXIT_FAILED);
	}
	r = pid < 0 ? -errno : 0;
	close(fds[1]);
	if (r < 0) {
		close(fds[0]);
		return r;
	}
	/* In both processes, whichever comes first. */
	setpgid(pid, pid);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	task->pid = pid;
	task->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	task->progress_fd = fds[0];
	task->deadline_ns = clock_boot_ns() + DEADLINE;
	return 0;
}

static void note_refused(struct task *task)
{
	if (!task->refused)
		task->refused = json_array();
	if (json_array_size(task->refused) < QUEUE_REFUSED_MAX &&
	    json_array_append_new(task->refused, json_loads(task->line + 1, 0, NULL)) < 0)
		return; /* not whole, or no memory */
}

static void take_line(struct task *task, task_step_fn on_step, void *data)
{
	task->line[task->line_length] = '\0';
	task->line_length = 0;
	if (task->line[0] == 'E') {
		snprintf(task->error, sizeof(task->error), "%.500s", task->line + 1);
	} else if (task->line[0] == 'R') {
		note_refused(task);
	} else if (task->line[0] == 'S') {
		snprintf(task->step, sizeof(task->step), "%.60s", task->line + 1);
		on_step(task, task->step, data);
	}
}

void task_read(struct task *task, task_step_fn on_step, void *data)
{
	char buffer[1024];
	ssize_t got;

	while (task->progress_fd >= 0 && (got = read(task->progress_fd, buffer, sizeof(buffer))) > 0)
		for (ssize_t i = 0; i < got; i++) {
			if (buffer[i] == '\n')
				take_line(task, on_step, data);
			else if (task->line_length < sizeof(task->line) - 1)
				task->line[task->line_length++] = buffer[i];
		}
}

static void take_result(struct task *task, const siginfo_t *info)
{
	int status = info->si_code == CLD_EXITED ? info->si_status : EXIT_TRANSIENT;

	task->done = true;
	task->failed = status != EXIT_DONE;
	task->transient = status == EXIT_TRANSIENT;
	if (!task->failed || task->error[0])
		return;
	if (info->si_code != CLD_EXITED)
		snprintf(task->error, sizeof(task->error), "\"%s\" took too long or crashed (signal %d)",
			 task->step, info->si_status);
	else
		snprintf(task->error, sizeof(task->error), "\"%s\" failed", task->step);
}

bool task_check_end(struct task *task, task_step_fn on_step, void *data)
{
	struct pollfd ended = {.fd = task->pidfd, .events = POLLIN};
	siginfo_t info = {0};

	if (clock_boot_ns() > task->deadline_ns)
		task_kill(task);
	if (poll(&ended, 1, 0) <= 0)
		return false;
	task_read(task, on_step, data);
	collect_end(task, &info);
	take_result(task, &info);
	return true;
}
