// SPDX-License-Identifier: BSD-2-Clause
/*
 * The API's answer as the agent reads it. What is accepted is in the order that lookups need, what is refused
 * says why, and a key is never quoted.
 */
#include "fuzz.h"

#include "../../userspace/agent/desired.c"

static void claim_sorted(const struct cidr_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		CLAIM(cidr_list_has(list, &list->items[i]));
		CLAIM(i == 0 || cidr_compare(&list->items[i - 1], &list->items[i]) < 0);
		CLAIM(list->items[i].prefix_length <= cidr_max_length(&list->items[i]));
	}
}

static void claim_networks(const struct cidr_list *list)
{
	claim_sorted(list);
	for (size_t i = 0; i < list->count; i++)
		CLAIM(cidr_is_network(&list->items[i]));
}

static void claim_valid(const struct desired *desired)
{
	if (desired->gone)
		return;
	CLAIM(desired->listen_port > 0);
	CLAIM(desired->mtu >= MTU_MIN && desired->mtu <= MTU_MAX);
	claim_sorted(&desired->addresses);
	claim_networks(&desired->tunnel_subnets);
	claim_networks(&desired->vpc_subnets);
	claim_networks(&desired->remote_subnets);
	claim_networks(&desired->routes);
	for (size_t i = 0; i < desired->n_peers; i++) {
		const struct desired_peer *peer = &desired->peers[i];

		claim_networks(&peer->allowed_ips);
		CLAIM(desired_find_key(desired, &peer->public_key));
		CLAIM(desired_find_id(desired, peer->id));
		CLAIM(i == 0 || compare_peers(peer - 1, peer) <= 0);
		CLAIM(memchr(peer->endpoint, '\0', sizeof(peer->endpoint)));
	}
	for (size_t i = 0; i < desired->n_grants; i++) {
		const struct meter_grant *grant = &desired->grants[i].grant;

		CLAIM(grant->cycle >= 1 && grant->mask >= 1 && grant->mask <= 3);
	}
}

/* Whether the text stands in the input but once; another field's value may be quoted. */
static bool is_there_once(const uint8_t *data, size_t size, const char *text)
{
	const uint8_t *first = memmem(data, size, text, strlen(text));

	return first && !memmem(first + 1, size - (size_t)(first + 1 - data), text, strlen(text));
}

/* No key stands in a message, whatever is wrong with it. */
static void claim_secrets_kept(const uint8_t *data, size_t size, const json_t *body,
			       const struct json_problem *problem)
{
	const json_t *peer;
	size_t i;

	json_array_foreach (json_object_get(body, "peers"), i, peer) {
		const char *secret = json_string_value(json_object_get(peer, "preshared_key"));

		if (secret && strlen(secret) >= 40 && is_there_once(data, size, secret))
			CLAIM(!strstr(problem->message, secret));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_json_ json_t *body = json_loadb((const char *)data, size, 0, NULL);
	struct json_problem problem = {0};
	struct desired *desired = NULL;
	int r;

	if (!json_is_object(body))
		return 0;
	r = desired_parse(body, &desired, &problem);
	CLAIM(r == 0 || r == -EINVAL);
	CLAIM((r == 0) == (desired != NULL));
	if (r == 0)
		claim_valid(desired);
	else
		CLAIM(problem.message[0]);
	claim_secrets_kept(data, size, body, &problem);
	desired_free(desired);
	return 0;
}
