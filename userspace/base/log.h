/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: one line per event on standard error, for journald or a terminal. Only programs log (their main
 * files and handlers); library files return -errno. Never pass a secret: not a key, not a token.
 */
#ifndef WIRETOLL_BASE_LOG_H
#define WIRETOLL_BASE_LOG_H

#include "base/base.h"

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/*
 * Sets the program's name and the level up to which lines are written. Under systemd (JOURNAL_STREAM is set)
 * lines carry the "<6>" priority prefix that journald reads; elsewhere a UTC time and the program's name.
 */
void log_setup(const char *program, enum log_level level);

/* Parses "error", "warning", "info" or "debug"; returns -EINVAL otherwise. */
WT_MUST_CHECK int log_level_parse(const char *text, enum log_level *ret_level);

void log_write(enum log_level level, const char *format, ...) WT_PRINTF(2, 3);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
