/* SPDX-License-Identifier: BSD-2-Clause */
/* Text in UTF-8 that somebody else has written. */
#ifndef WIRETOLL_BASE_TEXT_H
#define WIRETOLL_BASE_TEXT_H

#include "base/base.h"

/*
 * Whether it is well-formed UTF-8 (RFC 3629) in which every character shows: no control characters (C0, DEL,
 * C1), no separators of lines and paragraphs, none without a width, and none of those that turn the direction
 * of what follows, with which one name can be made to look like another.
 */
bool text_is_printable(const char *text);

/* The number of characters of well-formed UTF-8. */
size_t text_length(const char *text);

/*
 * Copies the text as well-formed UTF-8, as far as it goes into the buffer, whose size is at least 8. What is
 * not printable becomes "\xNN", byte by byte; a character that was cut off becomes "…". Returns the buffer.
 */
const char *text_show(const char *text, char *buffer, size_t size);

#endif
