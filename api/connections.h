/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections as something that is scarce: how many an address may hold and how many it may begin, and by
 * when each has to have said what it wants. libmicrohttpd knows no end of a request whose client sends a byte
 * now and then.
 */
#ifndef WIRETOLL_API_CONNECTIONS_H
#define WIRETOLL_API_CONNECTIONS_H

#include "base/base.h"

#include <microhttpd.h>
#include <sys/socket.h>

struct connections;

/*
 * Starts the thread that ends those whose time is over. `per_second` of an address's new ones go on at once,
 * and as many as of five seconds when it had none for as long; the others wait for it. -ENOMEM, or -errno.
 */
WT_MUST_CHECK int connections_start(unsigned per_address, unsigned per_second, unsigned request_seconds,
				    struct connections **ret_connections);

/* Fails handshakes under way, and all that are begun later. To be called before the daemons are stopped. */
void connections_stop(struct connections *connections);

/* When the daemons have been stopped. */
void connections_free(struct connections *connections);

/* For MHD_start_daemon(), with the connections as its context: refuses those of an address that has enough.
 */
enum MHD_Result connections_accept(void *context, const struct sockaddr *address, socklen_t size);

/* For MHD_OPTION_NOTIFY_CONNECTION of a daemon with TLS, with the connections as its context. */
void connections_notify(void *context, struct MHD_Connection *connection, void **socket_context,
			enum MHD_ConnectionNotificationCode code);

/*
 * The request that has begun and is not over, for http.c to find at the connection's end: libmicrohttpd does
 * not tell of the end of one that it refuses without having memory for the answer.
 */
struct exchange;
void connection_set_exchange(struct MHD_Connection *connection, struct exchange *exchange);
struct exchange *connection_exchange(struct MHD_Connection *connection);

/* How long what comes next may take: --request-seconds, and one more for each 16 KiB of it. */
void connection_expect(struct MHD_Connection *connection, size_t bytes);

/* More has come of what is expected. */
void connection_extend(struct MHD_Connection *connection, size_t bytes);

/* It is with us: no time is over before connection_expect(). */
void connection_hold(struct MHD_Connection *connection);

/*
 * A gateway's token came over it: it is one of that gateway's, and counts as none of its address, behind
 * which may be many. A gateway's ninth, and so on, stays one of the address.
 */
void connection_of_gateway(struct MHD_Connection *connection, const char *gateway);

#endif
