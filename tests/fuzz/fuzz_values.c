// SPDX-License-Identifier: BSD-2-Clause
/* Prefixes, amounts, keys and what the command line takes: one value, as text. */
#include "fuzz.h"

#include "base/cidr.h"
#include "base/clock.h"
#include "base/key.h"
#include "cli/values.h"
#include "standalone/amount.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>

/* Bit by bit. */
static bool is_in(const struct cidr *prefix, const struct cidr *address)
{
	for (unsigned bit = 0; bit < prefix->prefix_length; bit++)
		if ((prefix->bytes[bit / 8] ^ address->bytes[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return true;
}

static void try_cidr(const char *text)
{
	char formatted[CIDR_TEXT_SIZE];
	struct cidr cidr, again, network;

	if (cidr_parse(text, &cidr) < 0)
		return;
	CLAIM(cidr.prefix_length <= (cidr.family == AF_INET ? 32 : 128));
	CLAIM(cidr_parse(cidr_format(&cidr, formatted), &again) == 0);
	CLAIM(cidr_equal(&cidr, &again));
	network = cidr_network(&cidr);
	CLAIM(cidr_is_network(&network));
	CLAIM(is_in(&network, &cidr));
	CLAIM(cidr_contains(&network, &cidr) && cidr_overlaps(&network, &cidr));
	CLAIM(cidr_is_network(&cidr) == cidr_equal(&network, &cidr));
}

/* In whole bytes the same amount is read. */
static void try_amount(const char *text)
{
	struct amount amount, again;
	char whole[64];
	int r = amount_parse(text, &amount);

	CLAIM(r == 0 || r == -EINVAL || r == -ERANGE);
	if (r < 0)
		return;
	CLAIM(amount.bytes <= INT64_MAX);
	snprintf(whole, sizeof(whole), "%" PRIu64 "%s%s", amount.bytes,
		 amount.period == PERIOD_EVER ? "" : "/",
		 amount.period == PERIOD_EVER ? "" : period_name(amount.period));
	CLAIM(amount_parse(whole, &again) == 0);
	CLAIM(again.bytes == amount.bytes && again.period == amount.period);
}

static void try_instant(const char *text)
{
	char formatted[CLOCK_TEXT_SIZE];
	int64_t instant, again;

	if (clock_parse(text, &instant) < 0)
		return;
	CLAIM(clock_parse(clock_format(instant, formatted), &again) == 0);
	CLAIM(instant / 1000 == again / 1000);
	for (enum period period = PERIOD_DAY; instant >= 0 && period < PERIODS; period++) {
		CLAIM(period_start(period, instant) <= instant);
		CLAIM(period_end(period, instant) > instant);
		CLAIM(period_start(period, period_end(period, instant)) == period_end(period, instant));
	}
}

static void try_key(const char *text)
{
	char formatted[KEY_TEXT_SIZE], hex[65];
	struct key key, again;

	if (key_parse(text, &key) == 0)
		CLAIM(strcmp(key_format(&key, formatted), text) == 0);
	if (key_parse_hex(text, strlen(text), &key) < 0)
		return;
	key_format_hex(&key, hex);
	CLAIM(key_parse_hex(hex, 64, &again) == 0 && key_equal(&key, &again));
}

static void try_command_line(const char *text)
{
	struct json_problem problem = {0};
	_cleanup_free_ char *word = NULL;
	json_t *subnet = NULL;
	struct peer_name name;
	uint8_t hash[32];
	int64_t number;
	bool on;

	if (peer_name_parse(text, &name) == 0)
		CLAIM(name.gateway[0] && name.peer[0]);
	if (integer_parse(text, &number) == 0)
		CLAIM(number >= 0);
	if (subnet_parse(text, strlen(text) % 2, &subnet, &problem) == 0)
		CLAIM(json_is_object(subnet));
	else
		CLAIM(problem.message[0]);
	json_decref(subnet);
	(void)!amount_check(text);
	(void)!switch_parse(text, &on);
	(void)!fingerprint_parse(text, hash);
	if (choice_parse("road_warrior|site_to_site", text, &word) == 0)
		CLAIM(strcmp(word, "road_warrior") == 0 || strcmp(word, "site_to_site") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = text_of(data, size);

	try_cidr(text);
	try_amount(text);
	try_instant(text);
	try_key(text);
	try_command_line(text);
	free(text);
	return 0;
}
