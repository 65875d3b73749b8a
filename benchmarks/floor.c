/* What any harness must do for one boot, and nothing else: start a program, connect until it answers, kill it, reap it.
 * The peer of `floor.py`.
 *
 * usage: floor PROGRAM
 * A line on stdin, "PORT NONCE RUN", is one boot. A line on stdout is its result: nanoseconds from before the start to
 * the first byte of the valid answer, or "error: ...". The end of stdin ends it; a program it started never outlives a
 * boot, because every boot has an end. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FIELD = 128, ANSWER = 4096, LIMIT_S = 5 };

struct boot {
    int port;
    char nonce[FIELD];
    char run[FIELD];
};

static long long now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int start(const char *program, const struct boot *boot, pid_t *pid)
{
    char nonce[2 * FIELD], port[FIELD], run[2 * FIELD], path[4 * FIELD];
    char *argv[] = {(char *)program, NULL};
    char *env[] = {nonce, port, run, path, NULL};
    const char *inherited = getenv("PATH");
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int error;

    snprintf(nonce, sizeof nonce, "COLDSTART_NONCE=%s", boot->nonce);
    snprintf(port, sizeof port, "COLDSTART_PORT=%d", boot->port);
    snprintf(run, sizeof run, "COLDSTART_RUN=%s", boot->run);
    snprintf(path, sizeof path, "PATH=%s", inherited ? inherited : "");
    posix_spawn_file_actions_init(&files);
    for (int file = 0; file <= 2; file++)
        posix_spawn_file_actions_addopen(&files, file, "/dev/null", file ? O_WRONLY : O_RDONLY, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    error = posix_spawn(pid, program, &files, &attributes, argv, env);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return error;
}

/* The instant of the first byte of a valid answer, or 0. Refused connections cost a few microseconds on loopback. */
static long long ask(const struct boot *boot, const struct sockaddr_in *address, const char *request)
{
    struct timeval patience = {1, 0};
    char answer[ANSWER];
    size_t length = 0;
    long long first_ns = 0;
    ssize_t got;
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connection < 0)
        return 0;
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!connect(connection, (const struct sockaddr *)address, sizeof *address) &&
        send(connection, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
        while (length < sizeof answer - 1 && (got = read(connection, answer + length, sizeof answer - 1 - length)) > 0) {
            if (!first_ns)
                first_ns = now_ns();
            length += (size_t)got;
        }
    close(connection);
    answer[length] = 0;
    return !strncmp(answer, "HTTP/1.1 200", 12) && strstr(answer, boot->nonce) ? first_ns : 0;
}

/* Nanoseconds, or 0 if it never answered. */
static long long boot_once(const char *program, const struct boot *boot)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)boot->port)};
    char request[FIELD];
    long long start_ns, ready_ns;
    pid_t pid;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n", boot->port);
    start_ns = now_ns();
    if (start(program, boot, &pid))
        return 0;
    while (!(ready_ns = ask(boot, &address, request)) && now_ns() - start_ns < LIMIT_S * 1000000000LL)
        sched_yield(); /* or one start in ten shares its CPU with this loop, and waits 3 ms for its turn */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return ready_ns ? ready_ns - start_ns : 0;
}

int main(int argc, char **argv)
{
    struct boot boot;
    char line[4 * FIELD];

    if (argc != 2)
        return 2;
    while (fgets(line, sizeof line, stdin)) {
        long long ns = 0;

        if (sscanf(line, "%d %127s %127s", &boot.port, boot.nonce, boot.run) == 3)
            ns = boot_once(argv[1], &boot);
        if (ns)
            printf("%lld\n", ns);
        else
            printf("error: not ready within %d s\n", LIMIT_S);
        fflush(stdout);
    }
    return 0;
}
