// SPDX-License-Identifier: BSD-2-Clause
#include "cli/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COLUMNS 16

const char *bytes_format(uint64_t bytes, char buffer[static BYTES_TEXT_SIZE])
{
	static const struct {
		uint64_t size;
		const char *name;
	} units[] = {{1000000000, "GB"}, {1000000, "MB"}, {1000, "kB"}};
	int used;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (bytes < units[i].size)
			continue;
		/* Cut off: what is used never looks like the limit before it is reached. */
		used = snprintf(buffer, BYTES_TEXT_SIZE, "%" PRIu64 ".%03" PRIu64, bytes / units[i].size,
				bytes % units[i].size / (units[i].size / 1000));
		while (buffer[used - 1] == '0')
			used--;
		if (buffer[used - 1] == '.')
			used--;
		snprintf(buffer + used, (size_t)(BYTES_TEXT_SIZE - used), " %s", units[i].name);
		return buffer;
	}
	snprintf(buffer, BYTES_TEXT_SIZE, "%" PRIu64 " B", bytes);
	return buffer;
}

/* Control characters, in UTF-8 also U+0080 to U+009F, would let a name written by somebody else steer it. */
static void disarm(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++) {
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
		else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
}

void text_print(FILE *file, const char *text)
{
	_cleanup_free_ char *copy = strdup(text);

	if (!copy)
		return;
	for (char *rest = copy, *line; (line = strsep(&rest, "\n"));) {
		disarm(line);
		fputs(line, file);
		if (rest)
			fputc('\n', file);
	}
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);

	return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static uint64_t member_u64(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? strtoull(text, NULL, 10) : 0;
}

static void write_bandwidth(FILE *stream, const json_t *bandwidth)
{
	bool unlimited = !json_is_string(json_object_get(bandwidth, "allowance_bytes"));
	uint64_t allowance = member_u64(bandwidth, "allowance_bytes") + member_u64(bandwidth, "extra_bytes");
	bool enforced = json_is_true(json_object_get(bandwidth, "enforced"));
	char used[BYTES_TEXT_SIZE], limit[BYTES_TEXT_SIZE];

	bytes_format(member_u64(bandwidth, "used_bytes"), used);
	bytes_format(allowance, limit);
	fprintf(stream, "%s / %s", used, unlimited || !enforced ? "∞" : limit);
	if (!unlimited && !enforced)
		fprintf(stream, " (plan includes %s, not enforced)", limit);
}

static void write_value(FILE *stream, const char *field, const json_t *value);

static void write_list(FILE *stream, const char *field, const json_t *list)
{
	const json_t *item;
	size_t index;

	if (json_array_size(list) == 0)
		fputc('-', stream);
	json_array_foreach (list, index, item) {
		if (index > 0)
			fputs(", ", stream);
		write_value(stream, field, item);
	}
}

static void write_members(FILE *stream, const json_t *object)
{
	const char *separator = "", *member;
	json_t *value;

	json_object_foreach ((json_t *)object, member, value) {
		if (json_is_null(value))
			continue;
		fprintf(stream, "%s%s ", separator, member);
		write_value(stream, member, value);
		separator = "; ";
	}
}

