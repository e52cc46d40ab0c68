/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmicrohttpd tries all handshakes that wait for their client again and again, without a pause: a client
 * that falls silent in the middle of its own would keep a processor busy, and a crowd of clients all of them.
 * Here, such a connection is suspended until its client has sent something or its time is over. So is one
 * that comes too early, and while another is at work: the threads are there for requests, too.
 */
#ifndef WIRETOLL_API_HANDSHAKE_H
#define WIRETOLL_API_HANDSHAKE_H

#include "base/base.h"

#include <microhttpd.h>
#include <stdint.h>

struct handshake;
struct handshakes;

/* Starts a thread that waits for the clients, so long for each handshake. -ENOMEM, or -errno. */
WT_MUST_CHECK int handshakes_start(unsigned seconds, struct handshakes **ret_handshakes);

/*
 * To be called when libmicrohttpd has accepted a connection with TLS, of which nothing is read before
 * `from_ns`; its time begins then. NULL without memory: it stays as libmicrohttpd has made it.
 */
struct handshake *handshake_begin(struct handshakes *handshakes, struct MHD_Connection *connection,
				  int64_t from_ns);

/* When libmicrohttpd has closed it. */
void handshake_end(struct handshake *handshake);

/* Fails those under way, and all that are begun later. To be called before the daemons are stopped. */
void handshakes_stop(struct handshakes *handshakes);

/* When the daemons have been stopped. */
void handshakes_free(struct handshakes *handshakes);

#endif
