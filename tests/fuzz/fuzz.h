/* SPDX-License-Identifier: BSD-2-Clause */
/* What the fuzz targets share: claims that end the run, and reading an input front to back. */
#ifndef WIRETOLL_TESTS_FUZZ_FUZZ_H
#define WIRETOLL_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Called by libFuzzer for each input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CLAIM(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);       \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

struct input {
	const uint8_t *data;
	size_t left;
};

/* Zeros behind the end. */
static inline void take(struct input *input, void *to, size_t size)
{
	size_t there = size < input->left ? size : input->left;

	memset(to, 0, size);
	if (there)
		memcpy(to, input->data, there);
	input->data += there;
	input->left -= there;
}

static inline uint32_t take_number(struct input *input, unsigned bytes)
{
	uint32_t number = 0;

	take(input, &number, bytes);
	return number;
}

/* A copy of its own size, so that the sanitizer sees a step beyond it. */
static inline void *copy_of(const void *data, size_t size)
{
	void *copy = malloc(size ? size : 1);

	CLAIM(copy);
	if (size)
		memcpy(copy, data, size);
	return copy;
}

static inline char *text_of(const void *data, size_t size)
{
	char *text = malloc(size + 1);

	CLAIM(text);
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* A file in memory with this content, under the path that is returned; the next one replaces it. */
static inline const char *file_of(const void *data, size_t size)
{
	static char path[64];
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("fuzz", MFD_CLOEXEC);
		CLAIM(fd >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	CLAIM(ftruncate(fd, 0) == 0);
	CLAIM(size == 0 || pwrite(fd, data, size, 0) == (ssize_t)size);
	return path;
}

#endif
