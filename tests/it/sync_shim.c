/* Stands before fsync and fdatasync of the process that it is preloaded into. What it does is told by files in SYNC_SHIM:
 *   fail      every call fails with EIO and does nothing
 *   hold      calls wait until the file is gone
 *   delay     calls end this many milliseconds after they would have
 * and it tells what happened in the file `log` there: `s` when a call begins, `e` when it has ended, `f` when it has failed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *path(char *buffer, const char *name) {
    snprintf(buffer, PATH_MAX, "%s/%s", getenv("SYNC_SHIM"), name);
    return buffer;
}

static int there(const char *name) {
    char buffer[PATH_MAX];
    return access(path(buffer, name), F_OK) == 0;
}

static void tell(char what) {
    char buffer[PATH_MAX];
    int file = open(path(buffer, "log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, &what, 1) != 1) abort();
    close(file);
}

static int synced(const char *name, int file) {
    char buffer[PATH_MAX];
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (!real) abort();
    if (!getenv("SYNC_SHIM")) return real(file);
    tell('s');
    if (there("fail")) {
        tell('f');
        errno = EIO;
        return -1;
    }
    int result = real(file);
    while (there("hold")) usleep(1000);
    FILE *delay = fopen(path(buffer, "delay"), "r");
    unsigned millis = 0;
    if (delay) {
        if (fscanf(delay, "%u", &millis) != 1) abort();
        fclose(delay);
        usleep(millis * 1000);
    }
    tell(result == 0 ? 'e' : 'f');
    return result;
}

int fsync(int file) { return synced("fsync", file); }
int fdatasync(int file) { return synced("fdatasync", file); }
