// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll meter: its arguments, and the commands that look once or stop. */
#include "cli/meter.h"

#include "cli/values.h"
#include "standalone/prometheus.h"

#include <ctype.h>
#include <errno.h>
#include <linux/capability.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEFAULT_INTERVAL "1"

static int wrong(const char *option, const char *text, const char *accepted, struct json_problem *problem)
{
	json_problem_set(problem, option, "--%s is \"%.80s\"; accepted is %s", option, text, accepted);
	return -EINVAL;
}

int interval_parse(const char *text, int64_t *ret_ns)
{
	int64_t ns = 0, unit = NSEC_PER_SEC;
	const char *digit = text;

	for (; isdigit((unsigned char)*digit) && digit - text < 6; digit++)
		ns = ns * 10 + (*digit - '0') * NSEC_PER_SEC;
	if (digit == text)
		return -EINVAL;
	if (digit[0] == '.' && isdigit((unsigned char)digit[1])) {
		digit++;
		for (; isdigit((unsigned char)*digit) && unit > NSEC_PER_SEC / 1000; digit++) {
			unit /= 10;
			ns += (*digit - '0') * unit;
		}
	}
	if (*digit != '\0' || ns < NSEC_PER_SEC / 10 || ns > 86400 * NSEC_PER_SEC)
		return -EINVAL;
	*ret_ns = ns;
	return 0;
}

static int read_accounting(const struct arguments *arguments, uint32_t *ret_accounting,
			   struct json_problem *problem)
{
	static const char *const words[] = {"uploads", "downloads", "both"};
	const char *text = argument_value(arguments, "accounting");

	for (uint32_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(text ? text : "both", words[i]) != 0)
			continue;
		*ret_accounting = i + 1;
		return 0;
	}
	return wrong("accounting", text, "uploads, downloads or both", problem);
}

static int read_attach(const struct arguments *arguments, enum meter_attach *ret_attach,
		       struct json_problem *problem)
{
	static const struct {
		const char *word;
		enum meter_attach attach;
	} kinds[] = {{"auto", METER_ATTACH_AUTO},
		     {"tcx", METER_ATTACH_TCX},
		     {"tc", METER_ATTACH_TC},
		     {"xdp", METER_ATTACH_XDP}};
	const char *text = argument_value(arguments, "attach");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(text ? text : "auto", kinds[i].word) != 0)
			continue;
		*ret_attach = kinds[i].attach;
		return 0;
	}
	return wrong("attach", text, "auto, tcx, tc or xdp", problem);
}

static int read_amount(const char *option, const char *text, struct amount *ret_amount,
		       struct json_problem *problem)
{
	return amount_parse(text, ret_amount) < 0 ? wrong(option, text, AMOUNT_ACCEPTED, problem) : 0;
}

/* "PEER=AMOUNT". A key ends in '=' and so has two before the amount: the last one parts them. */
static int read_limit(struct meter_request *request, const char *text, struct json_problem *problem)
{
	struct peer_limit *limit = &request->limits[request->options.n_limits];
	const char *equals = strrchr(text, '=');
	const struct key *named;
	char peer[PEER_NAME_SIZE];

	if (!equals || equals == text || (size_t)(equals - text) >= sizeof(peer))
		return wrong("limit", text, "PEER=AMOUNT, as laptop=50GB/month", problem);
	memcpy(peer, text, (size_t)(equals - text));
	peer[equals - text] = '\0';
	if (key_parse(peer, &limit->public_key) < 0) {
		named = names_find_key(&request->names, peer);
		if (!named)
			return wrong("limit", text, "a public key, or a name of --names FILE, before the '='",
				     problem);
		limit->public_key = *named;
	}
	for (size_t i = 0; i < request->options.n_limits; i++) {
		if (key_equal(&request->limits[i].public_key, &limit->public_key))
			return wrong("limit", text, "one limit for each peer", problem);
	}
	request->options.n_limits++;
	return read_amount("limit", equals + 1, &limit->amount, problem);
}

static int read_limits(const struct arguments *arguments, struct meter_request *request,
		       struct json_problem *problem)
{
	const char *interface_limit = argument_value(arguments, "limit-interface");
	int r = 0;

	for (unsigned i = 0; r == 0 && i < arguments->given_count; i++) {
		if (strcmp(arguments->given[i].option->name, "limit") == 0)
			r = read_limit(request, arguments->given[i].value, problem);
	}
	if (r == 0 && interface_limit) {
		request->options.limit_interface = true;
		r = read_amount("limit-interface", interface_limit, &request->options.interface_limit,
				problem);
	}
	return r;
}

