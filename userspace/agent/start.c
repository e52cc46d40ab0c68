// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>

#include "base/log.h"

int start_device(struct agent *agent)
{
	const char *interface = agent->config.interface;
	int r = net_link_index(agent->net, interface);

	if (r == -ENODEV) {
		r = net_link_create_wireguard(agent->net, interface);
		/* Without WireGuard in the kernel, a userspace implementation makes the device. */
		if (r == -EOPNOTSUPP)
			return -ENODEV;
		if (r < 0 && r != -EEXIST)
			return r;
		r = net_link_index(agent->net, interface);
	}
	if (r < 0)
		return r;
	agent->ifindex = r;
	return wg_open(interface, &agent->wg);
}

static int attach(struct agent *agent, const struct meter_options *options)
{
	int r;

	/* No packet may pass before it is counted. */
	r = net_link_set_up(agent->net, options->interface, false);
	if (r == 0)
		r = net_link_disable_addrgen(agent->net, options->interface);
	if (r == 0) {
		reconcile_before_epoch(agent);
		r = meter_attach(options, &agent->epoch.meter);
	}
	if (r == 0)
		log_info("attached the meter to %s by %s", options->interface,
			 meter_attachment(agent->epoch.meter));
	if (r == 0)
		reconcile_begin_epoch(agent);
	return r;
}

static int adopt_or_attach(struct agent *agent, const struct batch_summary *last)
{
	struct meter_options options = {.pin_folder = agent->pin_folder,
					.interface = agent->config.interface};
	int r = meter_adopt(&options, &agent->epoch.meter);

	if (r == -ESTALE) {
		log_warning("the device that was metered is gone: its epoch is sealed");
		r = upgrade_take_sealed(agent, last);
		if (r == 0)
			r = seal_stale(agent, last);
	} else if (r == -ENOENT) {
		r = last->seq > 0 && !(last->flags & BATCH_FINAL) ? seal_forgotten(agent, last) : 0;
	} else {
		if (r == 0)
			log_info("adopted the meter of %s", options.interface);
		return r < 0 ? r : upgrade_meter(agent, last);
	}
	return r < 0 ? r : attach(agent, &options);
}

int start_meter(struct agent *agent)
{
	struct batch_summary last = {0};
	int r = replay_pending(agent, &last);

	if (r < 0 && r != -ENOENT)
		return r;
	r = adopt_or_attach(agent, &last);
	if (r < 0)
		return r;
	seal_or_continue(agent, &agent->epoch, &last);
	if (sums_load(agent) < 0)
		log_info("what WireGuard has counted since the epoch began is not known");
	r = restore_owners(agent, &agent->epoch);
	if (r == 0)
		r = restore_table(&agent->epoch);
	if (r == 0)
		restore_state(agent, &agent->epoch);
	return r;
}
