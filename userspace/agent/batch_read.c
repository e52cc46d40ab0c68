// SPDX-License-Identifier: BSD-2-Clause
/* Batches read back from the journal. */
#include <errno.h>
#include <string.h>

#include "agent/batch.h"
#include "base/clock.h"
#include "base/crc32c.h"

int batch_from_record(enum journal_kind kind, const void *payload, size_t length,
		      struct batch_summary *ret_summary, const char **ret_body, size_t *ret_length)
{
	size_t head = sizeof(*ret_summary);

	if (kind != JOURNAL_BATCH || length < head)
		return -EINVAL;
	memcpy(ret_summary, payload, head);
	*ret_body = (const char *)payload + head;
	*ret_length = length - head;
	return 0;
}

int batch_parse_record(const json_t *record, struct batch_record *ret_record)
{
	static const char *const names[WT_REPORT_N_COUNTS] = WT_REPORT_COUNT_NAMES;
	struct batch_record parsed = {
		.slot = (uint32_t)json_integer_value(json_object_get(record, "slot")),
		.incarnation = (uint32_t)json_integer_value(json_object_get(record, "incarnation")),
	};
	uint64_t *const counts[WT_REPORT_N_COUNTS] = {
		[WT_REPORT_upload_bytes] = &parsed.totals.upload_bytes,
		[WT_REPORT_download_bytes] = &parsed.totals.download_bytes,
		[WT_REPORT_upload_packets] = &parsed.totals.upload_packets,
		[WT_REPORT_download_packets] = &parsed.totals.download_packets,
		[WT_REPORT_undelivered_bytes] = &parsed.undelivered,
		[WT_REPORT_refused_bytes] = &parsed.totals.refused_bytes,
	};

	for (size_t i = 0; i < WT_REPORT_N_COUNTS; i++) {
		int r = json_read_u64(record, names[i], counts[i], NULL);

		/* Files of earlier versions do not have what was undelivered. */
		if (r < 0 && !(r == -ENOENT && i == WT_REPORT_undelivered_bytes))
			return -EINVAL;
	}
	*ret_record = parsed;
	return 0;
}

int batch_renew(const struct batch_summary *summary, const char *body, size_t length, int64_t now_ns,
		struct batch *ret_batch)
{
	json_t *batch _cleanup_json_ = json_loadb(body, length, 0, NULL);
	struct batch renewed = {.summary = *summary};
	char now[CLOCK_TEXT_SIZE];

	if (!batch)
		return -EINVAL;
	if (json_object_set_new(batch, "now", json_string(clock_format(now_ns, now))) < 0)
		return -ENOMEM;
	renewed.body = json_dumps(batch, JSON_COMPACT);
	if (!renewed.body)
		return -ENOMEM;
	renewed.length = strlen(renewed.body);
	renewed.summary.checksum = crc32c(0, renewed.body, renewed.length);
	*ret_batch = renewed;
	return 0;
}
