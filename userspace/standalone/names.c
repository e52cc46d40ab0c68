// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/names.h"

#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE (64 << 20)

/* Of UTF-8, as some editors write it before the first line. */
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

static int compare_labels(const void *left, const void *right)
{
	const struct peer_label *a = left, *b = right;

	return memcmp(a->public_key.bytes, b->public_key.bytes, KEY_SIZE);
}

static int compare_names(const void *left, const void *right)
{
	const struct peer_label *const *a = left, *const *b = right;

	return strcmp((*a)->name, (*b)->name);
}

static bool is_utf8(const char *text)
{
	_cleanup_json_ json_t *string = json_string(text);

	return string != NULL;
}

/* In UTF-8 also U+0080 to U+009F. */
static bool has_control_character(const char *text)
{
	for (const unsigned char *byte = (const unsigned char *)text; *byte; byte++) {
		if (*byte < 0x20 || *byte == 0x7f || (byte[0] == 0xc2 && byte[1] >= 0x80 && byte[1] < 0xa0))
			return true;
	}
	return false;
}

/* A '#' begins a comment where a word may begin: a key or a name may have one within. */
static void cut_comment(char *line)
{
	for (char *hash = strchr(line, '#'); hash; hash = strchr(hash + 1, '#')) {
		if (hash == line || strchr(" \t", hash[-1])) {
			*hash = '\0';
			return;
		}
	}
}

/* 1 when the line has a label, 0 when it has none. */
static int parse_line(char *line, struct peer_label *ret_label, const char **ret_wrong)
{
	size_t length;
	char *name;

	*ret_wrong = "it has bytes that are no UTF-8; accepted is UTF-8 text";
	if (!is_utf8(line))
		return -EBADMSG;
	cut_comment(line);
	length = strlen(line);
	while (length > 0 && strchr(" \t\r", line[length - 1]))
		line[--length] = '\0';
	line += strspn(line, " \t");
	if (*line == '\0')
		return 0;
	name = line + strcspn(line, " \t");
	if (*name != '\0')
		*name++ = '\0';
	name += strspn(name, " \t");
	*ret_wrong = "it is to be a public key in base64, a space and a name";
	if (key_parse(line, &ret_label->public_key) < 0 || *name == '\0')
		return -EBADMSG;
	*ret_wrong = "the name has a control character or more than 127 bytes";
	if (strlen(name) >= sizeof(ret_label->name) || has_control_character(name))
		return -EBADMSG;
	memcpy(ret_label->name, name, strlen(name) + 1);
	return 1;
}

static int add_label(struct names *names, const struct peer_label *label)
{
	struct peer_label *larger = names->labels;

	/* Full at each power of two. */
	if ((names->count & (names->count - 1)) == 0)
		larger = realloc(larger, (names->count ? 2 * names->count : 1) * sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	names->labels = larger;
	names->labels[names->count++] = *label;
	return 0;
}

static int check_unique(struct names *names, const char *path, struct json_problem *problem)
{
	_cleanup_free_ const struct peer_label **order = calloc(names->count + 1, sizeof(*order));

	if (!order)
		return -ENOMEM;
	if (names->count > 1)
		qsort(names->labels, names->count, sizeof(*names->labels), compare_labels);
	for (size_t i = 0; i < names->count; i++) {
		char key[KEY_TEXT_SIZE];

		order[i] = &names->labels[i];
		if (i == 0 || compare_labels(&names->labels[i - 1], &names->labels[i]) != 0)
			continue;
		json_problem_set(problem, "names", "%s: the key %s stands there twice", path,
				 key_format(&names->labels[i].public_key, key));
		return -EBADMSG;
	}
	if (names->count > 1)
		qsort(order, names->count, sizeof(*order), compare_names);
	for (size_t i = 1; i < names->count; i++) {
		if (strcmp(order[i - 1]->name, order[i]->name) != 0)
			continue;
		json_problem_set(problem, "names", "%s: the name \"%s\" stands there twice", path,
				 order[i]->name);
		return -EBADMSG;
	}
	return 0;
}

/* The text has `length` bytes and a NUL behind them. */
static int parse_lines(char *text, size_t length, const char *path, struct names *names,
		       struct json_problem *problem)
{
	const char *end = text + length;
	unsigned number = 0;
	char *line;
	int r;

	while ((line = strsep(&text, "\n"))) {
		const char *line_end = text ? text - 1 : end;
		const char *wrong = "it has a NUL byte; accepted is UTF-8 text";
		struct peer_label label;

		number++;
		r = line + strlen(line) == line_end ? parse_line(line, &label, &wrong) : -EBADMSG;
		if (r < 0) {
			json_problem_set(problem, "names", "%s, line %u: %s", path, number, wrong);
			return r;
		}
		if (r > 0)
			r = add_label(names, &label);
		if (r < 0)
			return r;
	}
	return 0;
}

int names_read(const char *path, struct names *ret_names, struct json_problem *problem)
{
	_cleanup_free_ char *text = NULL;
	struct names names = {0};
	size_t length, skipped;
	int r = file_read(path, MAX_FILE, &text, &length);

	if (r < 0) {
		json_problem_set(problem, "names", "could not read %s: %s", path, strerror(-r));
		return r;
	}
	skipped = strncmp(text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0 ? strlen(BYTE_ORDER_MARK) : 0;
	r = parse_lines(text + skipped, length - skipped, path, &names, problem);
	if (r == 0)
		r = check_unique(&names, path, problem);
	if (r == -ENOMEM)
		json_problem_set(problem, "names", "out of memory");
	if (r < 0) {
		names_free(&names);
		return r;
	}
	*ret_names = names;
	return 0;
}

void names_free(struct names *names)
{
	free(names->labels);
	*names = (struct names){0};
}

const char *names_find(const struct names *names, const struct key *public_key)
{
	struct peer_label wanted = {.public_key = *public_key};
	const struct peer_label *found =
		names->count ? bsearch(&wanted, names->labels, names->count, sizeof(wanted), compare_labels)
			     : NULL;

	return found ? found->name : NULL;
}

const struct key *names_find_key(const struct names *names, const char *name)
{
	for (size_t i = 0; i < names->count; i++) {
		if (strcmp(names->labels[i].name, name) == 0)
			return &names->labels[i].public_key;
	}
	return NULL;
}
