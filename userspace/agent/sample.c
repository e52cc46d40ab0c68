// SPDX-License-Identifier: BSD-2-Clause
/* The meter's cells, read into the slots. */
#include "agent/agent.h"

#include "base/clock.h"

void sample_take(struct agent *agent, struct epoch *epoch)
{
	reconcile_before_sample(agent, epoch);
	for (uint32_t slot = 0; slot < epoch->slots.end; slot++) {
		struct meter_totals cell;

		meter_read(epoch->meter, slot, &cell);
		cell.refused_packets = 0; /* no record carries them */
		slots_sample(&epoch->slots, slot, &cell);
	}
	agent->utc_offset_ns = clock_utc_ns() - clock_boot_ns();
}
