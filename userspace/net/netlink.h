/* SPDX-License-Identifier: BSD-2-Clause */
/* One request and its answer over a netlink socket; internal to net/, wg/ and meter/. */
#ifndef WIRETOLL_NET_NETLINK_H
#define WIRETOLL_NET_NETLINK_H

#include "base/base.h"

#include <netlink/msg.h>
#include <netlink/netlink.h>

/* How long the kernel may take for one message, in seconds. */
#define NETLINK_TIMEOUT_SECONDS 2

/*
 * What becomes of an answer. `message` gets every data message and returns 0 or -errno; after an error the
 * rest is read and ignored. `restart` (may be NULL) forgets what was collected: the dump begins anew.
 */
struct netlink_reader {
	int (*message)(const struct nlmsghdr *header, void *data);
	void (*restart)(void *data);
	void *data;
};

/* Opens a socket for NETLINK_ROUTE, NETLINK_GENERIC or NETLINK_NETFILTER in the calling network namespace. */
WT_MUST_CHECK int netlink_open(int protocol, struct nl_sock **ret_socket);

/* A new message of at most `size` bytes; NULL without memory. */
struct nl_msg *netlink_message(uint16_t type, uint16_t flags, size_t size);

/* Wipes a message, which may hold keys, and frees it. NULL is accepted. */
void netlink_message_free(struct nl_msg *message);

/*
 * Sends the message and waits for its end: the acknowledgement, or with NLM_F_DUMP the last part. An
 * interrupted dump is begun anew. `reader` may be NULL. Returns the kernel's own -errno; -ETIMEDOUT; -EAGAIN
 * when a dump is interrupted every time.
 */
WT_MUST_CHECK int netlink_request(struct nl_sock *socket, struct nl_msg *message,
				  const struct netlink_reader *reader);

/* The same over a socket of its own. */
WT_MUST_CHECK int netlink_ask(int protocol, struct nl_msg *message, const struct netlink_reader *reader);

/* The state of one answer, for netlink_consume(). */
struct netlink_answer {
	uint32_t sequence;
	bool done;
	bool interrupted; /* a dump's parts do not belong together */
	int result;       /* the kernel's, or the reader's, first error */
};

/*
 * Takes one received buffer: passes its data messages to the reader and notes end, error and interruption.
 * Messages of other sequences, left over from a request that timed out, are skipped.
 */
void netlink_consume(struct netlink_answer *answer, const void *buffer, size_t length,
		     const struct netlink_reader *reader);

static inline void cleanup_netlink_message(struct nl_msg **message)
{
	netlink_message_free(*message);
}
#define _cleanup_netlink_message_ WT_CLEANUP(cleanup_netlink_message)

#endif
