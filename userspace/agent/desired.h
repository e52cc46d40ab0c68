/* SPDX-License-Identifier: BSD-2-Clause */
/* The desired state, as the API describes it. Pure: nothing here touches the system. */
#ifndef WIRETOLL_AGENT_DESIRED_H
#define WIRETOLL_AGENT_DESIRED_H

#include "base/uuid.h"
#include "base/cidr.h"
#include "base/json.h"
#include "base/key.h"
#include "meter/meter.h"
#include "net/net.h"

#define ENDPOINT_TEXT_SIZE 264 /* a host name of 253 characters, a colon, a port */

struct cidr_list {
	struct cidr *items; /* sorted by cidr_compare, each once */
	size_t count;
};

struct desired_peer {
	uint8_t id[UUID_SIZE];
	struct key public_key;
	struct key preshared_key;
	bool has_preshared_key;
	char endpoint[ENDPOINT_TEXT_SIZE]; /* "": none */
	uint16_t keepalive;
	struct cidr_list allowed_ips;
	bool enabled;
};

/* A ceiling is a count of one epoch; in another one it means nothing. */
struct desired_grant {
	struct meter_grant grant;
	bool has_epoch;
	uint8_t epoch[UUID_SIZE];
	int64_t not_before_ns; /* UTC, of the next cycle's; 0: in force at once */
};

struct desired {
	uint64_t revision;
	bool gone;
	struct cidr_list addresses;
	uint16_t listen_port;
	uint32_t mtu;
	struct cidr_list tunnel_subnets, vpc_subnets, remote_subnets;
	enum net_masquerade masquerade;
	struct cidr_list routes;
	struct desired_peer *peers; /* sorted by public key */
	size_t n_peers;
	uint32_t refuse; /* WT_REFUSE_* */
	struct desired_grant *grants;
	size_t n_grants;
};

/* Reads the body of the state answer. Returns -EINVAL with the problem, or -ENOMEM. */
WT_MUST_CHECK int desired_parse(const json_t *body, struct desired **ret_desired,
				struct json_problem *problem);

/* Wipes the keys; NULL is accepted. */
void desired_free(struct desired *desired);

/* NULL when no peer has the key, or the id. */
const struct desired_peer *desired_find_key(const struct desired *desired, const struct key *public_key);
const struct desired_peer *desired_find_id(const struct desired *desired, const uint8_t id[static UUID_SIZE]);

bool cidr_list_equal(const struct cidr_list *a, const struct cidr_list *b);
bool cidr_list_has(const struct cidr_list *list, const struct cidr *cidr);

#endif
