/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What xapi runs once per SMAPI call as /opt/xensource/sm/<Type>SR, with the methodCall as its one argument: the call
   goes to the local smapid, its answer to stdout. Whatever goes wrong is a methodResponse too. */
#include "server/base/clock.h"
#include "server/base/io.h"
#include "server/bin/bridge_document.h"
#include "server/bin/bridge_info.h"
#include "server/bin/bridge_post.h"
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#define TYPE_MAX     32
#define DOCUMENT_MAX (FAULT_DOCUMENT + 65536U) /* bytes */

/* The arguments hold secrets and every process of the host can read them: they are copied once and overwritten. */
static int take_call(int argc, char **argv, char **out, struct fault *f)
{
    AUTO_FREE char *call = argc > 1 ? strdup(argv[1]) : NULL;
    for (int i = 1; i < argc; i++)
        explicit_bzero(argv[i], strlen(argv[i]));
    if (argc != 2)
        return fault_set(f, FAULT_BadRequest, "want one argument, the methodCall; have %d", argc > 1 ? argc - 1 : 0);
    if (!call)
        return fault_errno(f, FAULT_EIO, "copy the call");
    if (call[0] == '\0')
        return fault_set(f, FAULT_BadRequest, "the methodCall is empty");
    *out = TAKE(call);
    return 0;
}

/* FileSR is file: the name it is called by, without its directory and SR, in lower case. */
static int read_type(const char *called, char out[TYPE_MAX + 1], struct fault *f)
{
    const char *slash = strrchr(called, '/'), *name = slash ? slash + 1 : called;
    size_t length = strlen(name);
    if (length < 3 || length - 2 > TYPE_MAX || strcmp(name + length - 2, "SR") != 0)
        return fault_set(f, FAULT_SRUnknownType, "called as %.40s, want a name such as FileSR", name);
    for (size_t i = 0; i < length - 2; i++) {
        char c = (char) (name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')))
            return fault_set(f, FAULT_SRUnknownType, "called as %.40s, want letters and digits", name);
        out[i] = c;
    }
    out[length - 2] = '\0';
    return 0;
}

static void write_fault(const struct fault *f, struct text *out)
{
    char sentence[2 * FAULT_DETAIL];
    fault_string(f, sentence, sizeof sentence);
    text_printf(out,
                "<?xml version=\"1.0\"?>\n<methodResponse>\n<fault>\n<value><struct>\n"
                "<member><name>faultCode</name><value><int>%d</int></value></member>\n"
                "<member><name>faultString</name><value><string>",
                (int) f->code);
    text_add_xml(out, sentence);
    text_add(out, "</string></value></member>\n</struct></value>\n</fault>\n</methodResponse>\n");
}

/* The answer goes out as it is; of a fault, its document goes to stderr, where xapi takes what programs parse, or else
   its sentence, which it shows to people. */
static int answer(const char *reply, size_t length, const struct bridge_conf *conf)
{
    int code = 0;
    AUTO_TEXT struct text sentence = TEXT_OF(DOCUMENT_MAX);
    bool is_fault = document_fault(reply, length, &code, &sentence);
    if (io_write(STDOUT_FILENO, reply, length) < 0)
        return 1;
    if (!is_fault)
        return 0;
    text_add(&sentence, "\n");
    const char *shown = document_of_sentence(sentence.data);
    if (io_write(STDERR_FILENO, shown, strlen(shown)) < 0 || !conf->exit_fault)
        return 0;
    return code < 1 ? 1 : code > 125 ? 125 : code;
}

/* The daemon's answer, or the bridge's own to the one call that must not need a daemon. */
static int ask(const char *called, char *call, const struct bridge_conf *conf, const struct fault *conf_fault,
               int64_t started, struct text *out, struct fault *f)
{
    char type[TYPE_MAX + 1];
    if (read_type(called, type, f) < 0)
        return -1;
    size_t length = strlen(call);
    if (document_calls(call, length, "sr_get_driver_info"))
        return bridge_info(type, out, f);
    if (conf_fault->code != FAULT_NONE) {
        *f = *conf_fault;
        return -1;
    }
    struct bridge_request request = {conf, type, call, length, started + conf->deadline_seconds * INT64_C(1000000000)};
    return bridge_post(&request, &out->data, &out->length, f);
}

int main(int argc, char **argv)
{
    int64_t started = clock_boot_ns();
    struct fault f = {}, conf_fault = {};
    struct bridge_conf conf;
    AUTO_FREE char *call = NULL;
    AUTO_TEXT struct text reply = TEXT_OF(DOCUMENT_MAX);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_DUMPABLE, 0);
    int taken = take_call(argc, argv, &call, &f);
    bridge_conf_read(&conf, &conf_fault);
    if (taken < 0 || ask(argv[0], call, &conf, &conf_fault, started, &reply, &f) < 0)
        write_fault(&f, &reply);
    return answer(reply.data, reply.length, &conf);
}
