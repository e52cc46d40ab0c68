// SPDX-License-Identifier: BSD-2-Clause
/* The file of peers' names: each is found by its key and by its name, and there once. */
#include "fuzz.h"

#include "standalone/names.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_problem problem = {0};
	struct names names;
	int r = names_read(file_of(data, size), &names, &problem);

	CLAIM(r == 0 || r == -EBADMSG);
	if (r < 0) {
		CLAIM(problem.message[0]);
		return 0;
	}
	for (size_t i = 0; i < names.count; i++) {
		const struct peer_label *label = &names.labels[i];
		_cleanup_json_ json_t *text = json_string(label->name);

		CLAIM(text); /* which is UTF-8, or an output would lose it */
		CLAIM(label->name[0] && memchr(label->name, '\0', sizeof(label->name)));
		CLAIM(names_find(&names, &label->public_key) == label->name);
		CLAIM(names_find_key(&names, label->name) == &label->public_key);
	}
	names_free(&names);
	return 0;
}
