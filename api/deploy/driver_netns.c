// SPDX-License-Identifier: BSD-2-Clause
/*
 * Gateways as network namespaces of this host; see docs/netns-driver.md. Each step of deploy() and destroy()
 * looks at what is there and does what is missing, so that either may follow any crash of the other.
 */
#include "base/clock.h"
#include "base/ip.h"
#include "base/spawn.h"
#include "base/syscalls.h"
#include "deploy/bootstrap.h"
#include "deploy/folder.h"
#include "deploy/guard.h"
#include "deploy/links.h"
#include "deploy/logs.h"
#include "deploy/namespace.h"
#include "deploy/occupants.h"
#include "deploy/record.h"
#include "deploy/routes.h"
#include "deploy/users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGENT_PATIENCE_MS  3000 /* for its last sample and report */
#define KILL_PATIENCE_MS   10000
#define OTHER_PATIENCE_MS  500
#define REMOVE_PATIENCE_MS 3000  /* of a gateway's folder; what is left then goes in the background */
#define TRASH_PATIENCE_MS  40000 /* less than a task's deadline */

#define MAX_PROCESSES 512 /* of a gateway, threads included: it shares the host's process table */

#define WIREGUARD_CAPABILITIES (1ULL << CAP_NET_ADMIN)
#define AGENT_CAPABILITIES     (1ULL << CAP_NET_ADMIN | 1ULL << CAP_BPF | 1ULL << CAP_PERFMON)

static void gateways_folder(const char *parent, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/gw", parent);
}

static void state_folder(const struct deploy_host *host, const char *name, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s", host->state, name);
}

static uid_t uid_of(const struct deploy_host *host, const struct deploy_spec *spec)
{
	return host->first_uid + spec->uid_number;
}

