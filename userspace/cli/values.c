// SPDX-License-Identifier: BSD-2-Clause
#include "cli/values.h"

#include "base/cidr.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

int peer_name_parse(const char *text, struct peer_name *ret_name)
{
	const char *slash = strchr(text, '/');
	size_t gateway_length, peer_length;

	if (!slash || strchr(slash + 1, '/'))
		return -EINVAL;
	gateway_length = (size_t)(slash - text);
	peer_length = strlen(slash + 1);
	if (gateway_length == 0 || gateway_length >= NAME_SIZE || peer_length == 0 ||
	    peer_length >= NAME_SIZE)
		return -EINVAL;
	memcpy(ret_name->gateway, text, gateway_length);
	ret_name->gateway[gateway_length] = '\0';
	memcpy(ret_name->peer, slash + 1, peer_length + 1);
	return 0;
}

int amount_check(const char *text)
{
	size_t whole = strspn(text, "0123456789");
	size_t decimals;

	if (whole == 0 || whole > 10)
		return -EINVAL;
	if (text[whole] == '\0')
		return 0;
	if (text[whole] != '.')
		return -EINVAL;
	decimals = strspn(text + whole + 1, "0123456789");
	if (decimals == 0 || decimals > 9 || text[whole + 1 + decimals] != '\0')
		return -EINVAL;
	return 0;
}

int integer_parse(const char *text, int64_t *ret_value)
{
	int64_t value = 0;

	if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
		return -EINVAL;
	for (; *text; text++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, *text - '0', &value))
			return -ERANGE;
	}
	*ret_value = value;
	return 0;
}

int switch_parse(const char *text, bool *ret_value)
{
	if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
		return -EINVAL;
	*ret_value = text[1] == 'n';
	return 0;
}

static bool begins_like(const char *word, const char *text)
{
	for (; *text; text++, word++) {
		if (*word != (*text == '-' ? '_' : *text))
			return false;
	}
	return true;
}

int choice_parse(const char *choices, const char *text, char **ret_word)
{
	size_t text_length = strlen(text), found_length = 0;
	const char *found = NULL, *next;
	bool ambiguous = false;
	char *word;

	for (const char *choice = choices; choice; choice = next ? next + 1 : NULL) {
		next = strchr(choice, '|');

		size_t length = next ? (size_t)(next - choice) : strlen(choice);

		if (text_length > length || !begins_like(choice, text))
			continue;
		ambiguous = found && text_length != length;
		found = choice;
		found_length = length;
		if (text_length == length)
			break;
	}
	if (!found || ambiguous || text_length == 0)
		return -EINVAL;
	word = strndup(found, found_length);
	if (!word)
		return -ENOMEM;
	*ret_word = word;
	return 0;
}

/* A range is "FIRST-LAST" of one family, or a network. */
static int check_range(const char *text)
{
	_cleanup_free_ char *first = strdup(text);
	struct cidr a, b;
	char *dash;

	if (!first)
		return -ENOMEM;
	dash = strchr(first, '-');
	if (!dash)
		return cidr_parse(text, &a) < 0 || !cidr_is_network(&a) ? -EINVAL : 0;
	*dash = '\0';
	if (cidr_parse_address(first, &a) < 0 || cidr_parse_address(dash + 1, &b) < 0 ||
	    a.family != b.family || cidr_compare(&a, &b) > 0)
		return -EINVAL;
	return 0;
}

static int wrong_part(struct json_problem *problem, const char *part, const char *value, const char *accepted)
{
	json_problem_set(problem, part, "%s is \"%.80s\"; accepted is %s", part, value, accepted);
	return -EINVAL;
}

static int set_part(json_t *subnet, const char *key, const char *value, struct json_problem *problem)
{
	_cleanup_json_ json_t *text = json_string(value);
	json_t *attachment = json_object_get(subnet, "attachment");
	struct cidr address;
	int r;

	if (!text)
		return wrong_part(problem, key, "…", "UTF-8 text");
	if (strcmp(key, "range") == 0) {
		r = check_range(value);
		if (r == -EINVAL)
			return wrong_part(problem, key, value, "FIRST-LAST or a network such as 10.1.0.0/28");
		return r < 0 ? r : json_object_set(subnet, "gateway_range", text);
	}
	if (strcmp(key, "router") == 0) {
		if (cidr_parse_address(value, &address) < 0)
			return wrong_part(problem, key, value, "an IP address");
		return json_object_set(subnet, "router", text);
	}
	if (strcmp(key, "bridge") == 0 || strcmp(key, "hypervisor") == 0) {
		if (*value == '\0')
			return wrong_part(problem, key, value, "a name");
		return json_object_set(attachment, key, text);
	}
	if (strcmp(key, "route-netns") == 0)
		return json_array_append(json_object_get(attachment, "route_netns"), text);
	return wrong_part(problem, "subnet", key,
			  "bridge=, hypervisor=, range=, router= or route-netns= behind the network");
}

/* Without a bridge the subnet is attached nowhere. */
static int finish_attachment(json_t *subnet, struct json_problem *problem)
{
	json_t *attachment = json_object_get(subnet, "attachment");

	if (json_object_get(attachment, "bridge"))
		return 0;
	if (json_array_size(json_object_get(attachment, "route_netns")) > 0 ||
	    json_object_get(attachment, "hypervisor")) {
		json_problem_set(problem, "bridge",
				 "route-netns= and hypervisor= need a bridge= beside them");
		return -EINVAL;
	}
	return json_object_set_new(subnet, "attachment", json_null()) < 0 ? -ENOMEM : 0;
}

int subnet_parse(const char *text, bool is_public, json_t **ret_subnet, struct json_problem *problem)
{
	_cleanup_free_ char *copy = strdup(text);
	_cleanup_json_ json_t *subnet = NULL;
	char *rest = copy, *network, *part;
	struct cidr cidr;
	int r;

	if (!copy)
		return -ENOMEM;
	network = strsep(&rest, ",");
	if (!strchr(network, '/') || cidr_parse(network, &cidr) < 0 || !cidr_is_network(&cidr))
		return wrong_part(problem, "subnet", network,
				  "a network such as 10.1.0.0/24, host bits zero");
	subnet = json_pack("{s:s, s:b, s:n, s:n, s:{s:[]}}", "cidr", network, "public", is_public,
			   "gateway_range", "router", "attachment", "route_netns");
	if (!subnet)
		return -ENOMEM;
	while ((part = strsep(&rest, ","))) {
		char *value = strchr(part, '=');

		if (!value)
			return wrong_part(problem, "subnet", part, "NETWORK[,NAME=VALUE]...");
		*value++ = '\0';
		r = set_part(subnet, part, value, problem);
		if (r < 0)
			return r == -EINVAL ? r : -ENOMEM;
	}
	r = finish_attachment(subnet, problem);
	if (r < 0)
		return r;
	*ret_subnet = TAKE_PTR(subnet);
	return 0;
}

int fingerprint_parse(const char *text, uint8_t ret_hash[static 32])
{
	uint8_t hash[32];
	size_t length = 0;
	const char *end = NULL;

	if (sodium_hex2bin(hash, sizeof(hash), text, strlen(text), ":", &length, &end) != 0 ||
	    length != sizeof(hash) || *end != '\0')
		return -EINVAL;
	memcpy(ret_hash, hash, sizeof(hash));
	return 0;
}
