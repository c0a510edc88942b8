/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver's part of sr_scan against plain loops over the same directory, in turns. bench_scan DIRECTORY COUNT ROUNDS
   DIRECTORY is empty and on the disk to measure. Prints a line each: name, our median and the loop's in milliseconds.
     warm      an SR just attached              opens each image, reads and sums footer and header
     unchanged a second scan                    readdir and fstatat
     cold      as warm, no page of any image    as warm, no page of any image in memory; one thread
   in memory */
#include "backends/guard.h"
#include "backends/images/image.h"
#include "backends/images/vhd_layout.h"
#include "server/base/clock.h"
#include "server/base/io.h"
#include "server/base/own.h"
#include "tests/bench/median.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { ROUNDS_MAX = 101, SETTLE_SECONDS = 4, ARENA_MAX = 256 << 20 };

static struct {
    char base[300], location[300];
    struct backend_settings settings;
    struct arena *life;
    struct sr *sr;
    struct vdi_list known;
    size_t count;
    int dir; /* the location */
} lab;

static void need(bool ok, const char *what, const struct fault *f)
{
    if (ok)
        return;
    fprintf(stderr, "%s: %s\n", what, f ? f->detail : strerror(errno));
    exit(EXIT_FAILURE);
}

/* The SR as a daemon that just started has it: it remembers no image. */
static void attach_anew(void)
{
    struct fault f = {0};
    if (lab.sr)
        backend_sr_release(lab.sr);
    struct sr *fresh = calloc(1, sizeof *fresh);
    need(fresh, "memory", NULL);
    *fresh = (struct sr){.type = sr_type_find("file"), .settings = &lab.settings, .arena = lab.life, .place.dir = -1};
    uuid_parse_text("aaaaaaaa-2222-4333-8444-555555555555", &fresh->uuid);
    pairs_set(lab.life, &fresh->config, "location", lab.location);
    struct plan plan = {.op = uuid_random(), .method = "sr_create", .sr = fresh->uuid, .format = "", .name = ""};
    need(lab.sr || backend_sr_create(fresh, &plan, &f) == 0, "sr_create", &f);
    need(backend_sr_attach(fresh, &f) == 0, "sr_attach", &f);
    free(lab.sr);
    lab.sr = fresh;
}

static double scan_ms(bool keep)
{
    struct fault f = {0};
    struct vdi_list found = {0};
    struct sr_totals totals;
    struct arena *a = keep ? lab.life : arena_new(ARENA_MAX);
    int64_t began = clock_boot_ns();
    need(backend_sr_scan(lab.sr, &lab.known, a, &found, &totals, &f) == 0, "sr_scan", &f);
    double took = (double) (clock_boot_ns() - began) / 1e6;
    need(found.count == lab.count && found.items[0].size == GIB, "sr_scan found other disks than there are", NULL);
    if (keep)
        lab.known = found;
    else
        arena_free(a);
    return took;
}

static bool is_image(const struct dirent *e)
{
    size_t length = strlen(e->d_name);
    return length > 4 && strcmp(e->d_name + length - 4, ".vhd") == 0;
}

static void read_plainly(const char *name)
{
    unsigned char raw[VHD_HEADER_SIZE];
    struct vhd_footer footer;
    struct vhd_header header;
    struct stat st;
    AUTO_FD int fd = openat(lab.dir, name, O_RDONLY | O_CLOEXEC);
    need(fd >= 0 && fstat(fd, &st) == 0, name, NULL);
    need(io_read_at(fd, raw, VHD_FOOTER_SIZE, (uint64_t) st.st_size - VHD_FOOTER_SIZE) == 0, name, NULL);
    need(!vhd_footer_in(raw, &footer), "footer", NULL);
    need(io_read_at(fd, raw, VHD_HEADER_SIZE, footer.data_offset) == 0 && !vhd_header_in(raw, &header), name, NULL);
}

static void stat_plainly(const char *name)
{
    struct stat st;
    need(fstatat(lab.dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0, name, NULL);
}

static void forget_pages(const char *name)
{
    AUTO_FD int fd = openat(lab.dir, name, O_RDONLY | O_CLOEXEC);
    need(fd >= 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, name, NULL);
}

static double loop_ms(void (*once)(const char *name))
{
    size_t seen = 0;
    int64_t began = clock_boot_ns();
    AUTO_DIR DIR *d = opendir(lab.location);
    need(d, lab.location, NULL);
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (!is_image(e))
            continue;
        once(e->d_name);
        seen++;
    }
    need(seen == lab.count, "the loop found other files than there are", NULL);
    return (double) (clock_boot_ns() - began) / 1e6;
}

static void make_images(void)
{
    struct fault f = {0};
    for (size_t i = 0; i < lab.count; i++) {
        char name[UUID_TEXT + 5];
        struct uuid id = uuid_random();
        snprintf(name, sizeof name, "%s.vhd", id.text);
        AUTO_FD int fd = openat(lab.dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        need(fd >= 0, name, NULL);
        need(image_vhd.make(fd, &id, GIB, &f) == 0, name, &f);
    }
    need(syncfs(lab.dir) == 0, "syncfs", NULL);
    sleep(SETTLE_SECONDS); /* what was written just now is not believed unread */
}

static void prepare(const char *directory, size_t count)
{
    lab.count = count;
    lab.life = arena_new(ARENA_MAX);
    snprintf(lab.base, sizeof lab.base, "%s/mount", directory);
    snprintf(lab.location, sizeof lab.location, "%s/sr", directory);
    lab.settings = (struct backend_settings){.mount_base = lab.base, .server = uuid_random()};
    attach_anew();
    lab.dir = open(lab.location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(lab.dir >= 0, lab.location, NULL);
    make_images();
    scan_ms(true);
}

static double fresh_ms(void)
{
    attach_anew();
    return scan_ms(false);
}

enum measured { WARM, UNCHANGED, COLD, MEASURED };

static void measure(double ours[MEASURED][ROUNDS_MAX], double loop[MEASURED][ROUNDS_MAX], size_t round)
{
    loop[WARM][round] = loop_ms(read_plainly);
    ours[WARM][round] = fresh_ms();
    loop[UNCHANGED][round] = loop_ms(stat_plainly);
    ours[UNCHANGED][round] = scan_ms(false);
    loop_ms(forget_pages);
    loop[COLD][round] = loop_ms(read_plainly);
    loop_ms(forget_pages);
    ours[COLD][round] = fresh_ms();
}

int main(int argc, char **argv)
{
    static double ours[MEASURED][ROUNDS_MAX], loop[MEASURED][ROUNDS_MAX];
    static const char *const names[MEASURED] = {"warm", "unchanged", "cold"};
    if (argc != 4)
        return 2;
    size_t rounds = (size_t) atoi(argv[3]);
    need(rounds > 0 && rounds <= ROUNDS_MAX, "ROUNDS", NULL);
    prepare(argv[1], (size_t) atoi(argv[2]));
    for (size_t i = 0; i < rounds; i++)
        measure(ours, loop, i);
    for (enum measured m = 0; m < MEASURED; m++)
        printf("%s %.3f %.3f\n", names[m], median(ours[m], rounds), median(loop[m], rounds));
    backend_sr_release(lab.sr);
    free(lab.sr);
    arena_free(lab.life);
    close(lab.dir);
    return EXIT_SUCCESS;
}
