// SPDX-License-Identifier: BSD-2-Clause
#include "base/text.h"

#include <stdio.h>
#include <string.h>

#define ELLIPSIS "\xe2\x80\xa6"

/* The bytes that a character with this first byte has, and the bits of it that count; 0: it begins none. */
static size_t sequence_length(uint8_t first, uint32_t *ret_bits)
{
	size_t length = first < 0x80             ? 1
			: (first & 0xe0) == 0xc0 ? 2
			: (first & 0xf0) == 0xe0 ? 3
			: (first & 0xf8) == 0xf0 ? 4
						 : 0;

	*ret_bits = length == 1 ? first : first & (0x7fu >> length);
	return length;
}

/*
 * Reads one character. Returns the number of its bytes, or 0 when it is none; then ret_cut tells whether it
 * is one whose end is missing, and ret_bytes how many bytes of it there are.
 */
static size_t read_character(const char *text, uint32_t *ret_character, bool *ret_cut, size_t *ret_bytes)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length = sequence_length((uint8_t)text[0], ret_character);

	*ret_cut = false;
	*ret_bytes = 1;
	for (size_t i = 1; i < length; i++) {
		if (((uint8_t)text[i] & 0xc0) != 0x80) {
			*ret_cut = true;
			*ret_bytes = i;
			return 0;
		}
		*ret_character = *ret_character << 6 | ((uint8_t)text[i] & 0x3f);
	}
	if (*ret_character < least[length] || *ret_character > 0x10ffff ||
	    (*ret_character >= 0xd800 && *ret_character <= 0xdfff))
		return 0;
	return length;
}

static bool shows(uint32_t character)
{
	static const struct {
		uint32_t first, last;
	} hidden[] = {
		{0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},     {0x061c, 0x061c},   {0x115f, 0x1160},
		{0x200b, 0x200b}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},   {0x3164, 0x3164},
		{0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
	};

	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++) {
		if (character >= hidden[i].first && character <= hidden[i].last)
			return false;
	}
	return true;
}

bool text_is_printable(const char *text)
{
	uint32_t character;
	size_t bytes, length;
	bool cut;

	for (; *text; text += length) {
		length = read_character(text, &character, &cut, &bytes);
		if (length == 0 || !shows(character))
			return false;
	}
	return true;
}

size_t text_length(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((uint8_t)*text & 0xc0) != 0x80;
	return n;
}

/* What stands for the next character; returns how many bytes of the text it stands for. */
static size_t show_character(const char *text, char piece[static 20])
{
	uint32_t character;
	bool cut;
	size_t bytes, length = read_character(text, &character, &cut, &bytes);

	if (length > 0 && shows(character)) {
		snprintf(piece, 20, "%.*s", (int)length, text);
		return length;
	}
	if (cut) {
		snprintf(piece, 20, ELLIPSIS);
		return bytes;
	}
	bytes = length > 0 ? length : 1;
	for (size_t i = 0; i < bytes; i++)
		snprintf(piece + 4 * i, 5, "\\x%02x", (uint8_t)text[i]);
	return bytes;
}

const char *text_show(const char *text, char *buffer, size_t size)
{
	size_t used = 0;
	char piece[20];

	while (*text) {
		size_t taken = show_character(text, piece), length = strlen(piece);

		if (used + length + sizeof(ELLIPSIS) > size) {
			snprintf(buffer + used, size - used, ELLIPSIS);
			return buffer;
		}
		memcpy(buffer + used, piece, length);
		used += length;
		text += taken;
	}
	buffer[used] = '\0';
	return buffer;
}
