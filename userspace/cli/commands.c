// SPDX-License-Identifier: BSD-2-Clause
#include "cli/commands.h"

#include "cli/resource.h"

static const struct cli_option JSON_OPTION[] = {
	{"json", OPTION_FLAG, NULL, NULL, "print JSON instead of a table"},
	{0},
};
static const struct cli_option LIMIT_OPTION[] = {
	{"limit", OPTION_INTEGER, NULL, "N", "at most N items"},
	{0},
};
static const struct cli_option BODY_OPTION[] = {
	{"json-file", OPTION_TEXT, NULL, "FILE|-", "the request's body; options go over it"},
	{0},
};
static const struct cli_option WAIT_OPTIONS[] = {
	{"wait", OPTION_FLAG, NULL, NULL, "until it is done; exit code 1 if it fails"},
	{"timeout", OPTION_INTEGER, NULL, "SECONDS", "wait that long at most (300)"},
	{0},
};
const struct cli_option *const COMMON_OPTIONS[4] = {JSON_OPTION, LIMIT_OPTION, BODY_OPTION, WAIT_OPTIONS};

static const struct cli_option LOGIN_OPTIONS[] = {
	{"ca-fingerprint", OPTION_TEXT, NULL, "HEX", "SHA-256 that the server's CA must have"},
	{"token-file", OPTION_TEXT, NULL, "FILE", "where the one-time token is, instead of standard input"},
	{0},
};

static const struct cli_option GATEWAY_CREATE_OPTIONS[] = {
	{"vpc", OPTION_TEXT, "vpc", "VPC", "the VPC that it opens"},
	{"plan", OPTION_TEXT, "plan", "PLAN", "a plan that the VPC's location offers"},
	{"name", OPTION_TEXT, "name", "NAME", "a name, else one is made"},
	{"public-subnet", OPTION_TEXT, "public_subnet", "CIDR", "where its public address comes from"},
	{"tunnel-subnet", OPTION_TEXT, "tunnel_subnet", "CIDR", "the peers' addresses (10.99.0.0/24)"},
	{"tunnel-subnet6", OPTION_TEXT, "tunnel_subnet6", "CIDR",
	 "their IPv6 addresses, else a range is made"},
	{"listen-port", OPTION_INTEGER, "listen_port", "PORT", "WireGuard's port (51820)"},
	{"masquerade", OPTION_CHOICE, "masquerade_into_vpc", "road_warriors|all|none",
	 "whose traffic takes the gateway's address in the VPC"},
	{0},
};

#define PEER_FIELDS                                                                                          \
	{"public-key", OPTION_TEXT, "public_key", "KEY", "the peer's public key"},                           \
		{"endpoint", OPTION_TEXT, "endpoint", "HOST:PORT", "where a site is; without: it calls in"}, \
		{"allowed-ips", OPTION_LIST, "allowed_ips", "CIDR[,CIDR]...", "the networks behind a site"}, \
		{"tunnel-ip", OPTION_TEXT, "tunnel_ip", "ADDRESS", "a road warrior's, else the next free"},  \
		{"tunnel-ip6", OPTION_TEXT, "tunnel_ip6", "ADDRESS", "the same for IPv6"},                   \
		{"dns", OPTION_LIST, "dns", "ADDRESS[,ADDRESS]...", "name servers of a road warrior"},       \
		{"keepalive", OPTION_INTEGER, "keepalive", "SECONDS", "persistent keepalive; 0: off"},       \
		{"preshared-key-file", OPTION_TEXT, NULL, "FILE", "a site's preshared key, of `wg genpsk`"}, \
	{                                                                                                    \
		"generate-preshared-key", OPTION_FLAG, NULL, NULL, "let the server make a preshared key"     \
	}

static const struct cli_option PEER_ADD_OPTIONS[] = {
	{"keygen", OPTION_FLAG, NULL, NULL, "make the key pair here and print the ready configuration"},
	{"kind", OPTION_CHOICE, "kind", "road_warrior|site_to_site",
	 "what it is (road_warrior); `site` is enough"},
	PEER_FIELDS,
	{0},
};
static const struct cli_option PEER_EDIT_OPTIONS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "a new name"},
	PEER_FIELDS,
	{"no-endpoint", OPTION_NULL, "endpoint", NULL, "the site calls in"},
	{"no-preshared-key", OPTION_NULL, "preshared_key", NULL, "no preshared key any more"},
	{0},
};

