/* SPDX-License-Identifier: BSD-2-Clause */
/* A meter in namespaces of the test's own, and crafted packets for its programs; needs root. */
#ifndef WIRETOLL_TESTS_BPF_FIXTURE_H
#define WIRETOLL_TESTS_BPF_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "meter/meter.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER   "/run/bpf/meter"
#define ETHERNET 14
#define PASSED   ((uint32_t)-1) /* go on with the next program */
#define DROPPED  2
#define PEER     7

struct fixture {
	struct meter *meter;
	int ingress, egress;
	struct wt_credit *credit;
	const struct wt_interface_cells *cells;
};

static const struct meter_options options = {.pin_folder = FOLDER, .interface = "left", .capacity = 100};

static inline struct cidr prefix(const char *text)
{
	struct cidr cidr;

	assert_int_equal(cidr_parse(text, &cidr), 0);
	return cidr;
}

static inline void set_prefix(struct fixture *fixture, const char *text, uint32_t slot)
{
	struct cidr cidr = prefix(text);

	assert_int_equal(meter_set_prefix(fixture->meter, &cidr, slot, 1), 0);
}

static inline void *map_pin(const char *name, size_t size)
{
	char path[128];
	void *mapping;
	int fd;

	snprintf(path, sizeof(path), FOLDER "/live/%s", name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(mapping != MAP_FAILED);
	close(fd);
	return mapping;
}

static inline void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

static inline int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	use_cpu(0);
	assert_int_equal(meter_attach(&options, &fixture->meter), 0);
	fixture->ingress = bpf_obj_get(FOLDER "/live/ingress");
	fixture->egress = bpf_obj_get(FOLDER "/live/egress");
	assert_true(fixture->ingress >= 0 && fixture->egress >= 0);
	fixture->credit = map_pin("credit", 4096);
	fixture->cells = map_pin("interface_cells", sizeof(*fixture->cells));
	set_prefix(fixture, "10.0.0.7/32", PEER);
	*state = fixture;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *fixture = *state;
	int r = meter_remove(fixture->meter);

	close(fixture->ingress);
	close(fixture->egress);
	munmap(fixture->credit, 4096);
	munmap((void *)fixture->cells, sizeof(*fixture->cells));
	free(fixture);
	return r == 0 && access(FOLDER, F_OK) ? 0 : -1;
}

/* A frame: Ethernet, then what is given. `size` counts from the IP header. */
struct frame {
	uint8_t bytes[2048];
	uint32_t size;
	uint32_t gso_size, gso_segs;
};

static inline struct frame frame4(const char *source, const char *destination, uint8_t protocol,
				  uint32_t size)
{
	struct frame frame = {.size = size};
	struct cidr from = prefix(source), to = prefix(destination);
	uint8_t *ip = frame.bytes + ETHERNET;

	frame.bytes[12] = 0x08;
	ip[0] = 0x45;
	ip[9] = protocol;
	memcpy(ip + 12, from.bytes, 4);
	memcpy(ip + 16, to.bytes, 4);
	ip[32] = 0x50; /* where TCP has the length of its header */
	return frame;
}

static inline struct frame frame6(const char *source, const char *destination, uint8_t protocol,
				  uint32_t size)
{
	struct frame frame = {.size = size};
	struct cidr from = prefix(source), to = prefix(destination);
	uint8_t *ip = frame.bytes + ETHERNET;

	frame.bytes[12] = 0x86;
	frame.bytes[13] = 0xdd;
	ip[0] = 0x60;
	ip[6] = protocol;
	memcpy(ip + 8, from.bytes, 16);
	memcpy(ip + 24, to.bytes, 16);
	return frame;
}

static inline uint32_t run_times(int program, const struct frame *frame, int repeat)
{
	struct __sk_buff context = {.gso_size = frame->gso_size, .gso_segs = frame->gso_segs};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame->bytes, .data_size_in = ETHERNET + frame->size,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = repeat);

	assert_int_equal(bpf_prog_test_run_opts(program, &run), 0);
	return run.retval;
}

static inline uint32_t run(int program, const struct frame *frame)
{
	return run_times(program, frame, 1);
}

static inline void assert_counts(const struct fixture *fixture, uint32_t slot, uint64_t up_bytes,
				 uint64_t up_packets, uint64_t down_bytes, uint64_t down_packets)
{
	struct meter_totals totals;

	meter_read(fixture->meter, slot, &totals);
	assert_int_equal(totals.upload_bytes, up_bytes);
	assert_int_equal(totals.upload_packets, up_packets);
	assert_int_equal(totals.download_bytes, down_bytes);
	assert_int_equal(totals.download_packets, down_packets);
}

/* Namespaces of its own: an Ethernet pair that is never up, and a BPF file system; all go with the process.
 */
static inline int make_laboratory(void)
{
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	if (mount("test", "/run", "tmpfs", 0, NULL) || mkdir("/run/bpf", 0700) ||
	    mount("test", "/run/bpf", "bpf", 0, "mode=0700"))
		return -errno;
	return system("ip link add left type veth peer name right") ? -EIO : 0;
}

#endif
