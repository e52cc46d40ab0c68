// SPDX-License-Identifier: BSD-2-Clause
#include "cli/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/commands.h"

struct listing {
	bool json;
	uint64_t records, first, last;
};

static int print_record(const struct reader_record *record, void *data)
{
	const struct listing *listing = data;
	json_t *object _cleanup_json_ = NULL;
	char words[JOURNAL_WORDS_SIZE];

	if (!listing->json) {
		printf("%s %8zu  %6" PRIu64 "  %-15s  %s\n", record->segment, record->offset,
		       record->sequence, journal_kind_name(record->kind),
		       journal_record_words(record, words));
		return 0;
	}
	object = journal_record_json(record);
	if (!object || json_dumpf(object, stdout, JSON_COMPACT) < 0)
		return -ENOMEM;
	putchar('\n');
	return 0;
}

static int count_record(const struct reader_record *record, void *data)
{
	struct listing *listing = data;

	if (listing->records++ == 0)
		listing->first = record->sequence;
	listing->last = record->sequence;
	return 0;
}

static int explain(struct session *session, int r, const char *path, const struct reader_fault *fault)
{
	switch (r) {
	case 0:
		return 0;
	case -ENOMEM:
		return session_no_memory(session);
	case -EBADMSG:
		return session_fail(session, r, "%s is damaged: in %s at offset %zu there is %s", path,
				    fault->segment, fault->offset, fault->reason);
	case -EINVAL:
		return session_fail(session, r,
				    "%s is no segment of a journal; accepted are a folder, or a file "
				    "named like 0000000000000001.wtj",
				    path);
	case -ENOENT:
		return session_fail(session, r, "%s is not there, or holds no segment of a journal", path);
	default:
		return session_fail(session, r, "could not read %s: %s", path, strerror(-r));
	}
}

int run_journal_show(struct session *session, const struct command *command,
		     const struct arguments *arguments)
{
	const char *path = arguments->positional[0];
	struct listing listing = {.json = argument_given(arguments, "json")};
	struct reader_fault fault = {0};

	(void)command;
	return explain(session, journal_inspect(path, print_record, &listing, &fault), path, &fault);
}

static int print_verdict(const struct listing *listing, const struct reader_fault *fault)
{
	json_t *verdict _cleanup_json_ = json_pack(
		"{s:b, s:I, s:I, s:I}", "valid", !fault, "records", (json_int_t)listing->records,
		"first_sequence", (json_int_t)listing->first, "last_sequence", (json_int_t)listing->last);

	if (verdict && fault &&
	    (json_object_set_new(verdict, "segment", json_string(fault->segment)) < 0 ||
	     json_object_set_new(verdict, "offset", json_integer((json_int_t)fault->offset)) < 0 ||
	     json_object_set_new(verdict, "reason", json_string(fault->reason)) < 0))
		return -ENOMEM;
	if (!verdict || json_dumpf(verdict, stdout, JSON_COMPACT) < 0)
		return -ENOMEM;
	putchar('\n');
	return 0;
}

int run_journal_verify(struct session *session, const struct command *command,
		       const struct arguments *arguments)
{
	const char *path = arguments->positional[0];
	struct listing listing = {.json = argument_given(arguments, "json")};
	struct reader_fault fault = {0};
	int r = journal_inspect(path, count_record, &listing, &fault);

	(void)command;
	if (listing.json && (r == 0 || r == -EBADMSG) && print_verdict(&listing, r < 0 ? &fault : NULL) < 0)
		return session_no_memory(session);
	if (!listing.json && r == 0)
		printf("valid: %" PRIu64 " records, %" PRIu64 " to %" PRIu64 "\n", listing.records,
		       listing.first, listing.last);
	return explain(session, r, path, &fault);
}
