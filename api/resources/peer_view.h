/* SPDX-License-Identifier: BSD-2-Clause */
/* Peers as the API shows them (P8). */
#ifndef WIRETOLL_API_PEER_VIEW_H
#define WIRETOLL_API_PEER_VIEW_H

#include "resources/owned.h"
#include "route.h"

WT_MUST_CHECK int answer_peer(struct request *request, struct response *response, unsigned status,
			      const struct owned *gateway, const char *peer);

/* The peer that the path's second argument names, by id or name; 404. */
WT_MUST_CHECK int find_peer(struct request *request, struct response *response, const struct owned *gateway,
			    char ret_id[static UUID_TEXT_SIZE]);

/* GET …/peers and …/peers/{peer} */
int list_peers(struct request *request, struct response *response);
int get_peer(struct request *request, struct response *response);

#endif
