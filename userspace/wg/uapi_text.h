/* SPDX-License-Identifier: BSD-2-Clause */
/* The text protocol of userspace implementations, apart from any socket; internal to wg/ and its tests. */
#ifndef WIRETOLL_WG_UAPI_TEXT_H
#define WIRETOLL_WG_UAPI_TEXT_H

#include "wg/backend.h"

/* Longer than any line: a key in hexadecimal with its name has 81 characters. */
#define WG_UAPI_LINE_SIZE 256

/* The answer to a request while its lines come in. Begin with zeros. */
struct wg_uapi_reader {
	struct wg_device *device; /* NULL: only the result is of interest */
	struct wg_peer *peer;     /* the one that lines now belong to */
	bool has_result;
	int result; /* 0 or -errno, as the device says */
	bool done;  /* the empty line behind the result was read */
};

/* Takes one line without its newline. -EPROTO when it is malformed. */
WT_MUST_CHECK int wg_uapi_read_line(struct wg_uapi_reader *reader, const char *line);

/* Where lines go; returns 0 or -errno. */
typedef int (*wg_uapi_line_fn)(const char *line, void *data);

/* Writes interface settings, and one peer's change, line by line. */
WT_MUST_CHECK int wg_uapi_write_interface(const struct wg_request *request, wg_uapi_line_fn fn, void *data);
WT_MUST_CHECK int wg_uapi_write_peer(const struct wg_peer_change *change, wg_uapi_line_fn fn, void *data);

#endif
