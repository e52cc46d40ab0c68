/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The report of an agent to the API, `POST /v1/agent/report` (docs/agent-protocol.md, 3): what both ends have
 * to agree on, in one place. Names and order are part of the protocol: the API reads bodies that are written
 * like this without a JSON parser, and others with one.
 */
#ifndef WIRETOLL_REPORT_H
#define WIRETOLL_REPORT_H

#define WT_REPORT_PROTOCOL 1

/* The counts of a record: totals of the epoch, decimal digits in strings. */
#define WT_REPORT_COUNTS(COUNT)                                                                              \
	COUNT(upload_bytes)                                                                                  \
	COUNT(download_bytes)                                                                                \
	COUNT(upload_packets)                                                                                \
	COUNT(download_packets)                                                                              \
	COUNT(undelivered_bytes)                                                                             \
	COUNT(refused_bytes)

#define WT_REPORT_COUNT_INDEX(name) WT_REPORT_##name,
enum wt_report_count { WT_REPORT_COUNTS(WT_REPORT_COUNT_INDEX) WT_REPORT_N_COUNTS };

/* An initializer of their names, by enum wt_report_count. */
#define WT_REPORT_COUNT_NAME(name) #name,
#define WT_REPORT_COUNT_NAMES                                                                                \
	{                                                                                                    \
		WT_REPORT_COUNTS(WT_REPORT_COUNT_NAME)                                                       \
	}

/* Headers beside the body. */
#define WT_HEADER_PROTOCOL   "Wiretoll-Protocol"
#define WT_HEADER_CRC        "Wiretoll-Batch-CRC32C"
#define WT_HEADER_KEPT_FROM  "Wiretoll-Kept-From"
#define WT_HEADER_EPOCH_OVER "Wiretoll-Epoch-Over"

/* What a report may have; an agent sends the rest in the next one. */
#define WT_REPORT_MAX_BYTES      (1024 * 1024)
#define WT_REPORT_MAX_STATES     64
#define WT_REPORT_MAX_STATUS     1000
#define WT_REPORT_MAX_COMPLAINTS 100
/* An agent's own: with the longest numbers, a body of that many stays below the bytes above. */
#define WT_REPORT_MAX_RECORDS 2000

#endif