static const struct cli_option USAGE_OPTIONS[] = {
	{"user", OPTION_TEXT, NULL, "USER", "all gateways of a user"},
	{"interval", OPTION_CHOICE, "interval", "hour|day|cycle|total", "a line for each (cycle)"},
	{"by", OPTION_CHOICE, "by", "peer|gateway", "a line for each (peer)"},
	{"from", OPTION_TEXT, NULL, "TIME", "not before, as 2026-11-01T00:00:00Z"},
	{"to", OPTION_TEXT, NULL, "TIME", "before that"},
	{0},
};
static const struct cli_option REPORT_OPTIONS[] = {
	{"user", OPTION_TEXT, NULL, "USER", "whose (your own)"},
	{"cycle", OPTION_TEXT, NULL, "YYYY-MM", "which month (this one)"},
	{"csv", OPTION_FLAG, NULL, NULL, "print CSV"},
	{0},
};
static const struct cli_option SESSION_OPTIONS[] = {
	{"user", OPTION_TEXT, NULL, "USER", "of one user (admin)"},
	{0},
};
static const struct cli_option LEDGER_OPTIONS[] = {
	{"after", OPTION_TEXT, NULL, "ID", "what came after that line"},
	{0},
};

static const struct cli_option METER_OPTIONS[] = {
	{"interval", OPTION_TEXT, NULL, "SECONDS", "between samples (1)"},
	{"count", OPTION_INTEGER, NULL, "N", "end after N samples; the meter stays attached"},
	{"json", OPTION_FLAG, NULL, NULL, "print one JSON object a line"},
	{"limit", OPTION_TEXT, NULL, "PEER=AMOUNT[/PERIOD]", "stop a peer, by key or name; may come again"},
	{"limit-interface", OPTION_TEXT, NULL, "AMOUNT[/PERIOD]", "stop all peers together"},
	{"accounting", OPTION_TEXT, NULL, "uploads|downloads|both", "what limits count (both)"},
	{"names", OPTION_TEXT, NULL, "FILE", "names of peers: a line KEY NAME for each"},
	{"attach", OPTION_TEXT, NULL, "auto|tcx|tc|xdp", "how to attach (auto)"},
	{"prometheus", OPTION_TEXT, NULL, "ADDR:PORT", "serve http://ADDR:PORT/metrics"},
	{"state", OPTION_TEXT, NULL, "DIR", "keep the history there, over reboots"},
	{0},
};
#define METER_NOTE                                                                                           \
	"AMOUNT is bytes or has a unit (kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB, PiB). PERIOD is day or\n"    \
	"month in UTC; none is for ever. Each run sets exactly the limits that it names. Counting and "      \
	"limits\n"                                                                                           \
	"go on when it ends; `wiretoll meter stop IFACE` ends them.\n"

#define PLAIN_VERB(NOUN, VERB, ARGUMENTS, SUMMARY, FUNCTION, FLAGS, RESOURCE)                                \
	{                                                                                                    \
		.noun = NOUN, .verb = VERB, .arguments = ARGUMENTS, .summary = SUMMARY, .run = FUNCTION,     \
		.flags = FLAGS, .resource = &(RESOURCE)                                                      \
	}
#define PLAIN_READS(NOUN, RESOURCE)                                                                          \
	PLAIN_VERB(NOUN, "list", "", "list them", run_list, COMMAND_JSON | COMMAND_LIMIT, RESOURCE),         \
		PLAIN_VERB(NOUN, "show", "NAME", "show one", run_show, COMMAND_JSON, RESOURCE)
#define PLAIN_CREATE(NOUN, RESOURCE)                                                                         \
	PLAIN_VERB(NOUN, "create", "[NAME]", "create one", run_create, COMMAND_JSON | COMMAND_BODY, RESOURCE)
#define PLAIN_EDIT(NOUN, RESOURCE, FUNCTION)                                                                 \
	PLAIN_VERB(NOUN, "edit", "NAME", "change one", FUNCTION, COMMAND_JSON | COMMAND_BODY, RESOURCE)
#define PLAIN_DELETE(NOUN, RESOURCE) PLAIN_VERB(NOUN, "delete", "NAME", "delete one", run_delete, 0, RESOURCE)
#define PLAIN_NOUN(NOUN, RESOURCE)                                                                           \
	PLAIN_READS(NOUN, RESOURCE), PLAIN_CREATE(NOUN, RESOURCE), PLAIN_EDIT(NOUN, RESOURCE, run_edit),     \
		PLAIN_DELETE(NOUN, RESOURCE)

#define KEY_NOTE                                                                                             \
	"A key pair without --keygen:  wg genkey | tee privatekey | wg pubkey > publickey\n"                 \
	"With it:                      wiretoll peer add prod/laptop --keygen > laptop.conf\n"

