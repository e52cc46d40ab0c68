/* SPDX-License-Identifier: BSD-2-Clause */
/* What the queue says of a gateway, checked: every name and address here is safe to hand to other programs.
 */
#ifndef WIRETOLL_DEPLOY_SPEC_H
#define WIRETOLL_DEPLOY_SPEC_H

#include "base/base.h"
#include "base/cidr.h"
#include "base/json.h"

#include <net/if.h>
#include <sys/types.h>

#define GATEWAY_ID_SIZE 37      /* a UUID's text and its NUL */
#define UID_NUMBERS     3500000 /* gateways that one state directory can have had */

struct deploy_link {
	char bridge[IFNAMSIZ];
	struct cidr address; /* with the length of the subnet */
	char **route_netns;  /* names under /run/netns; "" is the host */
	size_t n_route_netns;
};

struct deploy_spec {
	char gateway[GATEWAY_ID_SIZE];
	unsigned attempt;
	char interface[IFNAMSIZ];
	unsigned uid_number; /* its uid's distance from the host's first one */
	struct deploy_link public_link;
	bool has_router;
	struct cidr router;
	struct deploy_link *vpcs;
	size_t n_vpcs;
	struct cidr *routes; /* what the VPC reaches through the gateway */
	size_t n_routes;
	json_t *json; /* as it came */
};

/* -EINVAL with field, value and what is accepted. Free with deploy_spec_free(), which accepts NULL. */
WT_MUST_CHECK int deploy_spec_parse(const char *text, struct deploy_spec **ret_spec,
				    struct json_problem *problem);
void deploy_spec_free(struct deploy_spec *spec);

/* Whether the text is a UUID in its usual form, fit for a folder's name. */
bool deploy_gateway_id_valid(const char *text);

void cleanup_spec(struct deploy_spec **spec);
#define _cleanup_spec_ WT_CLEANUP(cleanup_spec)

#endif
