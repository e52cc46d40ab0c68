/* SPDX-License-Identifier: BSD-2-Clause */
/* Where a peer is called: "HOST:PORT" as wg(8) takes it, though more strictly. */
#ifndef WIRETOLL_BASE_HOST_PORT_H
#define WIRETOLL_BASE_HOST_PORT_H

#include "base/cidr.h"

struct host_port {
	bool is_name;        /* to be resolved */
	struct cidr address; /* when it is no name */
	unsigned port;
};

/*
 * Parses four decimal numbers, an IPv6 address in brackets, or a host's name (RFC 1123), and behind a colon a
 * port from 1 to 65535. A name's last label is no number, decimal or hexadecimal: getaddrinfo() would take it
 * for an address in one of inet_aton()'s many forms. Leading zeros are refused everywhere, as some read them
 * as octal. -EINVAL.
 */
WT_MUST_CHECK int host_port_parse(const char *text, struct host_port *ret_host_port);

/* Whether it is a host's name in the sense above: labels of letters, digits and hyphens, 253 characters at
 * most. */
bool is_host_name(const char *text, size_t length);

#endif
