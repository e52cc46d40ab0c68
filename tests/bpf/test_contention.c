// SPDX-License-Identifier: BSD-2-Clause
/*
 * Two CPUs on one peer do not contend: whatever the loaded programs write while their leases last, no two
 * CPUs write the same cache line or one of the same pair, and nothing else that both read is written. Not
 * measured, but seen in the maps: all of them are compared before and after, as bytes, whatever their layout
 * is.
 */
#include "fixture.h"

#define LINE     64
#define PAIR     (2 * LINE) /* what the processor prefetches at once */
#define MAX_MAPS 16
#define SIZE     100 /* bytes of a packet */
#define MANY     20000
#define FEW      100

/* By CPU, as <wiretoll/meter_abi.h> promises. All other maps are shared. */
static const char *const by_cpu[] = {"counts", "purses", "interface_cells"};
static const char *const shared[] = {"table",      "windows",      "buckets4", "buckets6",
				     "hint_lines", "incarnations", "credit",   "peer_states",
				     "peer_pools", "meta",         "owners"};

struct watched {
	const char *name;
	const uint8_t *bytes;
	uint8_t *before;
	size_t size;
};

static struct watched maps[MAX_MAPS];
static size_t n_maps;

static void watch_map(const char *name)
{
	struct bpf_map_info info = {0};
	uint32_t info_size = sizeof(info);
	struct watched *map = &maps[n_maps++];
	char path[128];
	int fd;

	assert_true(n_maps <= MAX_MAPS);
	snprintf(path, sizeof(path), FOLDER "/live/%s", name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &info_size), 0);
	map->name = name;
	map->size = (((size_t)info.value_size + 7) / 8 * 8 * info.max_entries + 4095) / 4096 * 4096;
	map->bytes = mmap(NULL, map->size, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map->bytes != MAP_FAILED);
	map->before = malloc(map->size);
	assert_non_null(map->before);
	close(fd);
}

static void unwatch(void)
{
	for (; n_maps; n_maps--) {
		munmap((void *)maps[n_maps - 1].bytes, maps[n_maps - 1].size);
		free(maps[n_maps - 1].before);
	}
}

static int setup_watch(void **state)
{
	int r = setup(state);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(by_cpu); i++)
		watch_map(by_cpu[i]);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(shared); i++)
		watch_map(shared[i]);
	return r;
}

static int teardown_watch(void **state)
{
	unwatch();
	return teardown(state);
}

static bool is_shared(const struct watched *map)
{
	return map - maps >= (long)ARRAY_SIZE(by_cpu);
}

static void remember(void)
{
	for (size_t i = 0; i < n_maps; i++)
		memcpy(maps[i].before, maps[i].bytes, maps[i].size);
}

static bool has_changed(const struct watched *map, size_t at, size_t size)
{
	return memcmp(map->bytes + at, map->before + at, size) != 0;
}

/* How many lines of maps that are not by CPU have been written since. */
static unsigned shared_changes(void)
{
	unsigned changes = 0;

	for (size_t i = 0; i < n_maps; i++)
		for (size_t at = 0; is_shared(&maps[i]) && at < maps[i].size; at += LINE)
			changes += has_changed(&maps[i], at, LINE);
	return changes;
}

/* Marks the pairs that were written since; returns how many lines. */
static unsigned mark(uint8_t *marks[MAX_MAPS])
{
	unsigned lines = 0;

	for (size_t i = 0; i < n_maps; i++) {
		marks[i] = calloc(maps[i].size / PAIR, 1);
		assert_non_null(marks[i]);
		for (size_t at = 0; at < maps[i].size; at += LINE) {
			if (!has_changed(&maps[i], at, LINE))
				continue;
			marks[i][at / PAIR] = 1;
			lines++;
		}
	}
	return lines;
}

/* The largest lease that leaves all CPUs together less than the bound unspent. */
static uint64_t lease(void)
{
	return (WT_UNSPENT_BOUND - WT_LARGEST_AGGREGATE) / (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
}

static void send(const struct fixture *fixture, int cpu, int packets)
{
	struct frame up = frame4("10.0.0.7", "192.0.2.1", 17, SIZE),
		     down = frame4("192.0.2.1", "10.0.0.7", 17, SIZE);

	use_cpu(cpu);
	assert_int_equal(run_times(fixture->ingress, &up, packets / 2), PASSED);
	assert_int_equal(run_times(fixture->egress, &down, packets / 2), PASSED);
	use_cpu(0);
}

/* The lines that each CPU writes for packets of one peer, both ways: never the same, nor neighbours. */
static void assert_apart(const struct fixture *fixture)
{
	const int packets = (int)(lease() / SIZE / 2);
	uint8_t *marks[2][MAX_MAPS];

	/* Leases are drawn. */
	send(fixture, 0, 2);
	send(fixture, 1, 2);
	for (int cpu = 0; cpu < 2; cpu++) {
		unsigned lines;

		remember();
		send(fixture, cpu, packets);
		assert_int_equal(shared_changes(), 0);
		lines = mark(marks[cpu]);
		/* The counts of both directions, and the purses of the interface and of the peer. */
		assert_in_range(lines, 2, 4);
	}
	for (size_t i = 0; i < n_maps; i++) {
		for (size_t pair = 0; pair < maps[i].size / PAIR; pair++)
			assert_false(marks[0][i][pair] && marks[1][i][pair]);
		free(marks[0][i]);
		free(marks[1][i]);
	}
}

static void writes_no_shared_line_without_a_limit(void **state)
{
	assert_apart(*state);
}

static void writes_no_shared_line_while_leases_last(void **state)
{
	const struct meter_grant large = {1, 1, 1000000000000, WT_UPLOADS | WT_DOWNLOADS};
	struct fixture *fixture = *state;

	assert_int_equal(meter_grant(fixture->meter, &large), 0);
	assert_apart(fixture);
	assert_int_equal(meter_grant_peer(fixture->meter, PEER, &large), 0);
	assert_apart(fixture);
}

/* A draw for a whole lease's bytes, of the interface and of the peer. */
static void draws_seldom(void **state)
{
	const struct meter_grant large = {1, 1, 1000000000000, WT_UPLOADS | WT_DOWNLOADS};
	struct fixture *fixture = *state;
	unsigned changes = 0;

	assert_int_equal(meter_grant(fixture->meter, &large), 0);
	assert_int_equal(meter_grant_peer(fixture->meter, PEER, &large), 0);
	for (int sent = 0; sent < MANY; sent += FEW) {
		remember();
		send(fixture, sent / FEW % 2, FEW);
		changes += shared_changes();
	}
	/* One more of each CPU than would do, as the first packet begins one. */
	assert_in_range(changes, 2, 2 * (2 + MANY * SIZE / lease()));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(writes_no_shared_line_without_a_limit, setup_watch,
						teardown_watch),
		cmocka_unit_test_setup_teardown(writes_no_shared_line_while_leases_last, setup_watch,
						teardown_watch),
		cmocka_unit_test_setup_teardown(draws_seldom, setup_watch, teardown_watch),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
