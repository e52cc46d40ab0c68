/* SPDX-License-Identifier: BSD-2-Clause */
/* One typed reader for each kind of value that the command line takes. */
#ifndef WIRETOLL_CLI_VALUES_H
#define WIRETOLL_CLI_VALUES_H

#include "base/base.h"
#include "base/json.h"

#define NAME_SIZE 256

struct peer_name {
	char gateway[NAME_SIZE];
	char peer[NAME_SIZE];
};

/* "prod/laptop". Both parts must be there and there is one slash only. Returns -EINVAL. */
WT_MUST_CHECK int peer_name_parse(const char *text, struct peer_name *ret_name);

/*
 * Whether `text` is an amount as the API takes it: up to 10 digits, and up to 9 behind a point ("10.5").
 * No sign, no exponent. Returns -EINVAL.
 */
WT_MUST_CHECK int amount_check(const char *text);

/* A decimal integer from 0 to INT64_MAX. Returns -EINVAL, -ERANGE. */
WT_MUST_CHECK int integer_parse(const char *text, int64_t *ret_value);

/* "on" or "off". Returns -EINVAL. */
WT_MUST_CHECK int switch_parse(const char *text, bool *ret_value);

/*
 * Finds `text` among `choices` ("road_warrior|site_to_site"): the word itself, with '-' for '_', or a
 * beginning that fits one word only. The caller frees the word. Returns -EINVAL, -ENOMEM.
 */
WT_MUST_CHECK int choice_parse(const char *choices, const char *text, char **ret_word);

/*
 * A subnet of a VPC: "10.1.0.0/24,bridge=NAME,hypervisor=NAME,range=10.1.0.2-10.1.0.9,router=ADDRESS,
 * route-netns=NAME", of which only the first is needed and route-netns may come again ("" is the host).
 * Returns the API's object, or -EINVAL with a message, or -ENOMEM.
 */
WT_MUST_CHECK int subnet_parse(const char *text, bool is_public, json_t **ret_subnet,
			       struct json_problem *problem);

/* The SHA-256 of a certificate: 64 hexadecimal digits, colons between bytes allowed. Returns -EINVAL. */
WT_MUST_CHECK int fingerprint_parse(const char *text, uint8_t ret_hash[static 32]);

#endif
