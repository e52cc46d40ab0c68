/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration of a peer's own side, ready to import but for its private key (P2, P3). */
#ifndef WIRETOLL_API_PEER_CONFIG_H
#define WIRETOLL_API_PEER_CONFIG_H

#include "route.h"

/* GET …/peers/{peer}/config */
int get_peer_config(struct request *request, struct response *response);

#endif
