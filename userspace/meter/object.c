// SPDX-License-Identifier: BSD-2-Clause
/* A meter as an object: made from the programs, or opened by its pins. What is attached is life.c's. */
#include "meter/internal.h"

#include "meter.skel.h"
#include "meter_typed.skel.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define ETHERNET_HEADER 14

static int silent(enum libbpf_print_level level, const char *format, va_list arguments)
{
	(void)level, (void)format, (void)arguments;
	return 0;
}

static int on_event(void *context, void *data, size_t size)
{
	(void)context, (void)data, (void)size;
	return 0;
}

struct meter *meter_blank(const char *folder)
{
	struct meter *meter = calloc(1, sizeof(*meter));

	if (!meter)
		return NULL;
	/* libbpf is a library, too, and does not log; its errors come back as codes. */
	libbpf_set_print(silent);
	meter->lock = -1;
	for (int i = 0; i < OBJECTS; i++)
		meter->fds[i] = -1;
	meter->folder = strdup(folder);
	if (meter->folder)
		return meter;
	free(meter);
	return NULL;
}

void meter_close(struct meter *meter)
{
	if (!meter)
		return;
	ring_buffer__free(meter->events);
	maps_close(meter);
	for (int i = 0; i < OBJECTS; i++)
		cleanup_close(&meter->fds[i]);
	cleanup_close(&meter->lock);
	free(meter->folder);
	free(meter);
}

int meter_open_stage(struct meter *meter, const char *stage)
{
	int r = pins_open(meter->folder, stage, meter->fds);

	if (r == 0)
		r = maps_open(meter);
	if (r < 0)
		return r;
	meter->events = ring_buffer__new(meter->fds[OBJECT_EVENTS], on_event, NULL, NULL);
	return meter->events ? 0 : -errno;
}

/* WireGuard and TUN begin with the IP header; a veth of a test or a bridge port does not. */
static int link_header(const char *interface, uint32_t *ret_size)
{
	struct ifreq request = {0};
	int r = device_ask(interface, SIOCGIFHWADDR, &request);

	if (r == 0)
		*ret_size = request.ifr_hwaddr.sa_family == ARPHRD_ETHER ? ETHERNET_HEADER : 0;
	return r;
}

