/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where peers were last: kept in BASE/endpoints.json, and given back when a peer is enabled again or the
 * device is made anew, so that its traffic returns without waiting for the peer to call.
 */
#ifndef WIRETOLL_AGENT_ENDPOINTS_H
#define WIRETOLL_AGENT_ENDPOINTS_H

#include <sys/socket.h>

#include "base/uuid.h"

struct endpoint {
	uint8_t peer_id[UUID_SIZE];
	struct sockaddr_storage address;
};

struct endpoints {
	struct endpoint *items; /* sorted by peer id */
	size_t count, size;
	bool changed; /* since the last save */
};

/* "203.0.113.5:51820", "[2001:db8::1]:51820". Returns -EINVAL for anything but a numeric address. */
WT_MUST_CHECK int endpoint_parse(const char *text, struct sockaddr_storage *ret_address);

#define ENDPOINT_NUMERIC_SIZE 64
/* Writes ENDPOINT_NUMERIC_SIZE bytes; returns the buffer. */
const char *endpoint_format(const struct sockaddr_storage *address, char *buffer);

const struct endpoint *endpoints_find(const struct endpoints *endpoints,
				      const uint8_t peer_id[static UUID_SIZE]);
/* An unspecified address is not remembered. Returns -ENOMEM. */
WT_MUST_CHECK int endpoints_put(struct endpoints *endpoints, const uint8_t peer_id[static UUID_SIZE],
				const struct sockaddr_storage *address);
void endpoints_forget(struct endpoints *endpoints, const uint8_t peer_id[static UUID_SIZE]);

/* A missing or damaged file is an empty book: it only saves time. */
WT_MUST_CHECK int endpoints_load(const char *base, struct endpoints *ret_endpoints);
/* Writes the file if something changed. */
WT_MUST_CHECK int endpoints_save(const char *base, struct endpoints *endpoints);
void endpoints_free(struct endpoints *endpoints);

#endif
