/* SPDX-License-Identifier: BSD-2-Clause */
/* The rows of each resource's file, in routes.c's one table. Each ends with a NULL method. */
#ifndef WIRETOLL_API_RESOURCES_H
#define WIRETOLL_API_RESOURCES_H

#include "route.h"

extern const struct route session_routes[], image_routes[], plan_routes[], plan_group_routes[],
	location_routes[], hypervisor_routes[], user_routes[], vpc_routes[], gateway_routes[], peer_routes[],
	alarm_routes[], audit_routes[];

#endif
