// SPDX-License-Identifier: BSD-2-Clause
/* The difference between desired and live peers, as a table of cases: what is wanted, what is there, what to
 * do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/plan.h"

#define PEERS    4
#define PREFIXES 4

/* One peer, desired or live. `name` is its key's and its id's first byte; the slot is name - 'a' + 1. */
struct person {
	char name;
	const char *prefixes[PREFIXES];
	bool disabled;
	bool has_preshared_key;
	unsigned keepalive;
	const char *endpoint;
	bool no_slot;
};

struct attributed {
	const char *prefix;
	char to;
};

/* Words, in order: "+a P" attribute, "-a" remove, "a-P" withdraw, "a{…}" set, ">a P" move. */
struct scenario {
	const char *what;
	struct person desired[PEERS];
	struct person live[PEERS];
	struct attributed table[PREFIXES];
	const struct person *previous;
	const char *expected;
};

static const struct person configured_before[PEERS] = {
	{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.1:1"},
};

static const struct scenario scenarios[] = {
	{"nothing to do",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32", "10.1.0.0/24"}, .keepalive = 25}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32", "10.1.0.0/24"}, .keepalive = 25}},
	 {{"10.0.0.1/32", 'a'}, {"10.1.0.0/24", 'a'}},
	 NULL,
	 ""},
	{"a new peer is in the table before it is in WireGuard",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {},
	 {},
	 NULL,
	 "+a 10.0.0.1/32;a{new 10.0.0.1/32};"},
	{"only the new one of two is touched",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}},
	  {.name = 'b', .prefixes = {"10.0.0.2/32"}, .keepalive = 25}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 "+b 10.0.0.2/32;b{new keepalive=25 10.0.0.2/32};"},
	{"a removed peer leaves WireGuard; its table entry waits for the grace",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}, {.name = 'b', .prefixes = {"10.0.0.2/32"}}},
	 {{"10.0.0.1/32", 'a'}, {"10.0.0.2/32", 'b'}},
	 NULL,
	 "-b;"},
	{"so does a disabled one",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .disabled = true}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 "-a;"},
	{"a disabled peer that is out already needs nothing",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .disabled = true}},
	 {},
	 {},
	 NULL,
	 ""},
	{"a prefix is added in place",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32", "10.1.0.0/24"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 "+a 10.1.0.0/24;a{10.1.0.0/24};"},
	{"a prefix is withdrawn alone",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32", "10.1.0.0/24"}}},
	 {{"10.0.0.1/32", 'a'}, {"10.1.0.0/24", 'a'}},
	 NULL,
	 "a-10.1.0.0/24;"},
	{"a prefix that moves is added to its new peer, never withdrawn, and then counted there",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}},
	  {.name = 'b', .prefixes = {"10.0.0.2/32", "10.1.0.0/24"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32", "10.1.0.0/24"}},
	  {.name = 'b', .prefixes = {"10.0.0.2/32"}}},
	 {{"10.0.0.1/32", 'a'}, {"10.0.0.2/32", 'b'}, {"10.1.0.0/24", 'a'}},
	 NULL,
	 "b{10.1.0.0/24};>b 10.1.0.0/24;"},
	{"a new peer takes the prefix of a removed one",
	 {{.name = 'b', .prefixes = {"10.0.0.1/32"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 "-a;b{new 10.0.0.1/32};>b 10.0.0.1/32;"},
	{"two peers swap",
	 {{.name = 'a', .prefixes = {"10.0.0.2/32"}}, {.name = 'b', .prefixes = {"10.0.0.1/32"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}, {.name = 'b', .prefixes = {"10.0.0.2/32"}}},
	 {{"10.0.0.1/32", 'a'}, {"10.0.0.2/32", 'b'}},
	 NULL,
	 "a{10.0.0.2/32};b{10.0.0.1/32};>a 10.0.0.2/32;>b 10.0.0.1/32;"},
	{"a preshared key is set, and taken away",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .has_preshared_key = true},
	  {.name = 'b', .prefixes = {"10.0.0.2/32"}}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}},
	  {.name = 'b', .prefixes = {"10.0.0.2/32"}, .has_preshared_key = true}},
	 {{"10.0.0.1/32", 'a'}, {"10.0.0.2/32", 'b'}},
	 NULL,
	 "a{psk};b{nopsk};"},
	{"a peer that roamed keeps its endpoint",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.1:1"}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.9:9"}},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 ""},
	{"an endpoint that was edited is set",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.2:2"}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.1:1"}},
	 {{"10.0.0.1/32", 'a'}},
	 configured_before,
	 "a{endpoint};"},
	{"a known endpoint is given back with a keepalive, which is then switched off",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.1:1"}},
	 {},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 "a{new keepalive=25 endpoint 10.0.0.1/32};a{keepalive=0};"},
	{"a configured keepalive is the kick",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .endpoint = "192.0.2.1:1", .keepalive = 10}},
	 {},
	 {{"10.0.0.1/32", 'a'}},
	 NULL,
	 "a{new keepalive=10 endpoint 10.0.0.1/32};"},
	{"a peer without a slot is left out, and taken out",
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}, .no_slot = true}},
	 {{.name = 'a', .prefixes = {"10.0.0.1/32"}}},
	 {},
	 NULL,
	 "-a;"},
	{"what nobody asked for is removed",
	 {},
	 {{.name = 'x', .prefixes = {"10.9.9.9/32"}}},
	 {},
	 NULL,
	 "-x;"},
};

