/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A checksum in every page of the database: a bit that flips on the disk is noticed when the page is read, and never
   becomes another holder, size or epoch. The log has checksums of SQLite's own. Internal to store/ and to tests that
   change a database as no smapid would. */
#ifndef SMAPI_STORE_SUMS_H
#define SMAPI_STORE_SUMS_H

#define SUMS_BYTES 8 /* reserved at the end of each page */

/* An operation of sqlite3_file_control: whether pages have sums, an int. */
#define SUMS_ASK 1397575753

/* The name of the VFS that keeps them, registered at the first call. */
const char *sums_vfs(void);

#endif
