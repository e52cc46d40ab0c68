// SPDX-License-Identifier: BSD-2-Clause
#include "agent/desired.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define MTU_MIN 576
#define MTU_MAX 65535

bool cidr_list_equal(const struct cidr_list *a, const struct cidr_list *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (cidr_compare(&a->items[i], &b->items[i]) != 0)
			return false;
	return true;
}

bool cidr_list_has(const struct cidr_list *list, const struct cidr *cidr)
{
	return list->count > 0 && bsearch(cidr, list->items, list->count, sizeof(*cidr), cidr_compare);
}

static void sort_once_each(struct cidr_list *list)
{
	size_t kept = 0;

	if (list->count == 0)
		return;
	qsort(list->items, list->count, sizeof(*list->items), cidr_compare);
	for (size_t i = 0; i < list->count; i++)
		if (kept == 0 || cidr_compare(&list->items[kept - 1], &list->items[i]) != 0)
			list->items[kept++] = list->items[i];
	list->count = kept;
}

/* An array of prefixes; absent means empty. `networks`: host bits must be zero. */
static int read_cidrs(const json_t *object, const char *field, bool networks, struct cidr_list *list,
		      struct json_problem *problem)
{
	const json_t *array = NULL, *item;
	size_t i;
	int r = json_read_array(object, field, &array, problem);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	list->items = calloc(json_array_size(array) + 1, sizeof(*list->items));
	if (!list->items)
		return -ENOMEM;
	json_array_foreach (array, i, item) {
		const char *text = json_string_value(item);

		if (!text || cidr_parse(text, &list->items[i]) < 0 ||
		    (networks && !cidr_is_network(&list->items[i]))) {
			json_problem_set(problem, field, "%s[%zu] is \"%.60s\"; accepted is ADDRESS/LENGTH%s",
					 field, i, text ? text : "?", networks ? " without host bits" : "");
			return -EINVAL;
		}
		list->count++;
	}
	sort_once_each(list);
	return 0;
}

/* Never quotes the text: it may be a secret. */
static int read_key(const json_t *object, const char *field, struct key *ret_key,
		    struct json_problem *problem)
{
	const char *text = NULL;
	int r = json_read_string(object, field, &text, problem);

	if (r < 0)
		return r;
	if (key_parse(text, ret_key) < 0) {
		json_problem_set(problem, field, "%s is not a key; accepted is 44 characters of base64",
				 field);
		return -EINVAL;
	}
	return 0;
}

static int read_uuid(const json_t *object, const char *field, uint8_t *ret_uuid, struct json_problem *problem)
{
	const char *text = NULL;
	int r = json_require(json_read_string(object, field, &text, problem), field, problem);

	if (r < 0)
		return r;
	if (uuid_parse(text, ret_uuid) < 0) {
		json_problem_set(problem, field, "%s is \"%.40s\"; accepted is a UUID", field, text);
		return -EINVAL;
	}
	return 0;
}

/* An absent field keeps its default: that is no problem of the reader's. */
static int optional(int result)
{
	return result == -ENOENT ? 0 : result;
}

static int read_endpoint(const json_t *object, struct desired_peer *peer, struct json_problem *problem)
{
	const char *text = NULL;
	int r = json_read_string(object, "endpoint", &text, problem);

	if (r < 0)
		return optional(r);
	if (strlen(text) >= sizeof(peer->endpoint) || !strrchr(text, ':')) {
		json_problem_set(problem, "endpoint", "endpoint is \"%.60s\"; accepted is HOST:PORT", text);
		return -EINVAL;
	}
	snprintf(peer->endpoint, sizeof(peer->endpoint), "%s", text);
	return 0;
}

static int read_peer(const json_t *object, struct desired_peer *peer, struct json_problem *problem)
{
	int64_t keepalive = 0;
	int r = read_uuid(object, "id", peer->id, problem);

	if (r == 0)
		r = json_require(read_key(object, "public_key", &peer->public_key, problem), "public_key",
				 problem);
	if (r == 0) {
		r = read_key(object, "preshared_key", &peer->preshared_key, problem);
		peer->has_preshared_key = r == 0;
		r = optional(r);
	}
	if (r == 0)
		r = read_endpoint(object, peer, problem);
	if (r == 0)
		r = optional(json_read_int(object, "keepalive", 0, UINT16_MAX, &keepalive, problem));
	if (r == 0)
		r = read_cidrs(object, "allowed_ips", true, &peer->allowed_ips, problem);
	if (r == 0) {
		peer->enabled = true;
		r = optional(json_read_bool(object, "enabled", &peer->enabled, problem));
	}
	peer->keepalive = (uint16_t)keepalive;
	return r;
}

