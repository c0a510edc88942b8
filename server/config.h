/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Settings: the rows of config.def as typed fields, named <section>_<key>. */
#ifndef SMAPI_SERVER_CONFIG_H
#define SMAPI_SERVER_CONFIG_H

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/base/text.h"
#include "server/base/uuid.h"

#define SETTING_MAX 256 /* bytes of a path or text, with its NUL */

#define SETTING_path(name)   char name[SETTING_MAX];
#define SETTING_text(name)   char name[SETTING_MAX];
#define SETTING_number(name) unsigned name;
#define SETTING_uuid(name)   struct uuid name;
#define SETTING_level(name)  enum log_level name;

/* Plain data. */
struct settings {
#define CONFIG(section, key, kind, when, standard, least, most, sentence) SETTING_##kind(section##_##key)
#include "server/config.def"
#undef CONFIG
};

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

/* Takes from fresh what may change while the daemon runs. What differs beyond that stays, and is named, separated by
   blanks, in left. */
void settings_renew(struct settings *s, const struct settings *fresh, struct text *left);

/* As an ini file that settings_read accepts, each key under its sentence. */
void settings_print(const struct settings *s, struct text *out);

#endif
