// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <errno.h>

#define FILE_NAME "slots.json"

static const struct meter_totals nothing;

/* What the file holds of a slot; refused packets are not kept. */
static json_t *base_json(uint32_t number, const struct slot *slot)
{
	return json_pack(
		"{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "slot", (json_int_t)number, "incarnation",
		(json_int_t)slot->incarnation, "upload_bytes", json_u64(slot->base.upload_bytes),
		"download_bytes", json_u64(slot->base.download_bytes), "upload_packets",
		json_u64(slot->base.upload_packets), "download_packets",
		json_u64(slot->base.download_packets), "refused_bytes", json_u64(slot->base.refused_bytes),
		"undelivered_bytes", json_u64(slot->audit.undelivered));
}

static json_t *bases_json(const struct epoch *epoch)
{
	json_t *bases = json_array();

	for (uint32_t number = 1; bases && number < epoch->slots.end; number++) {
		const struct slot *slot = &epoch->slots.slots[number];

		if (totals_equal(&slot->base, &nothing) && slot->audit.undelivered == 0)
			continue;
		if (json_array_append_new(bases, base_json(number, slot)) < 0) {
			json_decref(bases);
			return NULL;
		}
	}
	return json_pack("{s:o}", "bases", bases);
}

int bases_save(const struct agent *agent, struct epoch *epoch)
{
	int r = epoch_file_write(agent, epoch, FILE_NAME, bases_json(epoch));

	if (r < 0)
		return r;
	for (uint32_t number = 1; number < epoch->slots.end; number++)
		epoch->slots.slots[number].undelivered = epoch->slots.slots[number].audit.undelivered;
	return 0;
}

static int take_base(struct epoch *epoch, const json_t *item)
{
	struct batch_record record;
	int r = batch_parse_record(item, &record);

	if (r == 0)
		slots_restore_base(&epoch->slots, record.slot, record.incarnation, &record.totals,
				   record.undelivered);
	return r;
}

int bases_load(const struct agent *agent, struct epoch *epoch)
{
	json_t *object _cleanup_json_ = NULL;
	const json_t *item;
	size_t i;
	int r = epoch_file_read(agent, epoch, FILE_NAME, &object);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	json_array_foreach (json_object_get(object, "bases"), i, item) {
		r = take_base(epoch, item);
		if (r < 0)
			return r;
	}
	return 0;
}
