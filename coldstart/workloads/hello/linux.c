/* The handler as a Linux program without libc: started bare it is the floor that every wrap is compared with, in an
 * image FROM scratch it is the container. Raw system calls, because a C library's start-up would be measured with it.
 *
 * One connection at a time: an answer takes microseconds, and a client that sends nothing is given up after a second.
 *
 * Environment: COLDSTART_NONCE, COLDSTART_PORT, COLDSTART_FAULT (see `parse_fault`). Nothing is read from argv, so that
 * every runtime passes the nonce the same way. */
#include "http.h"

enum {
    DEFAULT_PORT = 8080,
    BACKLOG = 128,
    NO_NUMBER = -1,
    EXIT_USAGE = 2,
    EXIT_NO_SOCKET = 98, /* EADDRINUSE, by far the most likely reason */
};

/* From the kernel's headers, which a build without libc does not have. */
enum { AF_INET = 2, SOCK_STREAM = 1, SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_RCVTIMEO = 20, SHUT_WR = 1 };
enum { SIGINT = 2, SIGPIPE = 13, SIGTERM = 15, SA_RESTORER = 0x04000000, EINTR = 4, STDOUT = 1, STDERR = 2 };

struct timespec {
    long seconds;
    long nanoseconds;
};

struct timeval {
    long seconds;
    long microseconds;
};

struct sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

struct sockaddr_in {
    unsigned short family;
    unsigned char port[2]; /* network order, whatever the machine's */
    unsigned char address[4];
    unsigned char zero[8];
};

#if defined(__x86_64__)

enum {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_CLOSE = 3,
    SYS_SIGACTION = 13,
    SYS_NANOSLEEP = 35,
    SYS_SOCKET = 41,
    SYS_ACCEPT = 43,
    SYS_SHUTDOWN = 48,
    SYS_BIND = 49,
    SYS_LISTEN = 50,
    SYS_SETSOCKOPT = 54,
    SYS_EXIT_GROUP = 231,
    SYS_PPOLL = 271,
};

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call run\n");

static long call_once(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

enum {
    SYS_CLOSE = 57,
    SYS_READ = 63,
    SYS_WRITE = 64,
    SYS_PPOLL = 73,
    SYS_EXIT_GROUP = 94,
    SYS_NANOSLEEP = 101,
    SYS_SIGACTION = 134,
    SYS_SOCKET = 198,
    SYS_BIND = 200,
    SYS_LISTEN = 201,
    SYS_ACCEPT = 202,
    SYS_SETSOCKOPT = 208,
    SYS_SHUTDOWN = 210,
};

__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, xzr\n"
        "    mov x30, xzr\n"
        "    mov x0, sp\n"
        "    bl run\n");

static long call_once(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;

    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

#endif

/* A debugger, a freezer or a stop signal interrupts calls that wait; nothing here wants to know. */
static long call(long number, long a, long b, long c, long d, long e)
{
    long result;

    do
        result = call_once(number, a, b, c, d, e);
    while (result == -EINTR);
    return result;
}

static void quit(int code)
{
    for (;;)
        call(SYS_EXIT_GROUP, code, 0, 0, 0, 0);
}

static void on_signal(int signal)
{
    (void)signal;
    quit(0);
}

static void handle(int signal, void (*handler)(int))
{
    /* x86_64 refuses a handler without a restorer; ours never returns, so it is never called. */
    struct sigaction action = {handler, SA_RESTORER, 0, 0};

    call(SYS_SIGACTION, signal, (long)&action, 0, sizeof action.mask, 0);
}

static unsigned long length_of(const char *text)
{
    unsigned long length = 0;

    while (text[length])
        length++;
    return length;
}

static void say(int file, const char *text) { call(SYS_WRITE, file, (long)text, (long)length_of(text), 0, 0); }

static void say_number(int file, long number)
{
    char digits[24];
    char *first = digits + sizeof digits - 1;

    *first = 0;
    do
        *--first = (char)('0' + number % 10);
    while (number /= 10);
    say(file, first);
}

/* What follows the prefix, or 0 if the text begins otherwise. */
static const char *after(const char *prefix, const char *text)
{
    while (*prefix)
        if (*prefix++ != *text++)
            return 0;
    return text;
}

/* 0 to 999999999, which no sum here can overflow, or NO_NUMBER. */
static long parse_number(const char *text)
{
    long number = 0;

    if (!*text || length_of(text) > 9)
        return NO_NUMBER;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return NO_NUMBER;
        number = number * 10 + (*text - '0');
    }
    return number;
}

/* Its value; the default if it is not set or empty. */
static const char *variable(const char *const *environment, const char *prefix, const char *otherwise)
{
    const char *value;

    for (; *environment; environment++)
        if ((value = after(prefix, *environment)) && *value)
            return value;
    return otherwise;
}

/* What goes wrong on purpose, for those who want to see how a fault is reported:
 * `delay:MS` before it listens; `deaf`: never listens; `mute`: takes connections and never answers; `exit:CODE` at
 * once; `stale`: answers with another boot's nonce. */
enum fault { NONE, DELAY, DEAF, MUTE, EXIT, STALE, FAULTS };

struct plan {
    enum fault fault;
    long number;
};