static int set_sizes(struct meter_bpf *bpf, const struct wt_meta *meta)
{
	const uint32_t buckets = wt_buckets(meta->capacity), hints = wt_hints(meta->capacity);
	const uint32_t window_lines = wt_window_size(meta->capacity) / WT_WINDOW_LINE;
	const struct {
		struct bpf_map *map;
		uint32_t entries;
	} sizes[] = {
		{bpf->maps.windows, WT_FAMILIES * window_lines},
		{bpf->maps.buckets4, buckets},
		{bpf->maps.buckets6, buckets},
		{bpf->maps.hint_lines, wt_hint_lines(hints)},
		{bpf->maps.incarnations, WT_FAMILIES * buckets},
		{bpf->maps.counts, meta->cpus * WT_KINDS * meta->stride},
		{bpf->maps.purses, meta->cpus * meta->stride},
		{bpf->maps.peer_states, meta->capacity},
		{bpf->maps.peer_pools, meta->capacity},
		{bpf->maps.owners, meta->capacity},
		{bpf->maps.events, (uint32_t)sysconf(_SC_PAGESIZE)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int r = bpf_map__set_max_entries(sizes[i].map, sizes[i].entries);

		if (r < 0)
			return r;
	}
	bpf->rodata->capacity = meta->capacity;
	bpf->rodata->stride = meta->stride;
	bpf->rodata->cpus = meta->cpus;
	bpf->rodata->buckets = buckets;
	bpf->rodata->hints = hints;
	bpf->rodata->window_lines = window_lines;
	return link_header(meta->ifname, &bpf->rodata->l3_offset);
}

static int store_first_values(const struct meter_bpf *bpf, const struct wt_meta *meta)
{
	struct wt_table table = {0};
	struct wt_credit credit;
	uint32_t zero = 0;
	int r;

	/* Nobody may choose prefixes that meet in one bucket. */
	for (int i = 0; i < WT_FAMILIES; i++) {
		if (getrandom(&table.families[i].seed, sizeof(table.families[i].seed), 0) !=
		    sizeof(table.families[i].seed))
			return -EIO;
	}
	credit_init(&credit, meta->cpus);
	r = bpf_map_update_elem(bpf_map__fd(bpf->maps.data_credit), &zero, &credit, BPF_ANY);
	if (r == 0)
		r = bpf_map_update_elem(bpf_map__fd(bpf->maps.data_table), &zero, &table, BPF_ANY);
	return r < 0 ? r : bpf_map_update_elem(bpf_map__fd(bpf->maps.meta), &zero, meta, BPF_ANY);
}

/* The object's own descriptors die with the skeleton; ours are copies. */
static int take_descriptors(const struct meter_bpf *bpf, bool xdp, int fds[static OBJECTS])
{
	const int loaded[] = {
		[OBJECT_TABLE] = bpf_map__fd(bpf->maps.data_table),
		[OBJECT_WINDOWS] = bpf_map__fd(bpf->maps.windows),
		[OBJECT_BUCKETS4] = bpf_map__fd(bpf->maps.buckets4),
		[OBJECT_BUCKETS6] = bpf_map__fd(bpf->maps.buckets6),
		[OBJECT_HINT_LINES] = bpf_map__fd(bpf->maps.hint_lines),
		[OBJECT_INCARNATIONS] = bpf_map__fd(bpf->maps.incarnations),
		[OBJECT_COUNTS] = bpf_map__fd(bpf->maps.counts),
		[OBJECT_PURSES] = bpf_map__fd(bpf->maps.purses),
		[OBJECT_INTERFACE_CELLS] = bpf_map__fd(bpf->maps.bss),
		[OBJECT_CREDIT] = bpf_map__fd(bpf->maps.data_credit),
		[OBJECT_PEER_STATES] = bpf_map__fd(bpf->maps.peer_states),
		[OBJECT_PEER_POOLS] = bpf_map__fd(bpf->maps.peer_pools),
		[OBJECT_META] = bpf_map__fd(bpf->maps.meta),
		[OBJECT_OWNERS] = bpf_map__fd(bpf->maps.owners),
		[OBJECT_EVENTS] = bpf_map__fd(bpf->maps.events),
		[OBJECT_INGRESS] = bpf_program__fd(xdp ? bpf->progs.meter_xdp : bpf->progs.meter_ingress),
		[OBJECT_EGRESS] = bpf_program__fd(bpf->progs.meter_egress),
	};

	for (size_t i = 0; i < ARRAY_SIZE(loaded); i++) {
		fds[i] = fcntl(loaded[i], F_DUPFD_CLOEXEC, 0);
		if (fds[i] < 0)
			return -errno;
	}
	return 0;
}

/* The typed programs are the same but for what they ask of the kernel: so are names, maps and constants. */
static struct meter_bpf *open_programs(bool typed)
{
	struct meter_bpf *bpf = calloc(1, sizeof(*bpf));

	if (!bpf)
		return NULL;
	if (meter_bpf__create_skeleton(bpf)) {
		free(bpf);
		return NULL;
	}
	if (typed)
		bpf->skeleton->data = meter_typed_bpf__elf_bytes(&bpf->skeleton->data_sz);
	if (bpf_object__open_skeleton(bpf->skeleton, NULL)) {
		meter_bpf__destroy(bpf);
		return NULL;
	}
	return bpf;
}

static int load_programs(const struct wt_meta *meta, bool xdp, bool typed, struct meter_bpf **ret_bpf)
{
	struct meter_bpf *bpf = open_programs(typed);
	int r;

	if (!bpf)
		return -errno;
	r = set_sizes(bpf, meta);
	if (r == 0)
		r = bpf_program__set_autoload(xdp ? bpf->progs.meter_ingress : bpf->progs.meter_xdp, false);
	if (r == 0)
		r = meter_bpf__load(bpf);
	if (r == 0)
		*ret_bpf = bpf;
	else
		meter_bpf__destroy(bpf);
	return r;
}

/* The typed programs need kfuncs of Linux 6.2 and the kernel's BTF; the others do without. */
static int load(const struct wt_meta *meta, bool xdp, int fds[static OBJECTS])
{
	struct meter_bpf *bpf = NULL;
	int r = load_programs(meta, xdp, true, &bpf);

	if (r < 0)
		r = load_programs(meta, xdp, false, &bpf);
	if (r < 0)
		return r;
	r = store_first_values(bpf, meta);
	if (r == 0)
		r = take_descriptors(bpf, xdp, fds);
	meter_bpf__destroy(bpf);
	return r;
}

int meter_pin_range(struct meter *meter, int first, int end)
{
	int r = 0;

	for (int i = first; r == 0 && i < end; i++)
		if (meter->fds[i] >= 0)
			r = pins_add(meter->folder, PINS_NEW, (enum meter_object)i, meter->fds[i]);
	return r;
}

int meter_load(struct meter *meter, const struct wt_meta *meta, bool xdp)
{
	int r = load(meta, xdp, meter->fds);

	if (r == 0)
		r = pins_make(meter->folder, PINS_NEW);
	return r < 0 ? r : meter_pin_range(meter, 0, OBJECT_INGRESS_LINK);
}

int meter_size(struct wt_meta *meta, uint32_t capacity)
{
	int cpus = identity_cpus();

	if (cpus < 0)
		return cpus;
	if (capacity < 2 || capacity > WT_MAX_CAPACITY)
		return -ERANGE;
	if (cpus > WT_MAX_CPUS)
		return -E2BIG;
	meta->capacity = capacity;
	meta->cpus = (uint32_t)cpus;
	meta->stride = wt_stride(capacity);
	return 0;
}