/* In a namespace that goes with the probing process. */
static bool probe_kernel_wireguard(void)
{
	int status = 1;
	pid_t pid = fork();

	if (pid == 0) {
		struct ip_batch batch = {0};
		char error[256];

		ip_batch_add(&batch, "link add wtprobe type wireguard");
		if (unshare(CLONE_NEWNET) < 0)
			_exit(1);
		_exit(ip_batch_run(&batch, NULL, error, sizeof(error)) == 0 ? 0 : 1);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && status == 0;
}

static int make_state(struct deploy_host *host)
{
	static const char *const roots_own[] = {"log", "token", "trash"};
	char path[PATH_MAX];
	int r;

	gateways_folder(host->state, path);
	r = folder_make(path, 0, 0711);
	for (size_t i = 0; i < ARRAY_SIZE(roots_own) && r == 0; i++) {
		state_folder(host, roots_own[i], path);
		r = folder_make(path, 0, 0700);
	}
	return r == 0 ? users_first(host->state, &host->first_uid) : r;
}

static int netns_setup(struct deploy_host *host)
{
	char path[PATH_MAX];
	int r = make_state(host);

	if (r < 0)
		return r;
	gateways_folder(host->run, path);
	r = folder_make(path, 0, 0711);
	if (r == 0)
		r = namespace_make_private(path);
	if (r == 0)
		r = folder_make(PATHS_NETNS_FOLDER, 0, 0755);
	if (r == 0)
		r = namespace_hold_names(PATHS_NETNS_FOLDER);
	if (r == 0)
		host->kernel_wireguard = probe_kernel_wireguard();
	return r;
}

static void netns_teardown(const struct deploy_host *host)
{
	char path[PATH_MAX];

	namespace_release_names(PATHS_NETNS_FOLDER);
	gateways_folder(host->run, path);
	/* Fails, as it should, while a gateway's mounts are below it. */
	if (umount2(path, 0) < 0)
		return;
	rmdir(path);
	guard_remove();
}

static bool netns_needs_token(const struct deploy_host *host, const struct deploy_spec *spec)
{
	_cleanup_record_ struct deploy_record record = {0};
	struct gateway_paths paths;

	gateway_paths(host, spec->gateway, &paths);
	/* The record goes at a reboot, the agent's identity stays. */
	if (record_read(host, spec->gateway, &record) == 0 && record.spec->attempt != spec->attempt)
		return true;
	/* Whether it is there: what it is may be anything. */
	return faccessat(AT_FDCWD, paths.identity, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	       !bootstrap_is_valid(paths.token, spec->attempt);
}

/* ---- destroy --------------------------------------------------------------------------------------------
 */

static int end_processes(const struct gateway_paths *paths, uid_t uid, const char *netns_pin)
{
	char pid_file[PATH_MAX + 64];
	int r = 0;
	pid_t pid;

	/* The agent first: its last sample needs the device. */
	snprintf(pid_file, sizeof(pid_file), "%s/agent.pid", paths->run);
	if (spawn_find(pid_file, &pid) == 0)
		r = occupant_end(pid, AGENT_PATIENCE_MS);
	if (r == 0)
		r = occupants_kill_user(uid, KILL_PATIENCE_MS);
	return r == 0 ? occupants_end(netns_pin, OTHER_PATIENCE_MS) : r;
}

static int take_down(const struct deploy_host *host, const struct deploy_spec *spec,
		     const struct gateway_paths *paths, struct deploy_progress *progress)
{
	char name[32], pin[PATH_MAX], error[400];
	int r;

	netns_name(spec, name);
	netns_path(name, pin);
	progress_step(progress, "removing routes");
	r = routes_sync(spec, true, NULL, NULL, error, sizeof(error));
	if (r < 0)
		return progress_fail(progress, r, "%s", error);
	progress_step(progress, "ending processes");
	r = end_processes(paths, uid_of(host, spec), pin);
	if (r < 0)
		return progress_fail(progress, r, "could not end the processes in %s: %s", name,
				     strerror(-r));
	progress_step(progress, "removing links");
	r = links_disconnect(spec, error, sizeof(error));
	if (r < 0)
		return progress_fail(progress, r, "%s", error);
	progress_step(progress, "removing namespaces");
	r = namespace_unmount(paths->mount);
	if (r == 0)
		r = namespace_unmount(paths->bpf);
	if (r == 0)
		r = namespace_unmount(pin);
	return r < 0 ? progress_fail(progress, r, "could not remove the namespaces: %s", strerror(-r)) : 0;
}

static int empty_some(const char *path, void *data)
{
	const int64_t *end_ns = data;
	int64_t left = (*end_ns - clock_boot_ns()) / 1000000;

	return left > 0 ? folder_remove(path, (int)left) : -ETIMEDOUT;
}

static int empty_until(const struct deploy_host *host, int patience_ms)
{
	int64_t end_ns = clock_boot_ns() + patience_ms * 1000000LL;
	char trash[PATH_MAX];
	int r;

	state_folder(host, "trash", trash);
	r = folder_each(trash, empty_some, &end_ns);
	return r == -ETIMEDOUT ? 0 : r;
}

/* Its folder may hold millions of files: it is gone at once, and removed in the time that there is. */
static int forget_all(const struct deploy_host *host, const struct gateway_paths *paths)
{
	static const char *const secrets[] = {"private.key", "agent.json", "bootstrap.json", NULL};
	char trash[PATH_MAX];
	int r = folder_remove(paths->logs, REMOVE_PATIENCE_MS);

	if (r == 0 && unlink(paths->token) < 0 && errno != ENOENT)
		r = -errno;
	state_folder(host, "trash", trash);
	if (r == 0)
		r = folder_discard(paths->base, trash, secrets);
	return r == 0 ? empty_until(host, REMOVE_PATIENCE_MS) : r;
}

/* Without a record nothing but its folder tells who it was; root gave it that owner. */
static int kill_owner(const struct deploy_host *host, const char *base)
{
	struct stat status;

	if (lstat(base, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (status.st_uid <= host->first_uid || status.st_uid - host->first_uid >= UID_NUMBERS)
		return 0;
	return occupants_kill_user(status.st_uid, KILL_PATIENCE_MS);
}

static int netns_destroy(const struct deploy_host *host, const char *gateway, bool forget,
			 struct deploy_progress *progress)
{
	_cleanup_record_ struct deploy_record record = {0};
	struct gateway_paths paths;
	int r = record_read(host, gateway, &record);

	gateway_paths(host, gateway, &paths);
	if (r < 0 && r != -ENOENT)
		return progress_fail(progress, r, "could not read %s: %s", paths.record, strerror(-r));
	if (r == 0)
		r = take_down(host, record.spec, &paths, progress);
	else if ((r = kill_owner(host, paths.base)) < 0)
		return progress_fail(progress, r, "could not end the gateway's processes: %s", strerror(-r));
	if (r < 0)
		return r;
	r = folder_remove(paths.run, REMOVE_PATIENCE_MS);
	if (r == 0 && forget)
		r = forget_all(host, &paths);
	return r < 0 ? progress_fail(progress, r, "could not remove the folders: %s", strerror(-r)) : 0;
}

static int netns_empty_trash(const struct deploy_host *host, struct deploy_progress *progress)
{
	int r = empty_until(host, TRASH_PATIENCE_MS);

	return r < 0 ? progress_fail(progress, r, "could not remove deleted gateways' files: %s",
				     strerror(-r))
		     : 0;
}

static int stop_at_first(const char *path, void *data)
{
	(void)path;
	(void)data;
	return 1;
}

static bool netns_has_trash(const struct deploy_host *host)
{
	char trash[PATH_MAX];

	state_folder(host, "trash", trash);
	return folder_each(trash, stop_at_first, NULL) == 1;
}

/* ---- deploy ---------------------------------------------------------------------------------------------
 */

/* What an earlier attempt left goes; its keys and journal stay, its token does not. */
static int end_earlier_attempt(const struct deploy_host *host, const struct deploy_spec *spec,
			       const struct gateway_paths *paths, const struct deploy_record *earlier,
			       struct deploy_progress *progress)
{
	int r = 0;

	if (earlier->spec && earlier->spec->attempt != spec->attempt)
		r = netns_destroy(host, spec->gateway, false, progress);
	if (r == 0 && ((unlink(paths->identity) < 0 && errno != ENOENT) ||
		       (unlink(paths->bootstrap) < 0 && errno != ENOENT) ||
		       (unlink(paths->token) < 0 && errno != ENOENT)))
		r = progress_fail(progress, -errno, "could not remove the earlier token: %s",
				  strerror(errno));
	return r;
}

static int make_folders(const struct deploy_host *host, const struct gateway_paths *paths,
			const struct deploy_record *record)
{
	int r = folder_make(paths->run, 0, 0711);

	if (r == 0)
		r = record_write(host, record);
	if (r == 0)
		r = folder_make(paths->logs, 0, 0700);
	return r == 0 ? folder_make(paths->base, uid_of(host, record->spec), 0700) : r;
}

static int make_namespaces(const struct gateway_paths *paths, uid_t uid, const char *pin,
			   struct deploy_progress *progress)
{
	int r;

	progress_step(progress, "creating namespaces");
	r = namespace_make_net(pin);
	if (r == 0)
		r = links_set_sysctls(pin);
	if (r < 0)
		return progress_fail(progress, r, "could not make the network namespace: %s", strerror(-r));
	r = namespace_mount_bpf(paths->bpf, uid);
	if (r < 0)
		return progress_fail(progress, r, "could not mount the BPF file system: %s", strerror(-r));
	r = namespace_make_mount(paths->mount, paths->bpf, uid);
	if (r < 0)
		return progress_fail(progress, r, "could not make the mount namespace: %s", strerror(-r));
	return 0;
}

static int connect_links(const struct deploy_spec *spec, struct deploy_progress *progress)
{
	char error[400];
	int r;

	progress_step(progress, "connecting links");
	r = links_connect(spec, error, sizeof(error));
	if (r == 0)
		r = links_configure(spec, error, sizeof(error));
	return r < 0 ? progress_fail(progress, r, "%s", error) : 0;
}

static int hand_over_token(const struct deploy_host *host, const struct deploy_spec *spec,
			   const struct gateway_paths *paths, const char *token,
			   struct deploy_progress *progress)
{
	int r;

	if (!token)
		return 0;
	progress_step(progress, "handing over the token");
	r = bootstrap_write(host, spec, paths->bootstrap, paths->token, token);
	if (r == -EADDRNOTAVAIL)
		return progress_fail(progress, r,
				     "this host has no address of the public subnet on the bridge \"%s\": "
				     "the gateway could not reach the API",
				     spec->public_link.bridge);
	return r < 0 ? progress_fail(progress, r, "could not write the bootstrap file: %s", strerror(-r)) : 0;
}

/* The steps that can be repeated: what exists already stays. */
static int build(const struct deploy_host *host, const struct deploy_record *record, const char *token,
		 struct deploy_progress *progress)
{
	struct gateway_paths paths;
	char name[32], pin[PATH_MAX];
	int r;

	gateway_paths(host, record->spec->gateway, &paths);
	netns_name(record->spec, name);
	netns_path(name, pin);
	r = make_folders(host, &paths, record);
	if (r < 0)
		return progress_fail(progress, r, "could not make the gateway's folders: %s", strerror(-r));
	r = make_namespaces(&paths, uid_of(host, record->spec), pin, progress);
	if (r == 0)
		r = connect_links(record->spec, progress);
	return r == 0 ? hand_over_token(host, record->spec, &paths, token, progress) : r;
}

/* Of another state folder, or of another program: not to be taken over. */
static int refuse_foreign(const struct deploy_spec *spec, struct deploy_progress *progress)
{
	char name[32], pin[PATH_MAX];

	netns_name(spec, name);
	netns_path(name, pin);
	if (!namespace_is_mounted(pin))
		return 0;
	return progress_fail(progress, -EEXIST, "the network namespace %s exists and is not ours", name);
}

/* A uid that still has processes is nobody else's yet. */
static int refuse_used_uid(uid_t uid, struct deploy_progress *progress)
{
	int n = occupants_count_of_user(uid);

	if (n < 0)
		return progress_fail(progress, n, "could not list processes: %s", strerror(-n));
	return n == 0 ? 0
		      : progress_fail(progress, -EBUSY,
				      "%d processes of the gateway's uid %u are still there", n, uid);
}

static int netns_deploy(const struct deploy_host *host, const struct deploy_spec *spec, const char *token,
			struct deploy_progress *progress)
{
	struct deploy_record record = {.spec = (struct deploy_spec *)spec,
				       .kernel_wireguard = host->kernel_wireguard};
	_cleanup_record_ struct deploy_record earlier = {0};
	struct gateway_paths paths;
	int r = record_read(host, spec->gateway, &earlier);

	gateway_paths(host, spec->gateway, &paths);
	if (r < 0 && r != -ENOENT)
		return progress_fail(progress, r, "could not read %s: %s", paths.record, strerror(-r));
	if (earlier.spec && earlier.spec->attempt == spec->attempt) {
		record.kernel_wireguard = earlier.kernel_wireguard;
		record.ready = earlier.ready;
		r = 0;
	} else {
		r = refuse_foreign(spec, progress);
		/* An earlier attempt's are ended below. */
		if (r == 0 && !earlier.spec)
			r = refuse_used_uid(uid_of(host, spec), progress);
	}
	if (r == 0 && token)
		r = end_earlier_attempt(host, spec, &paths, &earlier, progress);
	if (r == 0)
		r = build(host, &record, token, progress);
	if (r < 0)
		return r;
	record.ready = true;
	r = record_write(host, &record);
	return r < 0 ? progress_fail(progress, r, "could not write %s: %s", paths.record, strerror(-r)) : 0;
}

static int netns_routes(const struct deploy_host *host, const struct deploy_spec *spec,
			struct deploy_progress *progress)
{
	struct deploy_record record = {.spec = (struct deploy_spec *)spec};
	_cleanup_record_ struct deploy_record recorded = {0};
	char error[400];
	int r = record_read(host, spec->gateway, &recorded);

	if (r < 0)
		return progress_fail(progress, r, "nothing of the gateway is on this host");
	/* First what is to be found again, then the effect. */
	record.kernel_wireguard = recorded.kernel_wireguard;
	record.ready = recorded.ready;
	r = record_write(host, &record);
	if (r < 0)
		return progress_fail(progress, r, "could not write the record: %s", strerror(-r));
	/* Also what a worker of an earlier version made otherwise. */
	r = links_connect(spec, error, sizeof(error));
	if (r == 0)
		r = links_configure(spec, error, sizeof(error));
	if (r == 0)
		r = routes_sync(spec, false, progress_refused, progress, error, sizeof(error));
	return r < 0 ? progress_fail(progress, r, "%s", error) : 0;
}

static int netns_restore(const struct deploy_host *host, struct deploy_progress *progress)
{
	char error[400];
	int r;

	(void)host;
	r = guard_keep(error, sizeof(error));
	if (r > 0)
		progress_step(progress, "put back the rules that keep tunnels from this host");
	return r < 0 ? progress_fail(progress, r, "%s", error) : 0;
}

/* ---- the gateway's processes ----------------------------------------------------------------------------
 */

static const char *const program_names[] = {[DEPLOY_WIREGUARD] = "wireguard", [DEPLOY_AGENT] = "agent"};

static void program_file(const char *folder, enum deploy_program program, const char *suffix,
			 char path[static PATH_MAX + 64])
{
	snprintf(path, PATH_MAX + 64, "%s/%s.%s", folder, program_names[program], suffix);
}

static bool netns_has(const struct deploy_host *host, const char *gateway, enum deploy_program program)
{
	_cleanup_record_ struct deploy_record record = {0};

	if (record_read(host, gateway, &record) < 0 || !record.ready)
		return false;
	return program == DEPLOY_AGENT || !record.kernel_wireguard;
}

static int netns_find(const struct deploy_host *host, const char *gateway, enum deploy_program program,
		      pid_t *ret_pid)
{
	char pid_file[PATH_MAX + 64];
	struct gateway_paths paths;

	gateway_paths(host, gateway, &paths);
	program_file(paths.run, program, "pid", pid_file);
	return spawn_find(pid_file, ret_pid);
}

static int start_program(const struct gateway_paths *paths, const struct deploy_spec *spec, const char *log,
			 struct spawn *spawn, pid_t *ret_pid)
{
	char name[32], pin[PATH_MAX];
	int r = folder_make(paths->logs, 0, 0700);

	if (r < 0)
		return r;
	netns_name(spec, name);
	netns_path(name, pin);

	_cleanup_close_ int net = open(pin, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int mnt = open(paths->mount, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int output = log_file_open(log);

	if (net < 0 || mnt < 0)
		return -errno;
	if (output < 0)
		return output;
	spawn->net_namespace = net;
	spawn->mount_namespace = mnt;
	spawn->output_fd = spawn->error_fd = output;
	spawn->new_session = true;
	spawn->max_processes = MAX_PROCESSES;
	return spawn_launch(spawn, ret_pid);
}

static int netns_start(const struct deploy_host *host, const char *gateway, enum deploy_program program,
		       pid_t *ret_pid)
{
	_cleanup_record_ struct deploy_record record = {0};
	char pid_file[PATH_MAX + 64], log_file[PATH_MAX + 64];
	struct gateway_paths paths;
	int r = record_read(host, gateway, &record);

	if (r < 0)
		return r;
	gateway_paths(host, gateway, &paths);
	program_file(paths.run, program, "pid", pid_file);
	program_file(paths.logs, program, "log", log_file);

	const char *const agent[] = {host->agent, "--base", paths.base, "--bpf", paths.bpf, NULL};
	const char *const wireguard[] = {"wireguard-go", "--foreground", record.spec->interface, NULL};
	struct spawn spawn = {.pid_file = pid_file, .uid = uid_of(host, record.spec)};

	spawn.argv = program == DEPLOY_AGENT ? agent : wireguard;
	spawn.capabilities = program == DEPLOY_AGENT ? AGENT_CAPABILITIES : WIREGUARD_CAPABILITIES;
	/* The agent does it itself, once it has made its ring. */
	spawn.confine = program == DEPLOY_AGENT ? NULL : syscalls_restrict_wireguard;
	return start_program(&paths, record.spec, log_file, &spawn, ret_pid);
}

static bool netns_logs_full(const struct deploy_host *host, const char *gateway)
{
	char path[PATH_MAX + 64];
	struct gateway_paths paths;
	bool full = false;

	gateway_paths(host, gateway, &paths);
	for (enum deploy_program program = 0; program < DEPLOY_PROGRAMS && !full; program++) {
		program_file(paths.logs, program, "log", path);
		full = log_file_is_full(path);
	}
	return full;
}

static int netns_rotate_logs(const struct deploy_host *host, const char *gateway,
			     struct deploy_progress *progress)
{
	char path[PATH_MAX + 64];
	struct gateway_paths paths;
	int r = 0;

	gateway_paths(host, gateway, &paths);
	for (enum deploy_program program = 0; program < DEPLOY_PROGRAMS && r == 0; program++) {
		program_file(paths.logs, program, "log", path);
		if (log_file_is_full(path))
			r = log_file_rotate(path);
	}
	return r < 0 ? progress_fail(progress, r, "%s: %s", path, strerror(-r)) : 0;
}

static int list_folder(const struct deploy_host *host, const char *folder, deploy_found_fn found, void *data)
{
	struct dirent *entry;
	DIR *gateways = opendir(folder);

	if (!gateways)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(gateways))) {
		_cleanup_record_ struct deploy_record record = {0};

		if (!deploy_gateway_id_valid(entry->d_name))
			continue;
		found(entry->d_name,
		      record_read(host, entry->d_name, &record) == 0 ? record.spec->attempt : 0, data);
	}
	closedir(gateways);
	return 0;
}

static int netns_list(const struct deploy_host *host, deploy_found_fn found, void *data)
{
	char path[PATH_MAX];
	int r;

	gateways_folder(host->run, path);
	r = list_folder(host, path, found, data);
	gateways_folder(host->state, path);
	return r == 0 ? list_folder(host, path, found, data) : r;
}

const struct deploy_driver driver_netns = {
	.name = "netns",
	.setup = netns_setup,
	.teardown = netns_teardown,
	.needs_token = netns_needs_token,
	.deploy = netns_deploy,
	.destroy = netns_destroy,
	.routes = netns_routes,
	.has = netns_has,
	.start = netns_start,
	.find = netns_find,
	.logs_full = netns_logs_full,
	.rotate_logs = netns_rotate_logs,
	.listen = guard_listen,
	.restore = netns_restore,
	.has_trash = netns_has_trash,
	.empty_trash = netns_empty_trash,
	.list = netns_list,
};