static int compare_peers(const void *a, const void *b)
{
	const struct desired_peer *left = a, *right = b;

	return memcmp(left->public_key.bytes, right->public_key.bytes, KEY_SIZE);
}

static int read_peers(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	const json_t *array = NULL, *item;
	size_t i;
	int r = json_read_array(body, "peers", &array, problem);

	if (r < 0)
		return optional(r);
	desired->peers = calloc(json_array_size(array) + 1, sizeof(*desired->peers));
	if (!desired->peers)
		return -ENOMEM;
	json_array_foreach (array, i, item) {
		desired->n_peers++;
		r = read_peer(item, &desired->peers[i], problem);
		if (r < 0)
			return r;
	}
	qsort(desired->peers, desired->n_peers, sizeof(*desired->peers), compare_peers);
	return 0;
}

static int read_interface(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	const json_t *interface = NULL;
	int64_t port = 0, mtu = 1420;
	int r = json_require(json_read_object(body, "interface", &interface, problem), "interface", problem);

	if (r == 0)
		r = read_cidrs(interface, "addresses", false, &desired->addresses, problem);
	if (r == 0)
		r = json_require(json_read_int(interface, "listen_port", 1, UINT16_MAX, &port, problem),
				 "listen_port", problem);
	if (r == 0)
		r = optional(json_read_int(interface, "mtu", MTU_MIN, MTU_MAX, &mtu, problem));
	desired->listen_port = (uint16_t)port;
	desired->mtu = (uint32_t)mtu;
	return r;
}

static int read_firewall(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	const json_t *firewall = NULL;
	int r = json_require(json_read_object(body, "firewall", &firewall, problem), "firewall", problem);

	if (r == 0)
		r = read_cidrs(firewall, "tunnel_subnets", true, &desired->tunnel_subnets, problem);
	if (r == 0)
		r = read_cidrs(firewall, "vpc_subnets", true, &desired->vpc_subnets, problem);
	if (r == 0)
		r = read_cidrs(firewall, "remote_subnets", true, &desired->remote_subnets, problem);
	return r;
}

struct word {
	const char *text;
	uint32_t value;
};

static const struct word masquerades[] = {
	{"none", NET_MASQUERADE_NONE},
	{"road_warriors", NET_MASQUERADE_ROAD_WARRIORS},
	{"all", NET_MASQUERADE_ALL},
};
static const struct word masks[] = {
	{"uploads", WT_UPLOADS},
	{"downloads", WT_DOWNLOADS},
	{"both", WT_UPLOADS | WT_DOWNLOADS},
};
static const struct word reasons[] = {
	{"admin", WT_REFUSE_ADMIN},
	{"billing", WT_REFUSE_BILLING},
};

static int find_word(const struct word *words, size_t n_words, const char *field, const char *text,
		     uint32_t *ret_value, struct json_problem *problem)
{
	for (size_t i = 0; text && i < n_words; i++)
		if (strcmp(words[i].text, text) == 0) {
			*ret_value = words[i].value;
			return 0;
		}
	json_problem_set(problem, field, "%s is \"%.40s\"; accepted begins with \"%s\"", field,
			 text ? text : "?", words[0].text);
	return -EINVAL;
}

static int read_masquerade(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	const char *text = NULL;
	uint32_t value = NET_MASQUERADE_NONE;
	int r = json_read_string(body, "masquerade", &text, problem);

	if (r == 0)
		r = find_word(masquerades, ARRAY_SIZE(masquerades), "masquerade", text, &value, problem);
	desired->masquerade = (enum net_masquerade)value;
	return optional(r);
}

static int read_refuse(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	const json_t *array = NULL, *item;
	size_t i;
	int r = json_read_array(body, "refuse", &array, problem);

	if (r < 0)
		return optional(r);
	json_array_foreach (array, i, item) {
		uint32_t reason = 0;

		r = find_word(reasons, ARRAY_SIZE(reasons), "refuse", json_string_value(item), &reason,
			      problem);
		if (r < 0)
			return r;
		desired->refuse |= reason;
	}
	return 0;
}

static int read_grant_epoch(const json_t *object, struct desired_grant *granted, struct json_problem *problem)
{
	const char *text = NULL;
	int r = json_read_string(object, "epoch", &text, problem);

	if (r < 0)
		return optional(r);
	if (uuid_parse(text, granted->epoch) < 0) {
		json_problem_set(problem, "epoch", "epoch is %.40s; accepted is a UUID", text);
		return -EINVAL;
	}
	granted->has_epoch = true;
	return 0;
}

