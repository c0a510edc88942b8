/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Settings: the rows of config.def as typed fields, named <section>_<key>. Read once, at the start. */
#ifndef SMAPI_SERVER_CONFIG_H
#define SMAPI_SERVER_CONFIG_H

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/base/text.h"
#include "server/base/uuid.h"

#define SETTING_path   char *
#define SETTING_text   char *
#define SETTING_number unsigned
#define SETTING_uuid   struct uuid
#define SETTING_level  enum log_level

/* Text and paths are malloc'd and never NULL; settings_free releases them. */
struct settings {
#define CONFIG(section, key, kind, standard, least, most, sentence) SETTING_##kind section##_##key;
#include "server/config.def"
#undef CONFIG
};

void settings_free(struct settings *s);
#define AUTO_SETTINGS __attribute__((cleanup(settings_free)))

/* Every row at its default. */
void settings_default(struct settings *s);

/* All below return -1 with fault InvalidArg whose detail is a sentence for the person who wrote the setting. What was
   set before the mistake stays set. */

/* An ini file; a mistake is told with file and line. A key may stand once in it. */
int settings_read(struct settings *s, const char *file, struct fault *f);
/* "section.key=value", as --set gives it. */
int settings_assign(struct settings *s, const char *assignment, struct fault *f);
/* What no single row can tell: settings that must not be empty, or need each other. */
int settings_check(const struct settings *s, struct fault *f);

/* As an ini file that settings_read accepts, each key under its sentence. */
void settings_print(const struct settings *s, struct text *out);

#endif
