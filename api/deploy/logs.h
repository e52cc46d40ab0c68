/* SPDX-License-Identifier: BSD-2-Clause */
/* The log files of a gateway's programs: root's, bounded in size. */
#ifndef WIRETOLL_DEPLOY_LOGS_H
#define WIRETOLL_DEPLOY_LOGS_H

#include "base/base.h"

#define LOG_MAX                                                                                              \
	(1024 * 1024) /* beyond it a file is begun anew; FILE.1 has the latest part of the one before */

/* Opens for appending; made when it is not there. Negative errno. */
WT_MUST_CHECK int log_file_open(const char *path);
bool log_file_is_full(const char *path);
/* Keeps the last LOG_MAX bytes in FILE.1 and empties the file, which its program goes on writing to. */
WT_MUST_CHECK int log_file_rotate(const char *path);

#endif