static struct cidr prefix(const char *text)
{
	struct cidr cidr;

	assert_int_equal(cidr_parse(text, &cidr), 0);
	return cidr;
}

static size_t prefixes(const struct person *person, struct cidr *to)
{
	size_t n = 0;

	for (; n < PREFIXES && person->prefixes[n]; n++)
		to[n] = prefix(person->prefixes[n]);
	return n;
}

static struct key named_key(char name)
{
	return (struct key){.bytes = {(uint8_t)name}};
}

static void address_of(const char *text, struct sockaddr_storage *address)
{
	memset(address, 0, sizeof(*address));
	/* Which address it is does not matter here, only whether there is one. */
	address->ss_family = text ? AF_INET : AF_UNSPEC;
}

struct world {
	struct desired desired, previous;
	struct desired_peer desired_peers[PEERS], previous_peers[PEERS];
	struct cidr desired_prefixes[PEERS][PREFIXES], previous_prefixes[PEERS][PREFIXES],
		live_prefixes[PEERS][PREFIXES];
	struct plan_slot slots[PEERS];
	struct sockaddr_storage endpoints[PEERS];
	struct wg_device device;
	struct wg_peer live[PEERS];
	struct table table;
};

static uint32_t slot_of(char name)
{
	return (uint32_t)(name - 'a' + 1);
}

static void fill_desired(const struct person *people, struct desired *desired, struct desired_peer *peers,
			 struct cidr (*lists)[PREFIXES])
{
	desired->peers = peers;
	for (size_t i = 0; i < PEERS && people[i].name; i++) {
		struct desired_peer *peer = &peers[desired->n_peers++];

		peer->id[0] = (uint8_t)people[i].name;
		peer->public_key = named_key(people[i].name);
		peer->has_preshared_key = people[i].has_preshared_key;
		if (peer->has_preshared_key)
			peer->preshared_key = named_key('p');
		peer->keepalive = (uint16_t)people[i].keepalive;
		peer->enabled = !people[i].disabled;
		if (people[i].endpoint)
			snprintf(peer->endpoint, sizeof(peer->endpoint), "%s", people[i].endpoint);
		peer->allowed_ips.items = lists[i];
		peer->allowed_ips.count = prefixes(&people[i], lists[i]);
	}
}

static void fill_world(const struct scenario *scenario, struct world *world)
{
	fill_desired(scenario->desired, &world->desired, world->desired_peers, world->desired_prefixes);
	if (scenario->previous)
		fill_desired(scenario->previous, &world->previous, world->previous_peers,
			     world->previous_prefixes);
	for (size_t i = 0; i < world->desired.n_peers; i++) {
		world->slots[i].slot = scenario->desired[i].no_slot ? 0 : slot_of(scenario->desired[i].name);
		world->slots[i].incarnation = 1;
		address_of(scenario->desired[i].endpoint, &world->endpoints[i]);
	}
	world->device.peers = world->live;
	for (size_t i = 0; i < PEERS && scenario->live[i].name; i++) {
		struct wg_peer *peer = &world->live[world->device.n_peers++];

		peer->public_key = named_key(scenario->live[i].name);
		peer->has_preshared_key = scenario->live[i].has_preshared_key;
		peer->preshared_key = named_key('p');
		peer->keepalive = (uint16_t)scenario->live[i].keepalive;
		address_of(scenario->live[i].endpoint, &peer->endpoint);
		peer->allowed_ips = world->live_prefixes[i];
		peer->n_allowed_ips = prefixes(&scenario->live[i], world->live_prefixes[i]);
	}
	for (size_t i = 0; i < PREFIXES && scenario->table[i].prefix; i++)
		assert_int_equal(
			table_put(&world->table, &(struct table_entry){prefix(scenario->table[i].prefix),
								       slot_of(scenario->table[i].to), 1}),
			0);
}

static void tell_change(FILE *out, const struct wg_peer_change *change)
{
	char text[CIDR_TEXT_SIZE];

	fprintf(out, "%c{", change->public_key.bytes[0]);
	const char *space = "";
	if (!change->update_only)
		fprintf(out, "new"), space = " ";
	if (change->set_keepalive)
		fprintf(out, "%skeepalive=%u", space, change->keepalive), space = " ";
	if (change->set_endpoint)
		fprintf(out, "%sendpoint", space), space = " ";
	if (change->set_preshared_key)
		fprintf(out, "%s%s", space, key_is_zero(&change->preshared_key) ? "nopsk" : "psk"),
			space = " ";
	for (size_t i = 0; i < change->n_allowed_ips; i++)
		fprintf(out, "%s%s", space, cidr_format(&change->allowed_ips[i], text)), space = " ";
	assert_false(change->replace_allowed_ips);
	fprintf(out, "};");
}

