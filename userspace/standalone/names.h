/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names of peers, from a file in UTF-8 with a line "KEY NAME" for each. A '#' at the line's beginning or
 * behind a space begins a comment; empty lines are skipped.
 */
#ifndef WIRETOLL_STANDALONE_NAMES_H
#define WIRETOLL_STANDALONE_NAMES_H

#include "base/json.h"
#include "base/key.h"

#define PEER_NAME_SIZE 128

struct peer_label {
	struct key public_key;
	char name[PEER_NAME_SIZE];
};

/* By public key, in order. Begin with zeros. */
struct names {
	struct peer_label *labels;
	size_t count;
};

/*
 * Reads the file. Key and name must each be there once, a name has no control characters. A byte order mark
 * and line ends of Windows are accepted. Returns -EBADMSG and other errors with a message that names file and
 * line.
 */
WT_MUST_CHECK int names_read(const char *path, struct names *ret_names, struct json_problem *problem);
void names_free(struct names *names);

/* NULL when there is none. */
const char *names_find(const struct names *names, const struct key *public_key);
const struct key *names_find_key(const struct names *names, const char *name);

#endif
