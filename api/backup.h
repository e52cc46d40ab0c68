/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving the database to a file and bringing it back, by pg_dump and pg_restore (docs/decisions/restore.md).
 */
#ifndef WIRETOLL_API_BACKUP_H
#define WIRETOLL_API_BACKUP_H

#include "base/base.h"

/* Both log what goes wrong and what they have done. The connection is the tables' owner's. */
WT_MUST_CHECK int backup_run(const char *database_file, const char *file);
/* A database that has the schemas already is refused, unless they are to be replaced. */
WT_MUST_CHECK int restore_run(const char *database_file, const char *file, bool replace);

#endif
