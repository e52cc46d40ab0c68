/* SPDX-License-Identifier: BSD-2-Clause */
/* The sockets that a server listens on. */
#ifndef WIRETOLL_BASE_LISTEN_H
#define WIRETOLL_BASE_LISTEN_H

#include "base/base.h"

#define LISTEN_TEXT_SIZE 64

/*
 * Opens a listening TCP socket on "ADDRESS:PORT" or "[ADDRESS]:PORT" and writes what it is bound to, with the
 * port that the kernel chose for 0. Returns the socket, -EINVAL for an address that cannot be read, or
 * -errno.
 */
WT_MUST_CHECK int listen_on(const char *text, char ret_bound[static LISTEN_TEXT_SIZE]);

#endif
