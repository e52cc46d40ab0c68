// SPDX-License-Identifier: BSD-2-Clause
/*
 * Whose pins they are: adoption by identity, remains of a crash, the lock, the place in the chain, and the
 * rights of the agent. Runs in namespaces of its own, which vanish with it; needs root and iproute2.
 */
#include "namespace.h"

#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define FOLDER "/run/bpf/meter"
#define PEER   5
#define USER   54321

static const enum meter_attach both_ways[] = {METER_ATTACH_TCX, METER_ATTACH_TC};

/* Where kernels without tcx begin (before 6.6). */
static size_t first_way(void)
{
	uint32_t count = 0;

	return bpf_prog_query((int)if_nametoindex("lo"), (enum bpf_attach_type)46, 0, NULL, NULL, &count) ==
	       -EINVAL;
}

static struct meter_options by(enum meter_attach how)
{
	return (struct meter_options){
		.pin_folder = FOLDER, .interface = "left", .attach = how, .capacity = 64};
}

static struct meter *attach(enum meter_attach how)
{
	const struct meter_options options = by(how);
	struct meter *meter = NULL;
	struct cidr prefix;

	assert_int_equal(meter_attach(&options, &meter), 0);
	assert_int_equal(cidr_parse("fd09::2/128", &prefix), 0);
	assert_int_equal(meter_set_prefix(meter, &prefix, PEER, 1), 0);
	return meter;
}

static struct meter *adopt(void)
{
	const struct meter_options options = by(METER_ATTACH_AUTO);
	struct meter *meter = NULL;

	assert_int_equal(meter_adopt(&options, &meter), 0);
	return meter;
}

static void remove_all(struct meter *meter)
{
	assert_int_equal(meter_remove(meter), 0);
	assert_int_not_equal(access(FOLDER, F_OK), 0);
	assert_int_not_equal(run("tc filter show dev left ingress | grep -q meter"), 0);
	assert_int_not_equal(run("tc filter show dev left egress | grep -q meter"), 0);
}

/* Another network namespace's interface always has this index, too: only the cookie tells them apart. */
static void make_pair(void)
{
	assert_int_equal(run("ip link add left index 4242 type veth peer name right"), 0);
	assert_int_equal(
		run("ip link set right up && ip link set left up && ip addr add fd09::1/64 dev left nodad"),
		0);
	/* The peer behind the cable, for packets that go out. */
	assert_int_equal(run("ip neigh replace fd09::2 lladdr 02:00:00:00:00:02 dev left"), 0);
}

static void remove_pair(void)
{
	assert_int_equal(run("ip link del left"), 0);
}

static int setup(void **state)
{
	(void)state;
	make_pair();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	remove_pair();
	return access(FOLDER, F_OK) ? 0 : -1;
}

/* 100 packets of 128 bytes to the peer, which nobody answers. */
static void send_packets(void)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
	static const char payload[128 - 48];
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(inet_pton(AF_INET6, "fd09::2", &to.sin6_addr), 1);
	for (int i = 0; i < 100; i++)
		assert_int_equal(sendto(fd, payload, sizeof(payload), 0, (struct sockaddr *)&to, sizeof(to)),
				 sizeof(payload));
	close(fd);
}

static uint64_t downloaded(const struct meter *meter)
{
	struct meter_totals totals;

	meter_read(meter, PEER, &totals);
	return totals.download_bytes;
}

static void in_a_process_that_is_killed(void (*step)(enum meter_attach), enum meter_attach how)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		step(how);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void attach_and_count(enum meter_attach how)
{
	const struct meter_grant grant = {3, 4, 1000000000, WT_DOWNLOADS};
	const struct wt_owner owner = {.peer_id = {1, 2, 3}, .incarnation = 9, .flags = WT_OWNER_IN_USE};
	struct meter *meter = attach(how);

	assert_int_equal(meter_set_owner(meter, PEER, &owner), 0);
	assert_int_equal(meter_grant(meter, &grant), 0);
	send_packets();
}

static int count_prefix(const struct cidr *prefix, const struct wt_attribution *attribution, void *data)
{
	char text[CIDR_TEXT_SIZE];

	assert_string_equal(cidr_format(prefix, text), "fd09::2/128");
	assert_int_equal(attribution->slot, PEER);
	assert_int_equal(attribution->incarnation, 1);
	++*(int *)data;
	return 0;
}

