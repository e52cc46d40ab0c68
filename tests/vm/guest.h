/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest of a place: a device to which aggregates are written as a virtual machine does, one way and as they
 * are wanted. Nobody answers. */
#ifndef WIRETOLL_TESTS_VM_GUEST_H
#define WIRETOLL_TESTS_VM_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST4      "10.6.0.2" /* where it sends from */
#define GUEST6      "fd06::2"
#define GUEST_LARGE 60000 /* the most payload of one */

struct guest_aggregate {
	const char *to; /* an IPv4 or IPv6 address */
	size_t payload;
	uint16_t segment;  /* into which it is to be cut */
	uint16_t fragment; /* the word of an IPv4 header that has the fragment bits */
	bool udp;          /* one datagram for fragmentation; else TCP */
};

/* At the place; the device goes when it is closed. */
int guest_open(int place);
void guest_write(int fd, const struct guest_aggregate *aggregate);

#endif
