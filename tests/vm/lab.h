/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A gateway with the kernel's WireGuard and two customers, each in a network namespace of its own behind a
 * cable. The gateway is where the test itself runs. The customers' devices take no aggregates, so that what
 * is captured there is what went through the tunnel, packet by packet.
 */
#ifndef WIRETOLL_TESTS_VM_LAB_H
#define WIRETOLL_TESTS_VM_LAB_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/base.h"
#include "meter/meter.h"
#include "wg/wg.h"

#include <sys/types.h>

#define GATEWAY   0
#define CUSTOMERS 2 /* numbered from 1; a customer's slot is its number */
#define CONTAINER 3 /* behind the gateway, where lab_make_container() makes it */

#define LAB_DEVICE "wg0" /* of the gateway; a customer's is wgc */
#define LAB_GROUP  "7"   /* of devices that lab_clean() removes */
#define LAB_PINS   "/run/bpf/meter"
#define LAB_MTU    1420

/* Addresses in the tunnel, as an IPv6 socket takes them. */
#define GATEWAY4 "::ffff:10.8.0.1"
#define GATEWAY6 "fd08::1"
#define FIRST4   "::ffff:10.8.0.2"
#define FIRST6   "fd08::2"
#define SECOND4  "::ffff:10.8.0.3"
#define SECOND6  "fd08::3"
/* And behind it. */
#define CONTAINER4 "::ffff:10.7.0.2"
#define CONTAINER6 "fd07::2"

/* Goes on in a child with namespaces of its own, makes the network and brings the tunnels up: 0 or -1. */
int lab_make(void);

/*
 * A place behind the gateway, by a cable that takes aggregates; the first customer knows the way. All three
 * send large ones: 0 or -1.
 */
int lab_make_container(void);

/* With FULL=1: more of everything. */
bool lab_is_full(void);

/* Removes the devices that a test has made, in whatever state it left them, and their routes with them. */
void lab_clean(void);

/* Runs a shell command at a place (GATEWAY, CONTAINER, or a customer's number); its exit status. */
int lab_run(int place, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What WireGuard has sent from one end to the other and has received there, by its own counts of both:
 * between the gateway and the first customer. */
struct lab_transfer {
	uint64_t sent, received;
};
void lab_read_wireguard(struct lab_transfer *ret_downloads, struct lab_transfer *ret_uploads);
/* Packets that either end's device has dropped on that way. */
uint64_t lab_dropped(bool downloads);

/* Whether TSO, GSO and GRO work on the gateway's device. */
void lab_offloads(bool on);

/* What the test opens from now on is of that place; GATEWAY is where it must be again. */
void lab_enter(int place);
/* Whether the kernel is that or a later one. */
bool lab_kernel_is(int major, int minor);
/* IPv6 packets over 64 KiB of the container: WireGuard makes none of its own. */
void lab_allow_large(bool allowed);
/* A socket of that place; the caller closes it. */
int lab_socket(int place, int family, int type, int protocol);
/* A file of /proc or /sys as that place sees it; the caller closes it. */
FILE *lab_open(int place, const char *path);
/* The index of an interface of that place. */
int lab_ifindex(int place, const char *interface);

/* Loads, attaches and tells the meter both customers' addresses. */
struct meter *lab_attach(void);
struct meter_options lab_options(void);
void lab_set_prefix(struct meter *meter, const char *prefix, uint32_t slot);

/* TCP until all has arrived; how many segments had to be sent again, at any place. */
uint64_t lab_tcp(int from, int to, const char *address, size_t bytes);
/* The same by SCTP. */
void lab_sctp(int from, int to, const char *address, size_t bytes);
/* One of several streams at the same time. */
struct lab_stream {
	int protocol; /* IPPROTO_TCP, IPPROTO_SCTP, or IPPROTO_UDP: datagrams of `segment` bytes, some at once
		       */
	int from, to;
	const char *address;
	size_t bytes;
	uint16_t segment;
};
#define LAB_STREAMS 16 /* at most */
/* Until all of them have arrived; calls `beside` again and again meanwhile. Returns the bytes that have not
 * arrived: of datagrams that were lost. */
size_t lab_streams(const struct lab_stream *streams, size_t n, void (*beside)(void *), void *data);

/* Such a stream without an end, given up when the limit of a slot (0: of all) is used up and nothing moves
 * any more. Returns the bytes that have arrived. */
size_t lab_until_exhausted(const struct meter *meter, uint32_t slot, int protocol, int from, int to,
			   const char *address);

/*
 * `count` datagrams, of sizes that start at `size` and go up by `step`; `segment` is UDP_SEGMENT or 0.
 * Returns how many bytes of them did not arrive.
 */
struct lab_datagrams {
	int from, to;
	const char *address;
	int count;
	size_t size, step;
	uint16_t segment;
};
size_t lab_udp(const struct lab_datagrams *datagrams);

#endif