static int parse_fault(const char *text, struct plan *plan)
{
    static const char *const names[FAULTS] = {"none", "delay:", "deaf", "mute", "exit:", "stale"};

    for (int fault = NONE; fault < FAULTS; fault++) {
        const char *rest = after(names[fault], text);

        if (!rest)
            continue;
        plan->fault = (enum fault)fault;
        plan->number = fault == DELAY || fault == EXIT ? parse_number(rest) : *rest ? NO_NUMBER : 0;
        return plan->number != NO_NUMBER && (fault != EXIT || plan->number <= 255);
    }
    return 0;
}

static void refuse(const char *variable, const char *value, const char *next)
{
    say(STDERR, "hello: ");
    say(STDERR, variable);
    say(STDERR, value);
    say(STDERR, next);
    quit(EXIT_USAGE);
}

static void sleep_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};

    call(SYS_NANOSLEEP, (long)&left, (long)&left, 0, 0, 0); /* interrupted, it goes on with what is left */
}

static void sleep_forever(void)
{
    for (;;)
        call(SYS_PPOLL, 0, 0, 0, 0, 0);
}

static long listen_on(long port)
{
    struct sockaddr_in any = {AF_INET, {(unsigned char)(port >> 8), (unsigned char)port}, {0}, {0}};
    int yes = 1; /* the port of a server that has just ended must be usable by the next boot */
    long error;
    long listener = error = call(SYS_SOCKET, AF_INET, SOCK_STREAM, 0, 0, 0);

    if (error >= 0)
        error = call(SYS_SETSOCKOPT, listener, SOL_SOCKET, SO_REUSEADDR, (long)&yes, sizeof yes);
    if (error >= 0)
        error = call(SYS_BIND, listener, (long)&any, sizeof any, 0, 0);
    if (error >= 0)
        error = call(SYS_LISTEN, listener, BACKLOG, 0, 0, 0);
    if (error >= 0)
        return listener;
    say(STDERR, "hello: cannot listen on port ");
    say_number(STDERR, port);
    say(STDERR, ": errno ");
    say_number(STDERR, -error);
    say(STDERR, "\n");
    quit(EXIT_NO_SOCKET);
    return error;
}

/* Reads and forgets, until the peer closes or is silent for longer than the socket's timeout. */
static void drain(long connection)
{
    static char rest[HTTP_MAX_REQUEST];

    while (call(SYS_READ, connection, (long)rest, sizeof rest, 0, 0) > 0)
        ;
}

static void converse(long connection, const struct http_self *self)
{
    static char request[HTTP_MAX_REQUEST];
    static struct http_reply reply;
    enum http_result result = HTTP_INCOMPLETE;
    unsigned length = 0;

    while (result == HTTP_INCOMPLETE) {
        long got = call(SYS_READ, connection, (long)(request + length), (long)(sizeof request - length), 0, 0);

        if (got <= 0)
            return;
        length += (unsigned)got;
        result = http_answer(self, request, length, &reply);
    }
    call(SYS_WRITE, connection, (long)reply.bytes, reply.length, 0, 0); /* a fresh socket's buffer takes it whole */
    call(SYS_SHUTDOWN, connection, SHUT_WR, 0, 0, 0);
    if (result == HTTP_REFUSED)
        drain(connection);
}

static void serve(long listener, const struct http_self *self, int mute)
{
    struct timeval patience = {1, 0};

    for (;;) {
        long connection = call(SYS_ACCEPT, listener, 0, 0, 0, 0);

        if (connection < 0)
            continue; /* the client has gone again */
        if (mute) {
            drain(connection); /* without a timeout; whoever comes meanwhile is accepted by the kernel, and waits */
        } else {
            call(SYS_SETSOCKOPT, connection, SOL_SOCKET, SO_RCVTIMEO, (long)&patience, sizeof patience);
            converse(connection, self);
        }
        call(SYS_CLOSE, connection, 0, 0, 0, 0);
    }
}

/* The kernel leaves argc, argv, 0, environment, 0 on the stack. */
void run(const long *stack)
{
    const char *const *environment = (const char *const *)(stack + 1 + stack[0] + 1);
    const char *port = variable(environment, "COLDSTART_PORT=", "");
    const char *fault = variable(environment, "COLDSTART_FAULT=", "none");
    long number = *port ? parse_number(port) : DEFAULT_PORT;
    struct http_self self;
    struct plan plan;
    long listener;

    handle(SIGTERM, on_signal); /* as PID 1 nothing but its own handler would end it */
    handle(SIGINT, on_signal);
    handle(SIGPIPE, (void (*)(int))1); /* SIG_IGN: a client that has gone is no reason to end */
    if (number < 1 || number > 65535)
        refuse("COLDSTART_PORT=", port, ": not a port; 1 to 65535\n");
    if (!parse_fault(fault, &plan))
        refuse("COLDSTART_FAULT=", fault, ": unknown; delay:MS, deaf, mute, exit:CODE or stale\n");
    if (plan.fault == EXIT)
        quit((int)plan.number);
    if (plan.fault == DEAF)
        sleep_forever();
    if (plan.fault == DELAY)
        sleep_ms(plan.number);
    self.kind = "linux";
    http_set_nonce(&self, plan.fault == STALE ? "stale" : variable(environment, "COLDSTART_NONCE=", "none"));
    listener = listen_on(number);
    say(STDOUT, "COLDSTART ready\n");
    serve(listener, &self, plan.fault == MUTE);
}
