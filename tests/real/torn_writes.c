/* Short, torn and failing writes to one file, made by the kernel itself.

   Loaded before libc (LD_PRELOAD), it stands between a program and the system. Once armed, it hands
   the kernel only a part of the writes to the file at `path`, and then does what `action` says. */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, SHORT, KILL, FAIL, FAIL_SYNC }; /* as in _torn_writer.py */

static char path[4096];
static int action, error, fired;
static size_t left; /* bytes that still pass; for FAIL_SYNC, syncs until the one that fails */

void torn_arm(const char *new_path, int new_action, size_t new_left, int new_error) {
    snprintf(path, sizeof path, "%s", new_path);
    action = new_action, left = new_left, error = new_error, fired = 0;
}

int torn_fired(void) { return fired; }

static int is_target(int fd) {
    struct stat here, there;
    return action != NOTHING && fstat(fd, &here) == 0 && stat(path, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

ssize_t write(int fd, const void *data, size_t size) {
    int counts = is_target(fd) && action != FAIL_SYNC;
    if (!counts || left > size || (left == size && action != KILL)) {
        if (counts) left -= size;
        return syscall(SYS_write, fd, data, size);
    }
    size_t part = left;
    left = 0, fired = 1;
    if (part == 0 && action == FAIL) return errno = error, -1; /* the disk stays as it is */
    ssize_t written = part ? syscall(SYS_write, fd, data, part) : 0;
    if (action == KILL) kill(getpid(), SIGKILL);
    if (action == SHORT) action = NOTHING;
    return written;
}

int fdatasync(int fd) {
    if (is_target(fd) && action == FAIL_SYNC && --left == 0) return fired = 1, errno = error, -1;
    return syscall(SYS_fdatasync, fd);
}

/* A write by another name would pass by unseen and prove nothing: die loudly. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (is_target(fd)) abort();
    return syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    if (is_target(fd)) abort();
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}
