// SPDX-License-Identifier: BSD-2-Clause
#include "agent/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/privileges.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"

#define DEVICE_POLL_NS (20 * 1000000LL)
/* Polls after which the log says what is waited for: 2 s. */
#define DEVICE_POLLS_TOLD 100

static int fail(const char *what, int error)
{
	log_error("could not %s: %s", what, strerror(-error));
	return error;
}

static void on_signal(void *data, int result)
{
	struct agent *agent = data;
	struct signalfd_siginfo info;

	(void)result;
	while (read(agent->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		log_info("stopping: signal %u", info.ssi_signo);
		leave_stopped(agent);
	}
}

static int watch_signals(struct agent *agent)
{
	sigset_t set;
	loop_tag tag;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	agent->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (agent->signal_fd < 0)
		return -errno;
	return loop_watch(agent->loop, agent->signal_fd, on_signal, agent, &tag);
}

static void on_link(const char *interface, int ifindex, bool deleted, void *data)
{
	struct agent *agent = data;

	if (!deleted || ifindex != agent->ifindex || agent->leaving == LEAVING_GONE)
		return;
	/* The next start finds the epoch's device gone, seals it, and waits for the new one. */
	log_error("the interface %s is gone: starting over", interface);
	agent_exit(agent, 1);
}

static void on_link_readable(void *data, int result)
{
	struct agent *agent = data;
	int r = net_watch_dispatch(agent->link_watch, on_link, agent);

	(void)result;
	if (r < 0 && r != -EAGAIN)
		log_warning("could not read link changes: %s", strerror(-r));
}

static void try_device(void *data, int result)
{
	struct agent *agent = data;
	int r = start_device(agent);
	loop_tag tag;

	(void)result;
	if (r == -ENODEV || r == -ENOENT || r == -ECONNREFUSED) {
		if (++agent->start_failures == DEVICE_POLLS_TOLD)
			log_warning("waiting for the WireGuard device %s", agent->config.interface);
		r = loop_at_boot(agent->loop, clock_boot_ns() + DEVICE_POLL_NS, try_device, agent, &tag);
		if (r == 0)
			return;
	}
	if (r < 0) {
		fail("open the WireGuard device", r);
		agent_exit(agent, 1);
		return;
	}
	log_info("%s is there (%s)", agent->config.interface, wg_kind(agent->wg));
	r = start_meter(agent);
	if (r < 0) {
		fail("start the meter; the interface stays as it is", r);
		agent_exit(agent, 1);
		return;
	}
	service_begin(agent);
}

static void begin_device(struct agent *agent)
{
	try_device(agent, 0);
}

static int open_files(struct agent *agent, uint64_t journal_bytes)
{
	struct json_problem problem = {.message = "?"};
	char journal[PATH_MAX];
	int r = config_load(agent->base, &agent->config, &problem);

	if (r < 0) {
		log_error("could not read bootstrap.json or agent.json in %s: %s", agent->base,
			  r == -EINVAL ? problem.message : strerror(-r));
		return r;
	}
	r = config_private_key(agent->base, &agent->private_key);
	if (r == 0)
		r = key_public(&agent->private_key, &agent->public_key);
	if (r < 0)
		return fail("read or make the private key", r);
	snprintf(journal, sizeof(journal), "%s/journal", agent->base);
	r = journal_open(&(struct journal_options){.folder = journal, .max_bytes = journal_bytes},
			 &agent->journal);
	if (r < 0)
		return fail("open the journal", r);
	r = samples_open(agent);
	if (r < 0)
		return fail("open the journal of samples", r);
	refill_load(agent);
	r = endpoints_load(agent->base, &agent->endpoints);
	return r < 0 ? fail("read endpoints.json", r) : 0;
}

static int open_network(struct agent *agent)
{
	loop_tag tag;
	int r = net_open(&agent->net);

	if (r == 0)
		r = net_watch_open(&agent->link_watch);
	if (r == 0)
		r = loop_watch(agent->loop, net_watch_fd(agent->link_watch), on_link_readable, agent, &tag);
	return r < 0 ? fail("open netlink", r) : 0;
}

static void tell_manager(void)
{
	int r = notify_manager("READY=1");

	if (r < 0)
		log_warning("could not tell the service manager: %s", strerror(-r));
}

static int close_firewall(struct agent *agent)
{
	char error[256] = "";
	int r = network_close(agent, error, sizeof(error));

	if (r < 0)
		log_error("could not close the firewall: %s", error[0] ? error : strerror(-r));
	return r;
}

static int open_loop(struct agent *agent)
{
	int r = loop_open(&agent->loop);

	if (r < 0)
		return fail("set up io_uring", r);
	r = watch_signals(agent);
	if (r == 0)
		r = resolve_open(agent);
	if (r == 0)
		r = http_open(agent->loop, agent->config.ca_pem, &agent->http);
	if (r == 0)
		r = http_set_token(agent->http, agent->config.token);
	if (r == 0)
		r = privileges_filter();
	return r < 0 ? fail("set up the event loop", r) : 0;
}

static int lock_base(const char *base)
{
	int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		log_error("could not open %s: %s", base, strerror(errno));
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		log_error("could not lock %s: another agent is at work there", base);
		close(fd);
		return -1;
	}
	return fd;
}

static void close_all(struct agent *agent)
{
	http_close(agent->http);
	loop_close(agent->loop);
	if (agent->journal && journal_flush(agent->journal) < 0)
		log_warning("could not write the last acknowledgement; it is asked for again");
	journal_close(agent->journal);
	samples_close(agent);
	meter_close(agent->epoch.meter);
	wg_close(agent->wg);
	net_close(agent->link_watch);
	net_close(agent->net);
	slots_free(&agent->epoch.slots);
	table_free(&agent->epoch.table);
	endpoints_free(&agent->endpoints);
	endpoints_free(&agent->resolved);
	desired_free(agent->desired);
	json_decref(agent->cannot_apply);
	free(agent->uplink.pending);
	free(agent->uplink.payload);
	batch_list_free(&agent->epoch.report.writing);
	wg_device_free(agent->epoch.reconcile.begin_device);
	config_free(&agent->config);
	key_wipe(&agent->private_key);
	if (agent->signal_fd >= 0)
		close(agent->signal_fd);
	if (agent->clock_fd >= 0)
		close(agent->clock_fd);
}

int run_agent(const struct run_options *options)
{
	char pin_folder[PATH_MAX];
	struct agent agent = {.base = options->base,
			      .pin_folder = pin_folder,
			      .settle_ns = options->settle_seconds * NSEC_PER_SEC,
			      .signal_fd = -1,
			      .clock_fd = -1,
			      .resolver_pipe = {-1, -1},
			      .exit_status = 1};
	_cleanup_close_ int lock = lock_base(options->base);
	int r;

	if (lock < 0)
		return 1;
	snprintf(pin_folder, sizeof(pin_folder), "%s/meter", options->bpf_folder);
	r = open_files(&agent, options->journal_bytes);
	if (r == 0)
		r = open_loop(&agent);
	if (r == 0)
		r = open_network(&agent);
	if (r == 0)
		r = close_firewall(&agent);
	if (r == 0) {
		if (agent.config.token)
			begin_device(&agent);
		else
			enroll_begin(&agent, begin_device);
		tell_manager();
		r = loop_run(agent.loop);
		if (r < 0)
			fail("wait for events", r);
	}
	close_all(&agent);
	return r < 0 ? 1 : agent.exit_status;
}
