// SPDX-License-Identifier: BSD-2-Clause
/* Which file a station's history is: it goes by the interface's name, also when that changes. */
#include "standalone/station_internal.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of an interface made anew: the process of the earlier one sees it end within a second, and writes. */
#define LOCK_WITHIN_NS (5 * NSEC_PER_SEC)
#define LOCK_AGAIN_US  20000

struct lock_path {
	char text[PATH_MAX + 8];
};

static struct lock_path lock_of(const char *history)
{
	struct lock_path path;

	snprintf(path.text, sizeof(path.text), "%s.lock", history);
	return path;
}

static int open_lock(const char *history, int *ret_fd)
{
	const struct lock_path path = lock_of(history);
	int fd = open(path.text, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	/* The folder was taken away, as nothing was in it. */
	if (fd < 0 && errno == ENOENT && place_is_default_history(history) &&
	    file_make_folder(PLACE_HISTORY, 0700) == 0)
		fd = open(path.text, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* -EAGAIN when the file was taken away between the two steps. */
static int lock_once(const char *history, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct stat status;
	int r = open_lock(history, &fd);

	if (r < 0)
		return r;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (status.st_nlink == 0)
		return -EAGAIN;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int lock_within(const char *history, int64_t patience_ns, int *ret_fd)
{
	const int64_t until = clock_boot_ns() + patience_ns;
	int r;

	while ((r = lock_once(history, ret_fd)) == -EAGAIN || (r == -EBUSY && clock_boot_ns() < until))
		usleep(LOCK_AGAIN_US);
	return r;
}

static int lock_history(struct station *station, int64_t patience_ns, struct json_problem *problem)
{
	int r = lock_within(station->history_path, patience_ns, &station->history_lock);

	if (r == -EBUSY)
		json_problem_set(problem, "state", "another process writes %s", station->history_path);
	return r == 0 || r == -EBUSY ? r : station_fail(problem, r, station->history_path);
}

int station_lock_history(struct station *station, struct json_problem *problem)
{
	return lock_history(station, 0, problem);
}

static int join(const char *folder, const char *interface, char ret_path[static PATH_MAX])
{
	return (size_t)snprintf(ret_path, PATH_MAX, "%s/%s.json", folder, interface) >= PATH_MAX
		       ? -ENAMETOOLONG
		       : 0;
}

/* The next process may stand in another folder: it is resolved. */
static int choose_path(struct station *station, const char *state, const char *pointed,
		       struct json_problem *problem)
{
	const char *folder = state ? state : PLACE_HISTORY;
	char resolved[PATH_MAX];
	int r = file_make_folder(folder, 0700);

	if (r == 0 && !state && *pointed)
		snprintf(station->history_path, PATH_MAX, "%s", pointed);
	else if (r == 0 && !state)
		r = place_default_history(station->interface, station->history_path);
	else if (r == 0)
		r = realpath(state, resolved) ? join(resolved, station->interface, station->history_path)
					      : -errno;
	return r < 0 ? station_fail(problem, r, folder) : 0;
}

static bool same_folder(const char *one, const char *other)
{
	char a[PATH_MAX], b[PATH_MAX];

	snprintf(a, sizeof(a), "%s", one);
	snprintf(b, sizeof(b), "%s", other);
	return strcmp(dirname(a), dirname(b)) == 0;
}

/* The interface's name was another when its history began in this folder. */
static void stay_in_folder(struct station *station, const char *pointed)
{
	if (*pointed && station->meter && same_folder(pointed, station->history_path) &&
	    access(station->history_path, F_OK) == 0)
		snprintf(station->history_path, PATH_MAX, "%s", pointed);
}

static int check_epoch(const struct station *station, const char *pointed, struct json_problem *problem)
{
	if (!*pointed || !station->meter || strcmp(pointed, station->history_path) == 0 ||
	    station_is_epoch(station))
		return 0;
	json_problem_set(problem, "state",
			 "the meter on %s has its history in %s, and %s is another: name the first, or "
			 "use wiretoll meter stop %s before",
			 station->interface, pointed, station->history_path, station->interface);
	return -EEXIST;
}

/* One that is named for the first time continues the one that the meter had until now. */
int station_load_history(struct station *station, const char *state, struct json_problem *problem)
{
	char pointed[PATH_MAX] = "";
	int found = place_read_pointer(&station->place, pointed), r;

	if (found < 0 && found != -ENOENT)
		return station_fail(problem, found, station->place.pointer);
	r = choose_path(station, state, pointed, problem);
	if (r < 0)
		return r;
	stay_in_folder(station, pointed);
	r = lock_history(station, LOCK_WITHIN_NS, problem);
	if (r < 0)
		return r;
	r = history_load(station->history_path, &station->history, problem);
	station->had_history = r == 0;
	if (r == 0)
		r = check_epoch(station, pointed, problem);
	if (r == -ENOENT && *pointed)
		r = history_load(pointed, &station->history, problem);
	if (r == -ENOENT)
		r = history_create(station->interface, &station->history);
	return r == -ENOMEM ? station_fail(problem, r, "the history") : r;
}

static void remove_history(const char *path)
{
	unlink(path);
	unlink(lock_of(path).text);
}

/* The one that this one continues is not the user's own, or was of the interface's earlier name. */
int station_point(struct station *station, struct json_problem *problem)
{
	char pointed[PATH_MAX] = "";
	int found = place_read_pointer(&station->place, pointed);
	int r = place_write_pointer(&station->place, station->history_path);

	if (r < 0)
		return station_fail(problem, r, station->place.pointer);
	if (found == 0 && strcmp(pointed, station->history_path) != 0 &&
	    (place_is_default_history(pointed) || same_folder(pointed, station->history_path)))
		remove_history(pointed);
	return 0;
}

/* Where the history would be by the interface's name now. */
static int path_by_name(const struct station *station, char ret_path[static PATH_MAX])
{
	char folder[PATH_MAX];

	if (place_is_default_history(station->history_path))
		return place_default_history(station->interface, ret_path);
	snprintf(folder, sizeof(folder), "%s", station->history_path);
	return join(dirname(folder), station->interface, ret_path);
}

/* Another history of that name is not touched: this one stays where it is, which the pointer knows. */
int station_rename_history(struct station *station, struct json_problem *problem)
{
	char before[PATH_MAX], path[PATH_MAX];
	int lock = -1, r = path_by_name(station, path);

	if (r < 0)
		return station_fail(problem, r, "the history's name");
	if (strcmp(path, station->history_path) == 0 || access(path, F_OK) == 0)
		return 0;
	r = lock_within(path, 0, &lock);
	if (r < 0)
		return r == -EBUSY ? 0 : station_fail(problem, r, path);
	snprintf(before, sizeof(before), "%s", station->history_path);
	snprintf(station->history_path, PATH_MAX, "%s", path);
	r = station_save(station, problem);
	if (r < 0) {
		cleanup_close(&lock);
		snprintf(station->history_path, PATH_MAX, "%s", before);
		return r;
	}
	cleanup_close(&station->history_lock);
	station->history_lock = lock;
	return station_point(station, problem);
}

void station_clear_place(struct station *station, bool keep_history)
{
	_cleanup_close_ int lock = -1;

	unlink(station->place.pointer);
	if (*station->history_path && !keep_history && place_is_default_history(station->history_path))
		unlink(station->history_path);
	if (*station->history_path)
		unlink(lock_of(station->history_path).text);
	cleanup_close(&station->hold);
	station->hold = -1;
	if (place_lock(&lock) == 0)
		place_clear();
}

int station_forget_history(const char *interface)
{
	char path[PATH_MAX];
	_cleanup_close_ int held = -1, lock = -1;
	bool was_there;
	int r = place_default_history(interface, path);

	if (r < 0)
		return r;
	was_there = access(path, F_OK) == 0;
	if (!was_there && access(lock_of(path).text, F_OK) < 0)
		return -ENOENT;
	r = lock_within(path, 0, &held);
	if (r < 0)
		return r;
	remove_history(path);
	if (place_lock(&lock) == 0)
		place_clear();
	return was_there ? 0 : -ENOENT;
}
