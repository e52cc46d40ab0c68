/* SPDX-License-Identifier: BSD-2-Clause */
/* What the commands of all nouns share: the plain verbs, request bodies and answers. */
#ifndef WIRETOLL_CLI_RESOURCE_H
#define WIRETOLL_CLI_RESOURCE_H

#include "base/base.h"
#include "cli/options.h"
#include "cli/session.h"

/* A noun whose verbs are list, show, create, edit and delete of one path. */
struct resource {
	const char *path;    /* "/v1/images" */
	const char *columns; /* of its table, as table_print() takes them */
	const struct cli_option *fields;
};

extern const struct resource RESOURCE_IMAGE, RESOURCE_PLAN, RESOURCE_PLAN_GROUP, RESOURCE_LOCATION,
	RESOURCE_HYPERVISOR, RESOURCE_USER, RESOURCE_SESSION, RESOURCE_VPC, RESOURCE_GATEWAY;

/*
 * The request's body: the object of --json-file, if given, with the fields of the options over it. Returns
 * -errno with a problem.
 */
WT_MUST_CHECK int request_body(struct session *session, const struct arguments *arguments, json_t **ret_body);

/* GET and print of one object, or of a list. Return -errno with a problem. */
WT_MUST_CHECK int show_path(struct session *session, const struct arguments *arguments, const char *path);
WT_MUST_CHECK int list_path(struct session *session, const struct arguments *arguments, const char *path,
			    const char *columns);

/* The items of a list as --limit and --after ask. Returns -errno with a problem. */
WT_MUST_CHECK int fetch_list(struct session *session, const struct arguments *arguments, const char *path,
			     json_t **ret_items);

/* Sends a request and prints the object it answers with, if any. `path` NULL counts as out of memory. */
WT_MUST_CHECK int send_and_show(struct session *session, const struct arguments *arguments,
				const char *method, const char *path, const json_t *body);

/* Prints as JSON with --json, else for people. */
WT_MUST_CHECK int print_object(struct session *session, const struct arguments *arguments,
			       const json_t *object);
WT_MUST_CHECK int print_list(struct session *session, const struct arguments *arguments, const char *columns,
			     const json_t *items);

#endif