static void adopts_everything(void **state)
{
	(void)state;
	for (size_t way = first_way(); way < ARRAY_SIZE(both_ways); way++) {
		struct meter_limit_state limit;
		struct wt_owner owner;
		struct meter *meter;
		int prefixes = 0;

		in_a_process_that_is_killed(attach_and_count, both_ways[way]);
		send_packets();
		meter = adopt();
		assert_int_equal(downloaded(meter), 200 * 128);
		assert_int_equal(meter_for_each_prefix(meter, count_prefix, &prefixes), 0);
		assert_int_equal(prefixes, 1);
		assert_int_equal(meter_get_owner(meter, PEER, &owner), 0);
		assert_int_equal(owner.incarnation, 9);
		assert_int_equal(owner.peer_id[2], 3);
		meter_read_limit(meter, &limit);
		assert_int_equal(limit.grant.grant_seq, 4);
		assert_int_equal(limit.cycle_counted, 200 * 128);
		remove_all(meter);
	}
}

static void says_when_there_is_nothing(void **state)
{
	const struct meter_options here = by(METER_ATTACH_AUTO);
	struct meter_options elsewhere = here;
	struct meter *meter = NULL, *second = NULL;

	(void)state;
	assert_int_equal(meter_adopt(&here, &meter), -ENOENT);
	elsewhere.interface = "nothing";
	assert_int_equal(meter_attach(&elsewhere, &meter), -ENODEV);
	elsewhere = here;
	elsewhere.capacity = WT_MAX_CAPACITY + 1;
	assert_int_equal(meter_attach(&elsewhere, &meter), -ERANGE);
	assert_null(meter);
	assert_int_not_equal(access(FOLDER, F_OK), 0);
	/* Held by a process, then only pinned. */
	meter = attach(METER_ATTACH_AUTO);
	assert_int_equal(meter_adopt(&here, &second), -EBUSY);
	assert_int_equal(meter_attach(&here, &second), -EBUSY);
	meter_close(meter);
	assert_int_equal(meter_attach(&here, &second), -EEXIST);
	assert_null(second);
	remove_all(adopt());
}

static void assert_stale(const uint8_t uuid[16], uint64_t bytes)
{
	const struct meter_options options = by(METER_ATTACH_AUTO);
	const struct meter_grant grant = {9, 9, 9, WT_DOWNLOADS};
	struct meter *meter = NULL;
	struct cidr prefix;

	assert_int_equal(meter_adopt(&options, &meter), -ESTALE);
	assert_non_null(meter);
	assert_memory_equal(meter_identity(meter)->map_uuid, uuid, 16);
	/* The last counts are there, but nothing is changed any more. */
	assert_int_equal(downloaded(meter), bytes);
	assert_int_equal(cidr_parse("10.9.0.3/32", &prefix), 0);
	assert_int_equal(meter_set_prefix(meter, &prefix, PEER, 1), -ESTALE);
	assert_int_equal(meter_grant(meter, &grant), -ESTALE);
	assert_int_equal(meter_is_shadowed(meter), -ENOLINK);
	remove_all(meter);
}

static void disowns_a_new_interface_of_the_same_name_and_index(void **state)
{
	(void)state;
	for (size_t way = first_way(); way < ARRAY_SIZE(both_ways); way++) {
		struct meter *meter = attach(both_ways[way]);
		struct meter_identity old = *meter_identity(meter);

		send_packets();
		meter_close(meter);
		remove_pair();
		make_pair();
		assert_stale(old.map_uuid, 100 * 128);
		meter = attach(both_ways[way]);
		assert_memory_not_equal(meter_identity(meter)->map_uuid, old.map_uuid, 16);
		assert_int_equal(downloaded(meter), 0);
		remove_all(meter);
	}
}

static void disowns_a_new_namespace(void **state)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(home >= 0);
	for (size_t way = first_way(); way < ARRAY_SIZE(both_ways); way++) {
		struct meter *meter = attach(both_ways[way]);
		struct meter_identity old = *meter_identity(meter);

		meter_close(meter);
		/* Same interface name, same index, same pin folder; the old one is still alive elsewhere. */
		assert_int_equal(unshare(CLONE_NEWNET), 0);
		make_pair();
		assert_stale(old.map_uuid, 0);
		assert_int_equal(setns(home, CLONE_NEWNET), 0);
		remove_pair(); /* with the filters that only this namespace's owner could have removed */
		make_pair();
	}
	close(home);
}

