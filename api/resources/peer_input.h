/* SPDX-License-Identifier: BSD-2-Clause */
/* What a request says about a peer, checked as far as that goes without the gateway (P1, P3). */
#ifndef WIRETOLL_API_PEER_INPUT_H
#define WIRETOLL_API_PEER_INPUT_H

#include "base/cidr.h"
#include "base/key.h"
#include "resources/form.h"

#define MAX_ALLOWED_IPS 256

enum preshared_change { PRESHARED_AS_IT_WAS, PRESHARED_NONE, PRESHARED_NEW };

struct peer_input {
	bool site;
	const char *name, *keepalive, *enabled;
	bool has_public_key;
	struct key public_key;
	/* Of a road warrior; the texts are empty when the request names none. */
	char tunnel_ip[CIDR_TEXT_SIZE], tunnel_ip6[CIDR_TEXT_SIZE];
	char *dns, *search_domains; /* arrays as PostgreSQL reads them, or NULL; owned */
	/* Of a site. */
	bool has_endpoint;
	const char *endpoint;
	char endpoint_address[CIDR_TEXT_SIZE]; /* empty when it is a name, or none is given */
	size_t n_allowed_ips;                  /* 0: as they were */
	struct cidr *allowed_ips;
	enum preshared_change preshared_change;
	struct key preshared_key;
	struct form form; /* keeps the numbers' text */
};

/* Tells the kind of a new peer. */
WT_MUST_CHECK int peer_input_kind(const struct request *request, struct response *response, bool *ret_site);

/* Reads the rest; REQUIRED for a new peer. -EBADMSG, or -ENOMEM. Free it in any case. */
WT_MUST_CHECK int peer_input_read(const struct request *request, struct response *response, bool site,
				  enum need need, struct peer_input *input);
void peer_input_free(struct peer_input *input);

#endif