static void write_scalar(FILE *stream, const json_t *value)
{
	if (json_is_string(value))
		fputs(json_string_value(value), stream);
	else if (json_is_boolean(value))
		fputs(json_is_true(value) ? "yes" : "no", stream);
	else if (json_is_integer(value))
		fprintf(stream, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else
		fputc('-', stream);
}

static void write_value(FILE *stream, const char *field, const json_t *value)
{
	char text[BYTES_TEXT_SIZE];

	if (strcmp(field, "bandwidth") == 0 && json_is_object(value)) {
		write_bandwidth(stream, value);
	} else if (json_is_array(value)) {
		write_list(stream, field, value);
	} else if (json_is_object(value)) {
		write_members(stream, value);
	} else if (ends_with(field, "_bytes") && json_is_string(value)) {
		fputs(bytes_format(strtoull(json_string_value(value), NULL, 10), text), stream);
	} else if (ends_with(field, "_gb") && json_is_null(value)) {
		fputs("∞", stream);
	} else {
		write_scalar(stream, value);
		if (ends_with(field, "_gb"))
			fputs(" GB", stream);
	}
}

char *field_format(const char *field, const json_t *value)
{
	char *text = NULL;
	size_t length;
	FILE *stream = open_memstream(&text, &length);

	if (!stream)
		return NULL;
	write_value(stream, field, value);
	if (fclose(stream) != 0) {
		free(text);
		return NULL;
	}
	disarm(text);
	return text;
}

/* Characters, as every byte but a continuation byte of UTF-8 begins one. */
static int width_of(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

static void pad(FILE *file, int count)
{
	fprintf(file, "%*s", count, "");
}

/* "upload_bytes" -> "UPLOAD"; a title of its own stays as it is. */
static void make_title(const char *field, char *title, size_t size)
{
	size_t length = strlen(field);

	if (ends_with(field, "_bytes"))
		length -= strlen("_bytes");
	else if (ends_with(field, "_gb"))
		length -= strlen("_gb");
	if (length >= size)
		length = size - 1;
	for (size_t i = 0; i < length; i++)
		title[i] = field[i] == '_' ? ' ' : (char)(field[i] & ~(field[i] >= 'a' ? 0x20 : 0));
	title[length] = '\0';
}

struct table {
	unsigned columns;
	size_t rows;
	char *fields[MAX_COLUMNS];
	char titles[MAX_COLUMNS][32];
	bool to_the_right[MAX_COLUMNS];
	int widths[MAX_COLUMNS];
	char **cells; /* rows * columns */
};

static void cleanup_table(struct table *table)
{
	for (size_t i = 0; table->cells && i < table->rows * table->columns; i++)
		free(table->cells[i]);
	free(table->cells);
}

static void read_columns(struct table *table, char *columns)
{
	char *field;

	while (table->columns < MAX_COLUMNS && (field = strsep(&columns, ","))) {
		unsigned column = table->columns++;
		char *title = strchr(field, '=');

		if (title)
			*title++ = '\0';
		table->fields[column] = field;
		make_title(title ? title : field, table->titles[column], sizeof(table->titles[column]));
		table->to_the_right[column] = ends_with(field, "_bytes") || ends_with(field, "_gb") ||
					      ends_with(field, "_credits") || ends_with(field, "_rate");
		table->widths[column] = width_of(table->titles[column]);
	}
}

static int fill_cells(struct table *table, const json_t *objects)
{
	const json_t *object;
	size_t row;

	table->rows = json_array_size(objects);
	table->cells = calloc(table->rows * table->columns + 1, sizeof(*table->cells));
	if (!table->cells)
		return -ENOMEM;
	json_array_foreach (objects, row, object) {
		for (unsigned column = 0; column < table->columns; column++) {
			char *cell = field_format(table->fields[column],
						  json_object_get(object, table->fields[column]));

			if (!cell)
				return -ENOMEM;
			table->cells[row * table->columns + column] = cell;
			if (width_of(cell) > table->widths[column])
				table->widths[column] = width_of(cell);
		}
	}
	return 0;
}

static void print_cell(FILE *file, const struct table *table, unsigned column, const char *text)
{
	int missing = table->widths[column] - width_of(text);

	if (table->to_the_right[column])
		pad(file, missing);
	fputs(text, file);
	if (column + 1 == table->columns)
		fputc('\n', file);
	else
		pad(file, (table->to_the_right[column] ? 0 : missing) + 2);
}

int table_print(FILE *file, const char *columns, const json_t *objects)
{
	_cleanup_free_ char *copy = strdup(columns);
	WT_CLEANUP(cleanup_table) struct table table = {0};
	int r;

	if (!copy)
		return -ENOMEM;
	read_columns(&table, copy);
	r = fill_cells(&table, objects);
	if (r < 0)
		return r;
	for (unsigned column = 0; column < table.columns; column++)
		print_cell(file, &table, column, table.titles[column]);
	for (size_t i = 0; i < table.rows * table.columns; i++)
		print_cell(file, &table, (unsigned)(i % table.columns), table.cells[i]);
	return 0;
}

int object_print(FILE *file, const json_t *object)
{
	const char *member;
	json_t *value;
	int width = 0;

	json_object_foreach ((json_t *)object, member, value) {
		if ((int)strlen(member) > width)
			width = (int)strlen(member);
	}
	json_object_foreach ((json_t *)object, member, value) {
		_cleanup_free_ char *text = field_format(member, value);

		if (!text)
			return -ENOMEM;
		for (const char *c = member; *c; c++)
			fputc(*c == '_' ? ' ' : *c, file);
		fputc(':', file);
		pad(file, width - (int)strlen(member) + 1);
		fprintf(file, "%s\n", text);
	}
	return 0;
}