/* F1: it is the same interface by another name, and one that takes the old name is another. */
static void f1_keeps_what_was_renamed_and_disowns_what_was_detached(void **state)
{
	struct meter_options renamed = by(METER_ATTACH_AUTO), options = renamed;
	struct meter *meter = attach(METER_ATTACH_TC);
	struct meter_identity old = *meter_identity(meter);

	(void)state;
	assert_int_equal(meter_is_shadowed(meter), 0);
	assert_int_equal(run("tc filter del dev left egress"), 0);
	assert_int_equal(meter_is_shadowed(meter), -ENOLINK);
	meter_close(meter);
	assert_stale(old.map_uuid, 0);
	meter = attach(METER_ATTACH_AUTO);
	old = *meter_identity(meter);
	meter_close(meter);
	assert_int_equal(run("ip link set left down && ip link set left name other"), 0);
	/* A fresh interface takes the name. */
	assert_int_equal(run("ip link add left type veth peer name right2"), 0);
	assert_int_equal(meter_adopt(&options, &meter), -ESTALE);
	meter_close(meter);
	renamed.interface = "other";
	assert_int_equal(meter_adopt(&renamed, &meter), 0);
	assert_memory_equal(meter_identity(meter)->map_uuid, old.map_uuid, sizeof(old.map_uuid));
	assert_string_equal(meter_interface(meter), "other");
	assert_int_equal(meter_note_interface(meter, "left"), -ENOLINK);
	assert_string_equal(meter_interface(meter), "other");
	assert_int_equal(meter_remove(meter), 0);
	assert_int_equal(run("ip link del other"), 0);
}

/* As if killed just before the rename that makes the pins whole, and just after the one that gives them up.
 */
static void die_before_the_rename(enum meter_attach how)
{
	attach_and_count(how);
	if (rename(FOLDER "/live", FOLDER "/new"))
		_exit(1);
}

static void die_after_the_rename(enum meter_attach how)
{
	attach_and_count(how);
	if (rename(FOLDER "/live", FOLDER "/old"))
		_exit(1);
}

static void clears_the_remains_of_a_crash(void **state)
{
	const struct meter_options options = by(METER_ATTACH_AUTO);

	(void)state;
	for (size_t way = first_way(); way < ARRAY_SIZE(both_ways); way++) {
		struct meter *meter = NULL;

		in_a_process_that_is_killed(die_before_the_rename, both_ways[way]);
		assert_int_equal(meter_adopt(&options, &meter), -ENOENT);
		meter = attach(both_ways[way]);
		send_packets();
		assert_int_equal(downloaded(meter), 100 * 128);
		remove_all(meter);
		in_a_process_that_is_killed(die_after_the_rename, both_ways[way]);
		meter = attach(both_ways[way]);
		send_packets();
		assert_int_equal(downloaded(meter), 100 * 128);
		remove_all(meter);
	}
}

/* A program that says the same of each packet. */
static int load_stranger(enum bpf_prog_type type, int verdict)
{
	const struct bpf_insn instructions[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = verdict},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(type, "stranger", "GPL", instructions, 2, NULL);
}

/* Where the driver runs it (a TUN's or WireGuard's has only the kernel's own, generic place). */
static void w8_knows_of_xdp_in_the_driver(void **state)
{
	LIBBPF_OPTS(bpf_link_create_opts, native, .flags = XDP_FLAGS_DRV_MODE);
	int program = load_stranger(BPF_PROG_TYPE_XDP, XDP_PASS), link;
	struct meter *meter = attach(METER_ATTACH_AUTO);

	(void)state;
	assert_true(program >= 0);
	assert_int_equal(meter_is_shadowed(meter), 0);
	link = bpf_link_create(program, (int)if_nametoindex("left"), BPF_XDP, &native);
	assert_true(link >= 0);
	assert_int_equal(meter_is_shadowed(meter), 1);
	close(link);
	assert_int_equal(meter_is_shadowed(meter), 0);
	close(program);
	remove_all(meter);
}

static void knows_who_runs_before_it(void **state)
{
	(void)state;
	if (first_way() > 0)
		return; /* without tcx nobody can: lets_nobody_before_it */
	for (size_t way = first_way(); way < ARRAY_SIZE(both_ways); way++) {
		LIBBPF_OPTS(bpf_link_create_opts, first, .flags = 1 << 3 /* BPF_F_BEFORE */);
		int program = load_stranger(BPF_PROG_TYPE_SCHED_CLS, 0 /* TC_ACT_OK */);
		int ifindex = (int)if_nametoindex("left"), link;
		struct meter *meter;

		assert_true(program >= 0);
		/* One that was there already is behind ours; clsact cannot get before it. */
		link = bpf_link_create(program, ifindex, (enum bpf_attach_type)46, NULL);
		assert_true(link >= 0);
		meter = attach(both_ways[way]);
		assert_int_equal(meter_is_shadowed(meter), both_ways[way] == METER_ATTACH_TC);
		close(link);
		assert_int_equal(meter_is_shadowed(meter), 0);
		link = bpf_link_create(program, ifindex, (enum bpf_attach_type)46, &first);
		assert_true(link >= 0);
		assert_int_equal(meter_is_shadowed(meter), 1);
		close(link);
		close(program);
		remove_all(meter);
	}
}