static int read_grant(const json_t *object, struct desired_grant *granted, struct json_problem *problem)
{
	struct meter_grant *grant = &granted->grant;
	const char *mask = NULL;
	int64_t cycle = 0, grant_seq = 0;
	int r = json_require(json_read_int(object, "cycle", 1, INT64_MAX, &cycle, problem), "cycle", problem);

	if (r == 0)
		r = json_require(json_read_int(object, "grant_seq", 0, INT64_MAX, &grant_seq, problem),
				 "grant_seq", problem);
	if (r == 0) {
		grant->ceiling = WT_NO_CEILING;
		r = optional(json_read_u64(object, "ceiling", &grant->ceiling, problem));
	}
	if (r == 0)
		r = json_require(json_read_string(object, "mask", &mask, problem), "mask", problem);
	if (r == 0)
		r = find_word(masks, ARRAY_SIZE(masks), "mask", mask, &grant->mask, problem);
	if (r == 0)
		r = read_grant_epoch(object, granted, problem);
	grant->cycle = (uint64_t)cycle;
	grant->grant_seq = (uint64_t)grant_seq;
	return r;
}

/* Behind the others: what is in force comes first. */
static int read_next_grant(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	struct desired_grant *granted = &desired->grants[desired->n_grants];
	const json_t *object = NULL;
	const char *text = NULL;
	int r = json_read_object(body, "next_grant", &object, problem);

	if (r < 0)
		return optional(r);
	r = json_require(json_read_string(object, "not_before", &text, problem), "not_before", problem);
	if (r == 0 && clock_parse(text, &granted->not_before_ns) < 0) {
		json_problem_set(problem, "not_before",
				 "not_before is \"%.40s\"; accepted is an RFC 3339 instant", text);
		return -EINVAL;
	}
	if (r == 0)
		r = read_grant(object, granted, problem);
	if (r == 0)
		desired->n_grants++;
	return r;
}

static int read_grants(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	const json_t *array = NULL, *item;
	size_t i;
	int r = json_read_array(body, "grants", &array, problem);

	if (r < 0)
		return optional(r);
	desired->grants = calloc(json_array_size(array) + 2, sizeof(*desired->grants));
	if (!desired->grants)
		return -ENOMEM;
	json_array_foreach (array, i, item) {
		r = read_grant(item, &desired->grants[i], problem);
		if (r < 0)
			return r;
		desired->n_grants++;
	}
	return read_next_grant(body, desired, problem);
}

static int read_all(const json_t *body, struct desired *desired, struct json_problem *problem)
{
	int64_t revision = 0;
	int r = json_require(json_read_int(body, "revision", 0, INT64_MAX, &revision, problem), "revision",
			     problem);

	desired->revision = (uint64_t)revision;
	if (r == 0)
		r = optional(json_read_bool(body, "gone", &desired->gone, problem));
	/* Nothing else matters then, and it may be missing. */
	if (r < 0 || desired->gone)
		return r;
	r = read_interface(body, desired, problem);
	if (r == 0)
		r = read_firewall(body, desired, problem);
	if (r == 0)
		r = read_cidrs(body, "routes", true, &desired->routes, problem);
	if (r == 0)
		r = read_masquerade(body, desired, problem);
	if (r == 0)
		r = read_peers(body, desired, problem);
	if (r == 0)
		r = read_refuse(body, desired, problem);
	if (r == 0)
		r = read_grants(body, desired, problem);
	return r;
}

int desired_parse(const json_t *body, struct desired **ret_desired, struct json_problem *problem)
{
	struct desired *desired = calloc(1, sizeof(*desired));
	int r;

	if (!desired)
		return -ENOMEM;
	r = read_all(body, desired, problem);
	if (r < 0) {
		desired_free(desired);
		return r;
	}
	*ret_desired = desired;
	return 0;
}

void desired_free(struct desired *desired)
{
	if (!desired)
		return;
	for (size_t i = 0; i < desired->n_peers; i++)
		free(desired->peers[i].allowed_ips.items);
	if (desired->peers)
		sodium_memzero(desired->peers, desired->n_peers * sizeof(*desired->peers));
	free(desired->peers);
	free(desired->addresses.items);
	free(desired->tunnel_subnets.items);
	free(desired->vpc_subnets.items);
	free(desired->remote_subnets.items);
	free(desired->routes.items);
	free(desired->grants);
	free(desired);
}

const struct desired_peer *desired_find_key(const struct desired *desired, const struct key *public_key)
{
	struct desired_peer wanted = {.public_key = *public_key};

	if (desired->n_peers == 0)
		return NULL;
	return bsearch(&wanted, desired->peers, desired->n_peers, sizeof(wanted), compare_peers);
}

const struct desired_peer *desired_find_id(const struct desired *desired, const uint8_t id[static UUID_SIZE])
{
	for (size_t i = 0; i < desired->n_peers; i++)
		if (uuid_equal(desired->peers[i].id, id))
			return &desired->peers[i];
	return NULL;
}
