/* SPDX-License-Identifier: BSD-2-Clause */
/* CRC32C (Castagnoli), the checksum of journal records and report batches. */
#ifndef WIRETOLL_BASE_CRC32C_H
#define WIRETOLL_BASE_CRC32C_H

#include "base/base.h"

/* The CRC of `data` behind what `crc` already covers; begin with 0. crc32c(0, "123456789", 9) == 0xe3069283.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

#endif