static int check_interface(const char *interface, struct json_problem *problem)
{
	_cleanup_json_ json_t *text = json_string(interface); /* NULL: no UTF-8, which JSON cannot tell */

	if (text && *interface && strlen(interface) < IFNAMSIZ && !strchr(interface, '/') &&
	    strcmp(interface, ".") != 0 && strcmp(interface, "..") != 0)
		return 0;
	json_problem_set(problem, "interface",
			 "IFACE is \"%.40s\"; accepted is an interface's name of at most 15 bytes in UTF-8",
			 text ? interface : "…");
	return -EINVAL;
}

static int read_plain(const struct arguments *arguments, struct meter_request *request,
		      struct json_problem *problem)
{
	const char *interval = argument_value(arguments, "interval");
	const char *count = argument_value(arguments, "count");

	if (interval_parse(interval ? interval : DEFAULT_INTERVAL, &request->interval_ns) < 0)
		return wrong("interval", interval, "seconds from 0.1 to 86400, as 10 or 0.5", problem);
	if (count && (integer_parse(count, &request->count) < 0 || request->count == 0))
		return wrong("count", count, "a whole number from 1", problem);
	request->json = argument_given(arguments, "json");
	request->prometheus = argument_value(arguments, "prometheus");
	request->options.state = argument_value(arguments, "state");
	if (request->prometheus && prometheus_check(request->prometheus, problem) < 0)
		return -EINVAL;
	return check_interface(request->options.interface, problem);
}

int meter_request_read(const struct arguments *arguments, struct meter_request *ret_request,
		       struct json_problem *problem)
{
	const char *names = argument_value(arguments, "names");
	int r;

	*ret_request = (struct meter_request){.options.interface = arguments->positional[0]};
	r = read_plain(arguments, ret_request, problem);
	if (r == 0)
		r = read_accounting(arguments, &ret_request->options.accounting, problem);
	if (r == 0)
		r = read_attach(arguments, &ret_request->options.attach, problem);
	if (r == 0 && names)
		r = names_read(names, &ret_request->names, problem);
	if (r == 0)
		r = read_limits(arguments, ret_request, problem);
	if (r < 0)
		meter_request_free(ret_request);
	ret_request->options.limits = ret_request->limits;
	ret_request->options.names = &ret_request->names;
	return r;
}

void meter_request_free(struct meter_request *request)
{
	names_free(&request->names);
}

int meter_check_rights(struct session *session)
{
	static const unsigned needed[] = {CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	if (syscall(SYS_capget, &header, data) == 0) {
		bool all = true;

		for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
			all &= data[needed[i] / 32].effective >> needed[i] % 32 & 1;
		if (all)
			return 0;
	}
	return session_fail(session, -EPERM, "it needs root (or CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON)");
}

static int wrong_interface(struct session *session, const char *interface)
{
	struct json_problem problem;

	if (check_interface(interface, &problem) == 0)
		return 0;
	session_fail(session, -EINVAL, "%s", problem.message);
	return WRONG_USAGE;
}

int run_meter_show(struct session *session, const struct command *command, const struct arguments *arguments)
{
	const char *interface = arguments->positional[0];
	struct station *station = NULL;
	struct json_problem problem;
	int r = wrong_interface(session, interface);

	(void)command;
	if (r == 0)
		r = meter_check_rights(session);
	if (r != 0)
		return r;
	r = station_view(interface, &station, &problem);
	if (r < 0)
		return session_fail(session, r, "%s", problem.message);
	if (argument_given(arguments, "json")) {
		_cleanup_json_ json_t *sample = meter_sample_json(station);

		r = sample && json_dumpf(sample, stdout, JSON_COMPACT) == 0 ? 0 : session_no_memory(session);
		putchar('\n');
	} else if (meter_sample_print(stdout, station) < 0) {
		r = session_no_memory(session);
	}
	station_close(station);
	return r;
}

int run_meter_stop(struct session *session, const struct command *command, const struct arguments *arguments)
{
	const char *interface = arguments->positional[0];
	struct json_problem problem;
	int r = wrong_interface(session, interface);

	(void)command;
	if (r == 0)
		r = meter_check_rights(session);
	if (r != 0)
		return r;
	r = station_stop(interface, false, &problem);
	return r < 0 ? session_fail(session, r, "%s", problem.message) : 0;
}
