// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"
#include "agent/flows.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Setting the port that is set already makes a userspace device open its socket anew, and lose packets. */
static int interface_differs(struct agent *agent, uint16_t listen_port, bool *ret_differ,
			     bool *ret_mark_differs)
{
	struct wg_device *device = NULL;
	int r = wg_dump(agent->wg, &device);

	if (r < 0)
		return r;
	*ret_differ =
		device->listen_port != listen_port || !key_equal(&device->public_key, &agent->public_key);
	*ret_mark_differs = device->mark != NET_OUTER_MARK;
	wg_device_free(device);
	return 0;
}

static int apply_wireguard_interface(struct agent *agent, const struct desired *desired)
{
	bool differ = false, mark_differs = false;
	int r;

	if (agent->applied && agent->applied->listen_port == desired->listen_port)
		return 0;
	r = interface_differs(agent, desired->listen_port, &differ, &mark_differs);
	if (r == 0 && differ)
		r = wg_set_interface(agent->wg, &agent->private_key, desired->listen_port);
	if (r == 0 && mark_differs)
		r = wg_set_mark(agent->wg, NET_OUTER_MARK);
	if (r < 0)
		cannot_add(agent, "listen_port", "WireGuard does not take key and port %u: %s",
			   desired->listen_port, strerror(-r));
	return r;
}

static bool is_of_other_epoch(const struct agent *agent, const struct desired_grant *granted)
{
	return granted->grant.ceiling != WT_NO_CEILING && granted->has_epoch &&
	       !uuid_equal(granted->epoch, meter_identity(agent->epoch.meter)->map_uuid);
}

/* The next cycle's, unless that has begun. */
static bool is_for_later(const struct desired_grant *granted)
{
	return granted->not_before_ns > clock_utc_ns();
}

static int apply_grant(struct agent *agent, const struct desired_grant *granted)
{
	int r;

	if (is_for_later(granted))
		return turn_prepare(agent, &granted->grant, granted->not_before_ns);
	r = meter_grant(agent->epoch.meter, &granted->grant);
	if (r < 0 && r != -EALREADY)
		return r;
	agent->epoch.granted = true;
	return 0;
}

static int apply_grants(struct agent *agent, const struct desired *desired)
{
	for (size_t i = 0; i < desired->n_grants; i++) {
		const struct meter_grant *grant = &desired->grants[i].grant;
		int r;

		if (is_of_other_epoch(agent, &desired->grants[i]))
			continue;
		r = apply_grant(agent, &desired->grants[i]);
		if (r < 0) {
			cannot_add(agent, "grant", "cycle %" PRIu64 ", grant %" PRIu64 ": %s",
				   (uint64_t)grant->cycle, (uint64_t)grant->grant_seq, strerror(-r));
			return r;
		}
	}
	return 0;
}

static enum gateway_state current_state(const struct agent *agent)
{
	struct meter_limit_state limit;

	if (!agent->up)
		return GATEWAY_DOWN;
	meter_read_limit(agent->epoch.meter, &limit);
	return limit.exhausted || limit.refuse ? GATEWAY_SUSPENDED : GATEWAY_ACTIVE;
}

static void note_first_active(struct agent *agent)
{
	int64_t now = clock_utc_ns();
	int r;

	if (agent->config.active_since_ns)
		return;
	agent->config.active_since_ns = now - now % 1000;
	r = config_save(agent->base, &agent->config);
	if (r < 0)
		log_warning("could not write agent.json: %s", strerror(-r));
	log_info("the gateway is active");
}

static int bring_up(struct agent *agent)
{
	int r;

	if (agent->up || !agent->epoch.granted || !agent->firewall_stands)
		return 0;
	r = net_link_set_up(agent->net, agent->config.interface, true);
	if (r < 0) {
		cannot_add(agent, "interface", "it does not come up: %s", strerror(-r));
		return r;
	}
	agent->up = true;
	return 0;
}

static bool routes_are_due(const struct agent *agent, const struct desired *desired, bool was_up)
{
	return agent->up &&
	       (!was_up || !agent->applied || !cidr_list_equal(&agent->applied->routes, &desired->routes));
}

/* Peers and firewall, and then the connections that either allowed until now. */
static int apply_peers_and_network(struct agent *agent, const struct desired *desired)
{
	_cleanup_flows_ struct flows flows = {0};
	int r = flows_collect(agent, desired, &flows);
	int failed;

	/* Before as well: of a prefix that moves, WireGuard hands over what comes in at once. */
	if (r == 0 && flows.n_revoked > 0)
		r = flows_end(&flows, desired);
	failed = peers_apply(agent, desired);
	if (failed < 0)
		cannot_add(agent, "peers", "%s", strerror(-failed));
	failed |= network_before_up(agent, desired);
	if (r == 0)
		r = flows_end(&flows, desired);
	if (r < 0)
		cannot_add(agent, "connections", "those that are over could not be ended: %s", strerror(-r));
	return failed | r;
}

/* The steps in the order of the start; a change later does only what differs. */
static int apply_steps(struct agent *agent, const struct desired *desired, bool grants_are_ours)
{
	bool was_up = agent->up;
	int failed = apply_wireguard_interface(agent, desired);

	failed |= apply_peers_and_network(agent, desired);
	meter_set_refuse(agent->epoch.meter, desired->refuse);
	if (grants_are_ours)
		failed |= apply_grants(agent, desired);
	if (!failed)
		failed |= bring_up(agent);
	if (routes_are_due(agent, desired, was_up))
		failed |= network_after_up(agent, desired);
	if (agent->up && !failed)
		note_first_active(agent);
	return failed ? -EIO : 0;
}

enum applied apply_desired(struct agent *agent, struct desired *desired, bool grants_are_ours)
{
	enum applied over = desired->gone ? APPLY_GONE : APPLY_SEALED;
	int r;

	if (over == APPLY_GONE || agent->epoch.report.final) {
		desired_free(desired);
		return over;
	}
	cannot_clear(agent);
	agent->shadowed = false;
	r = apply_steps(agent, desired, grants_are_ours);
	if (r == 0)
		agent->applied_revision = desired->revision;
	desired_free(agent->desired);
	agent->desired = desired;
	/* After a failure all of it is compared with what is there, as if it were the first time. */
	agent->applied = r == 0 ? desired : NULL;
	if (r < 0)
		agent->firewall_stands = false;
	report_state(agent, current_state(agent));
	report_make(agent);
	return r < 0 ? APPLY_IN_PART : APPLIED;
}