/* clsact has one first place, and who holds it keeps it. */
static void lets_nobody_before_it(void **state)
{
	struct meter *meter = attach(METER_ATTACH_TC);

	(void)state;
	assert_int_equal(meter_is_shadowed(meter), 0);
	assert_int_not_equal(run("tc filter add dev left ingress pref 1 protocol ip u32 match u32 0 0 "
				 "classid 1:1 2>/dev/null"),
			     0);
	assert_int_equal(
		run("tc filter add dev left ingress pref 2 protocol ip u32 match u32 0 0 classid 1:1"), 0);
	assert_int_equal(meter_is_shadowed(meter), 0);
	remove_all(meter);
}

static void refuses_a_place_that_is_taken(void **state)
{
	const struct meter_options options = by(METER_ATTACH_TC);
	struct meter *meter = NULL;

	(void)state;
	assert_int_equal(
		run("tc qdisc add dev left clsact && tc filter add dev left ingress pref 1 protocol ip u32 "
		    "match u32 0 0 classid 1:1"),
		0);
	assert_int_equal(meter_attach(&options, &meter), -EBUSY);
	assert_int_not_equal(access(FOLDER, F_OK), 0);
	assert_int_equal(run("tc filter show dev left egress | grep -q meter"), 1);
	/* The other's filter is as it was. */
	assert_int_equal(run("tc filter show dev left ingress | grep -q 'pref 1 u32'"), 0);
}

/* The agent's rights and no more, in a BPF file system of its own. */
static int become_agent(void)
{
	const uint64_t rights = 1ULL << CAP_NET_ADMIN | 1ULL << CAP_BPF | 1ULL << CAP_PERFMON;
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted = data[i].inheritable = (uint32_t)(rights >> 32 * i);
	if (prctl(PR_SET_KEEPCAPS, 1) || setgroups(0, NULL) || setresgid(USER, USER, USER) ||
	    setresuid(USER, USER, USER))
		return -1;
	return (int)syscall(SYS_capset, &header, data);
}

static int live_as_agent(enum meter_attach how)
{
	const struct meter_options options = by(how);
	struct meter *meter = NULL;
	int r;

	if (become_agent() || open("/proc/1/root/etc", O_RDONLY) >= 0)
		return 1;
	r = meter_attach(&options, &meter);
	if (r)
		return 2;
	meter_close(meter);
	if (meter_adopt(&options, &meter))
		return 3;
	if (meter_is_shadowed(meter))
		return 4;
	return meter_remove(meter) ? 5 : 0;
}

static void needs_no_more_than_the_agents_rights(void **state)
{
	(void)state;
	assert_int_equal(chown("/run/bpf", USER, USER), 0);
	for (size_t way = first_way(); way < ARRAY_SIZE(both_ways); way++) {
		pid_t pid = fork();
		int status;

		if (pid == 0)
			_exit(live_as_agent(both_ways[way]));
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	assert_int_equal(chown("/run/bpf", 0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(adopts_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(says_when_there_is_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(disowns_a_new_interface_of_the_same_name_and_index, setup,
						teardown),
		cmocka_unit_test_setup_teardown(disowns_a_new_namespace, setup, teardown),
		cmocka_unit_test_setup_teardown(f1_keeps_what_was_renamed_and_disowns_what_was_detached,
						setup, teardown),
		cmocka_unit_test_setup_teardown(clears_the_remains_of_a_crash, setup, teardown),
		cmocka_unit_test_setup_teardown(knows_who_runs_before_it, setup, teardown),
		cmocka_unit_test_setup_teardown(w8_knows_of_xdp_in_the_driver, setup, teardown),
		cmocka_unit_test_setup_teardown(lets_nobody_before_it, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_a_place_that_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(needs_no_more_than_the_agents_rights, setup, teardown),
	};

	if (namespace_enter() || mkdir("/run/bpf", 0700) || mount("bpf", "/run/bpf", "bpf", 0, "mode=0700")) {
		fprintf(stderr, "could not make the test's network: %s\n", strerror(errno));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