#define JOURNAL_NOTE                                                                                         \
	"PATH is a segment or a folder of them: BASE/journal has the reports, BASE/journal/samples what "    \
	"was\n"                                                                                              \
	"counted each second since. Nothing is changed; the agent may be running.\n"

const struct command COMMANDS[] = {
	{.noun = "up",
	 .arguments = "",
	 .summary = "run a whole control plane on this host",
	 .program = cmd_up},
	{.noun = "meter",
	 .verb = "run",
	 .arguments = "IFACE",
	 .summary = "attach to a WireGuard interface and print what its peers move",
	 .run = run_meter,
	 .options = METER_OPTIONS,
	 .flags = COMMAND_ANONYMOUS,
	 .note = METER_NOTE},
	{.noun = "meter",
	 .verb = "show",
	 .arguments = "IFACE",
	 .summary = "print one sample of the attached meter",
	 .run = run_meter_show,
	 .flags = COMMAND_ANONYMOUS | COMMAND_JSON},
	{.noun = "meter",
	 .verb = "stop",
	 .arguments = "IFACE",
	 .summary = "detach it and remove its pins",
	 .run = run_meter_stop,
	 .flags = COMMAND_ANONYMOUS},
	{.noun = "top",
	 .arguments = "IFACE",
	 .summary = "watch a WireGuard interface of this host",
	 .run = run_top,
	 .flags = COMMAND_ANONYMOUS},
	/* Behind its verbs: what is none of them is an interface. */
	{.noun = "meter",
	 .arguments = "IFACE",
	 .summary = "meter a WireGuard interface of this host; also: meter show, meter stop",
	 .run = run_meter,
	 .options = METER_OPTIONS,
	 .flags = COMMAND_ANONYMOUS,
	 .note = METER_NOTE},
	{.noun = "journal",
	 .verb = "show",
	 .arguments = "PATH",
	 .summary = "print the records of an agent's journal",
	 .run = run_journal_show,
	 .flags = COMMAND_ANONYMOUS | COMMAND_JSON,
	 .note = JOURNAL_NOTE},
	{.noun = "journal",
	 .verb = "verify",
	 .arguments = "PATH",
	 .summary = "check every record; status 1 names the first bad offset",
	 .run = run_journal_verify,
	 .flags = COMMAND_ANONYMOUS | COMMAND_JSON,
	 .note = JOURNAL_NOTE},
	{.noun = "login",
	 .arguments = "URL",
	 .summary = "log in with a one-time token from standard input",
	 .run = run_login,
	 .options = LOGIN_OPTIONS,
	 .flags = COMMAND_ANONYMOUS},
	{.noun = "logout", .arguments = "", .summary = "revoke the stored token", .run = run_logout},
	{.noun = "whoami",
	 .arguments = "",
	 .summary = "show who is logged in",
	 .run = run_whoami,
	 .flags = COMMAND_JSON},
	PLAIN_READS("gateway", RESOURCE_GATEWAY),
	{.noun = "gateway",
	 .verb = "create",
	 .arguments = "",
	 .summary = "open a VPC to WireGuard",
	 .run = run_gateway_create,
	 .options = GATEWAY_CREATE_OPTIONS,
	 .flags = COMMAND_JSON | COMMAND_BODY | COMMAND_WAIT},
	PLAIN_EDIT("gateway", RESOURCE_GATEWAY, run_edit),
	{.noun = "gateway",
	 .verb = "delete",
	 .arguments = "NAME",
	 .summary = "delete one with all its peers, for good",
	 .run = run_gateway_delete,
	 .flags = COMMAND_WAIT},
	{.noun = "gateway",
	 .verb = "retry",
	 .arguments = "NAME",
	 .summary = "deploy again what failed",
	 .run = run_gateway_retry,
	 .flags = COMMAND_JSON | COMMAND_WAIT},
	{.noun = "gateway",
	 .verb = "extra",
	 .arguments = "NAME GB",
	 .summary = "grant extra GB in this cycle (admin)",
	 .run = run_gateway_extra,
	 .flags = COMMAND_JSON},
	{.noun = "gateway",
	 .verb = "suspend",
	 .arguments = "NAME",
	 .summary = "stop all traffic of its peers (admin)",
	 .run = run_gateway_suspend,
	 .flags = COMMAND_JSON},
	{.noun = "gateway",
	 .verb = "resume",
	 .arguments = "NAME",
	 .summary = "end an admin's suspension (admin)",
	 .run = run_gateway_resume,
	 .flags = COMMAND_JSON},
	{.noun = "gateway",
	 .verb = "log",
	 .arguments = "NAME",
	 .summary = "show the deployment's log (admin)",
	 .run = run_gateway_log,
	 .flags = COMMAND_JSON | COMMAND_LIMIT},
	{.noun = "gateway",
	 .verb = "top",
	 .arguments = "NAME",
	 .summary = "watch its peers",
	 .run = run_gateway_top},
	{.noun = "peer",
	 .verb = "add",
	 .arguments = "GATEWAY/PEER",
	 .summary = "add a road warrior or a site",
	 .run = run_peer_add,
	 .options = PEER_ADD_OPTIONS,
	 .flags = COMMAND_JSON | COMMAND_BODY,
	 .note = KEY_NOTE},
	{.noun = "peer",
	 .verb = "list",
	 .arguments = "GATEWAY",
	 .summary = "list a gateway's peers",
	 .run = run_peer_list,
	 .flags = COMMAND_JSON | COMMAND_LIMIT},
	{.noun = "peer",
	 .verb = "show",
	 .arguments = "GATEWAY/PEER",
	 .summary = "show one",
	 .run = run_peer_show,
	 .flags = COMMAND_JSON},
	{.noun = "peer",
	 .verb = "edit",
	 .arguments = "GATEWAY/PEER",
	 .summary = "change one",
	 .run = run_peer_edit,
	 .options = PEER_EDIT_OPTIONS,
	 .flags = COMMAND_JSON | COMMAND_BODY},
	{.noun = "peer",
	 .verb = "enable",
	 .arguments = "GATEWAY/PEER",
	 .summary = "let it connect again",
	 .run = run_peer_enable,
	 .flags = COMMAND_JSON},
	{.noun = "peer",
	 .verb = "disable",
	 .arguments = "GATEWAY/PEER",
	 .summary = "let it connect no more; its settings stay",
	 .run = run_peer_disable,
	 .flags = COMMAND_JSON},
	{.noun = "peer",
	 .verb = "delete",
	 .arguments = "GATEWAY/PEER",
	 .summary = "remove one",
	 .run = run_peer_delete},
	{.noun = "peer",
	 .verb = "config",
	 .arguments = "GATEWAY/PEER",
	 .summary = "print its configuration, with a placeholder for the private key",
	 .run = run_peer_config},
	{.noun = "usage",
	 .arguments = "[GATEWAY]",
	 .summary = "show bytes by peer and time",
	 .run = run_usage,
	 .options = USAGE_OPTIONS,
	 .flags = COMMAND_JSON | COMMAND_LIMIT},
	{.noun = "report",
	 .arguments = "",
	 .summary = "show a user's usage report of a cycle",
	 .run = run_report,
	 .options = REPORT_OPTIONS,
	 .flags = COMMAND_JSON},
	{.noun = "ledger",
	 .arguments = "",
	 .summary = "read the ledger's feed (billing)",
	 .run = run_ledger,
	 .options = LEDGER_OPTIONS,
	 .flags = COMMAND_JSON | COMMAND_LIMIT},
	PLAIN_READS("vpc", RESOURCE_VPC),
	PLAIN_CREATE("vpc", RESOURCE_VPC),
	PLAIN_EDIT("vpc", RESOURCE_VPC, run_vpc_edit),
	{.noun = "vpc",
	 .verb = "put",
	 .arguments = "ID",
	 .summary = "create or replace the one with the cloud's own id",
	 .run = run_vpc_put,
	 .resource = &RESOURCE_VPC,
	 .flags = COMMAND_JSON | COMMAND_BODY},
	PLAIN_DELETE("vpc", RESOURCE_VPC),
	PLAIN_NOUN("location", RESOURCE_LOCATION),
	PLAIN_NOUN("plan", RESOURCE_PLAN),
	PLAIN_NOUN("plan-group", RESOURCE_PLAN_GROUP),
	PLAIN_NOUN("image", RESOURCE_IMAGE),
	PLAIN_NOUN("hypervisor", RESOURCE_HYPERVISOR),
	PLAIN_NOUN("user", RESOURCE_USER),
	{.noun = "user",
	 .verb = "login-token",
	 .arguments = "NAME",
	 .summary = "make a one-time token for `wiretoll login`",
	 .run = run_user_login_token,
	 .flags = COMMAND_JSON},
	{.noun = "session",
	 .verb = "list",
	 .arguments = "",
	 .summary = "list your sessions and unused one-time tokens; an admin's list has everybody's",
	 .run = run_session_list,
	 .options = SESSION_OPTIONS,
	 .resource = &RESOURCE_SESSION,
	 .flags = COMMAND_JSON | COMMAND_LIMIT},
	{.noun = "session",
	 .verb = "end",
	 .arguments = "ID",
	 .summary = "end a session, or take a one-time token back",
	 .run = run_delete,
	 .resource = &RESOURCE_SESSION},
	{0},
};