static char *tell(const struct plan *plan)
{
	char text[CIDR_TEXT_SIZE], *words = NULL;
	size_t length;
	FILE *out = open_memstream(&words, &length);

	for (size_t i = 0; i < plan->n_attribute; i++)
		fprintf(out, "+%c %s;", 'a' + plan->attribute[i].slot - 1,
			cidr_format(&plan->attribute[i].prefix, text));
	for (size_t i = 0; i < plan->n_remove; i++)
		fprintf(out, "-%c;", plan->remove[i].public_key.bytes[0]);
	for (size_t i = 0; i < plan->n_withdraw; i++)
		fprintf(out, "%c-%s;", plan->withdraw[i].public_key.bytes[0],
			cidr_format(&plan->withdraw[i].prefix, text));
	for (size_t i = 0; i < plan->n_set; i++)
		tell_change(out, &plan->set[i]);
	for (size_t i = 0; i < plan->n_move; i++)
		fprintf(out, ">%c %s;", 'a' + plan->move[i].slot - 1,
			cidr_format(&plan->move[i].prefix, text));
	fclose(out);
	return words;
}

static void test_scenarios(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
		struct world world = {0};
		struct plan *plan = NULL;
		char *words;

		fill_world(&scenarios[i], &world);
		assert_int_equal(
			plan_make(&(struct plan_input){.desired = &world.desired,
						       .previous =
							       scenarios[i].previous ? &world.previous : NULL,
						       .slots = world.slots,
						       .endpoints = world.endpoints,
						       .device = &world.device,
						       .table = &world.table},
				  &plan),
			0);
		words = tell(plan);
		if (strcmp(words, scenarios[i].expected) != 0)
			fail_msg("%s: \"%s\", not \"%s\"", scenarios[i].what, words, scenarios[i].expected);
		free(words);
		plan_free(plan);
		table_free(&world.table);
	}
}

static void test_stale_entries(void **state)
{
	const struct scenario scenario = {
		.desired = {{.name = 'a', .prefixes = {"10.0.0.1/32"}},
			    {.name = 'b', .prefixes = {"10.0.0.2/32"}, .disabled = true}}};
	struct world world = {0};

	(void)state;
	fill_world(&scenario, &world);
	assert_false(plan_is_stale(&world.desired, world.slots,
				   &(struct table_entry){prefix("10.0.0.1/32"), 1, 1}));
	/* Not its prefix; disabled; a slot of nobody; an earlier incarnation. */
	assert_true(plan_is_stale(&world.desired, world.slots,
				  &(struct table_entry){prefix("10.0.0.9/32"), 1, 1}));
	assert_true(plan_is_stale(&world.desired, world.slots,
				  &(struct table_entry){prefix("10.0.0.2/32"), 2, 1}));
	assert_true(plan_is_stale(&world.desired, world.slots,
				  &(struct table_entry){prefix("10.0.0.1/32"), 3, 1}));
	assert_true(plan_is_stale(&world.desired, world.slots,
				  &(struct table_entry){prefix("10.0.0.1/32"), 1, 2}));
}

/* Against a plain array: every prefix of a small world, in a fixed pseudo-random order of puts and deletes.
 */
static void test_table_against_an_array(void **state)
{
	struct table table = {0};
	uint32_t model[256] = {0}, random = 1;

	(void)state;
	for (int step = 0; step < 20000; step++) {
		struct table_entry entry = {.incarnation = 1};
		char text[CIDR_TEXT_SIZE];
		uint8_t which;

		random = random * 1103515245 + 12345;
		which = (uint8_t)(random >> 16);
		snprintf(text, sizeof(text), which & 1 ? "10.0.%u.0/24" : "fd00:%x::/32", which);
		entry.prefix = prefix(text);
		entry.slot = 1 + (random >> 24) % 7;
		if (random >> 31) {
			assert_int_equal(table_put(&table, &entry), 0);
			model[which] = entry.slot;
		} else {
			table_delete(&table, &entry.prefix);
			model[which] = 0;
		}
		const struct table_entry *found = table_find(&table, &entry.prefix);
		assert_int_equal(found ? found->slot : 0, model[which]);
	}
	for (uint32_t slot = 1; slot < 8; slot++) {
		bool used = false;

		for (size_t i = 0; i < ARRAY_SIZE(model); i++)
			used |= model[i] == slot;
		assert_int_equal(table_has_slot(&table, slot), used);
	}
	table_free(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scenarios),
		cmocka_unit_test(test_stale_entries),
		cmocka_unit_test(test_table_against_an_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
