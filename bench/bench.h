/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The benchmark's harness. Each part prints its samples as lines of JSON, one series a line, and run.py makes
 * ratios of them. A step that fails, or a count that is wrong, ends the program with a message and status 1.
 */
#ifndef WIRETOLL_BENCH_BENCH_H
#define WIRETOLL_BENCH_BENCH_H

#include "base/cidr.h"
#include "meter/meter.h"

#include "abi.h"

struct driver_bpf;
struct naive_bpf;

struct bench_options {
	int family;
	bool dense;
	uint32_t peers;
	uint32_t rounds;
	uint32_t milliseconds; /* of one sample of throughput */
	uint32_t loads;        /* how many times both builds are loaded */
	const char *builds[2]; /* object files of the programs: of an earlier build, and of this one */
	const char *fallback;  /* of this one, where that does not load */
};

/* The parts, as the command line names them. */
void bench_cost(const struct bench_options *options);
void bench_contend(const struct bench_options *options);
void bench_forward(const struct bench_options *options);
void bench_scrape(const struct bench_options *options);
void bench_credit(const struct bench_options *options);
void bench_tunnel(const struct bench_options *options);
void bench_lengths(const struct bench_options *options);
void bench_polls(const struct bench_options *options);

/* tools.c */
_Noreturn void fail(const char *format, ...) WT_PRINTF(1, 2);
/* Runs a shell command; it must succeed. */
void shell(const char *format, ...) WT_PRINTF(1, 2);
void use_cpu(int cpu);
/* Nanoseconds that this thread has run. */
double thread_time(void);
double wall_time(void);
uint64_t random_number(void);
/* Which of `count` variants comes as number i of a round: A B C, C B A, …, so that a drift falls on all
 * alike. */
uint32_t in_turn(uint32_t round, uint32_t i, uint32_t count);

/* A series of samples: filled round by round, printed at the end. */
struct series {
	double *values;
	size_t count, room;
};
void series_add(struct series *series, double value);
/* Prints the samples under this name, and frees them. */
void series_print(struct series *series, const char *unit, const char *name, ...) WT_PRINTF(3, 4);

/* First byte of the dense IPv6 subnet, all zeroes else but for the last three. */
#define BENCH_SUBNET6 0xfd

/* peers.c: peers with one prefix each, in slots 1 .. count, and addresses in their prefixes. */
struct bench_peers {
	int family;
	bool dense;
	uint32_t count;
	struct cidr *prefixes; /* sorted; the peer of prefixes[i] has slot i + 1 */
	uint32_t *expected;    /* [slot]: packets that the addresses send to it, each taken once */
};
/* Fills in the driver's addresses, too. `dense`: one subnet; otherwise networks of many lengths, overlapping.
 */
void peers_make(struct bench_peers *ret_peers, const struct bench_options *options,
		struct driver_bpf *driver);
void peers_free(struct bench_peers *peers);
/* Every peer was counted `runs` times what the addresses send to it, in packets of `size` bytes, and nothing
 * was counted for nobody. */
void peers_check(const struct bench_peers *peers, const struct meter *meter, uint64_t runs, uint64_t size);

/* rig.c: programs under test. */
struct driver_bpf *rig_driver(void);
/* Loads the designs to compare with and gives them the peers. */
struct naive_bpf *rig_naive(const struct bench_peers *peers, uint32_t l3_offset);
/* A meter on the interface, with the peers. */
struct meter *rig_meter(const char *interface, const struct bench_peers *peers);
/* The same, attached otherwise than by itself. */
struct meter *rig_meter_by(enum meter_attach how, const char *interface, const struct bench_peers *peers);
/* Gives the peers in slots 1, 2, … these prefixes, too. */
void rig_give(struct meter *meter, const struct bench_peers *peers);
void rig_remove(struct meter *meter);
/* The first program on a hook of the interface: 46 is tcx ingress, 47 egress; or BPF_XDP, in its generic
 * mode. */
int rig_attached(const char *interface, unsigned hook);
/* Attaches a program; closing the result detaches it. */
int rig_attach(int program, const char *interface, unsigned hook);
/* Limits downloads with so much credit that it never ends, or leaves them unlimited. */
void rig_limit(struct meter *meter, bool limited);
/* The same for every peer. */
void rig_limit_peers(struct meter *meter, const struct bench_peers *peers, bool limited);
/* The program that drives packets to the peers. */
int rig_driving(const struct driver_bpf *driver, const struct bench_peers *peers);
/* Puts a program behind the drivers. */
void rig_aim(const struct driver_bpf *driver, int program);
/* The same, as target 0 or 1; driver->bss->second says which of them is meant. */
void rig_aim_at(const struct driver_bpf *driver, uint32_t place, int program);
/* Sends BENCH_KEYS packets times `times` through a program; returns nanoseconds a packet. */
double rig_run(int program, int family, uint32_t times);
/* So many packets, frames of one's own with an Ethernet header before them; gso_size 0: no aggregate. */
double rig_run_frame(int program, const void *frame, uint32_t size, uint32_t gso_size, uint32_t packets);

#define TCX_INGRESS 46
#define TCX_EGRESS  47

/* Bytes of the packets that rig_run() sends, from the IP header on. */
#define RIG_PACKET 100

#endif
