/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tunnels within the tunnel: between the first customer and the gateway, or a container behind it. Several
 * stand at the same time, by number, and lab_clean() removes what is left of them.
 */
#ifndef WIRETOLL_TESTS_VM_TUNNELS_H
#define WIRETOLL_TESTS_VM_TUNNELS_H

#include <stdbool.h>
#include <stddef.h>

#define IPV4 1
#define IPV6 2
#define BOTH (IPV4 | IPV6)

struct tunnel_kind {
	const char *name, *make;
	int within; /* what it can carry */
	int end;    /* where it ends, GATEWAY or CONTAINER; with FULL=1 both */
};

#define TUNNEL_KINDS 18
extern const struct tunnel_kind tunnel_kinds[TUNNEL_KINDS];
const struct tunnel_kind *tunnel_named(const char *name);
/* Whether this kernel cuts what is in it before it comes to the hook. */
bool tunnel_is_cut(const struct tunnel_kind *kind);
/* Whether the kernel keeps two of these apart that have the same ends. */
bool tunnel_differs(const struct tunnel_kind *one, const struct tunnel_kind *other);

/* What all of them need, once: 0 or -1. */
int tunnels_prepare(void);
void tunnel_make(const struct tunnel_kind *kind, int end, int number);
void tunnel_remove(int end, int number);

/* An address within the tunnel of that number: its customer's end, or the other; of the last four calls. */
const char *tunnel_address(int number, int version, bool customer);

#endif
