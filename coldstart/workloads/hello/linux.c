/* The handler as a Linux program without libc: started bare it is the floor that every wrap is compared with, in an
 * image FROM scratch it is the container. Raw system calls, because a C library's start-up would be measured with it.
 *
 * Many connections at once, in a table of fixed size: who is silent holds up nobody, and makes room when it is needed.
 *
 * Environment: COLDSTART_NONCE, COLDSTART_PORT, COLDSTART_FAULT (see `parse_fault`). Nothing is read from argv, so that
 * every runtime passes the nonce the same way. */
#include "http.h"
#include "syscalls.h"

enum {
    DEFAULT_PORT = 8080,
    BACKLOG = 128,
    MAX_CONNECTIONS = 64,
    NO_NUMBER = -1,
    EXIT_USAGE = 2,
    EXIT_NO_SOCKET = 98, /* EADDRINUSE, by far the most likely reason */
};

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

/* DRAINING: nothing more to say; what still comes is read and forgotten until the peer closes. QUITTING: once the
 * answer is out, the program ends. */
enum state { FREE, ASKING, ANSWERING, CLOSING, QUITTING, DRAINING };

struct connection {
    enum state state;
    long file;
    unsigned long heard; /* when, counted in events */
    unsigned held;       /* of request */
    unsigned sent;       /* of reply */
    char request[HTTP_MAX_REQUEST];
    struct http_reply reply;
};

struct server {
    long epoll;
    long listener;
    unsigned long events;
    int mute;
    struct http_self self;
    struct connection connections[MAX_CONNECTIONS];
};

static void watch(struct server *server, long operation, long file, unsigned events, unsigned long index)
{
    struct epoll_event event = {events, index};

    call(SYS_EPOLL_CTL, server->epoll, operation, file, (long)&event, 0);
}

static void drop(struct connection *connection)
{
    call(SYS_CLOSE, connection->file, 0, 0, 0, 0);
    connection->state = FREE;
}

/* A free one; if there is none, that of the peer who has been silent for longest. */
static struct connection *make_room(struct server *server)
{
    struct connection *oldest = server->connections;

    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        struct connection *connection = &server->connections[i];

        if (connection->state == FREE)
            return connection;
        if (connection->heard < oldest->heard)
            oldest = connection;
    }
    drop(oldest);
    return oldest;
}

static void accept(struct server *server)
{
    long file = call(SYS_ACCEPT4, server->listener, 0, 0, SOCK_NONBLOCK, 0);
    struct connection *connection;

    if (file < 0)
        return; /* the client has gone again */
    connection = make_room(server);
    connection->state = server->mute ? DRAINING : ASKING;
    connection->file = file;
    connection->heard = server->events;
    connection->held = 0;
    watch(server, EPOLL_CTL_ADD, file, EPOLLIN, (unsigned long)(connection - server->connections));
}

/* The peer has the answer, or a second has passed: in a container the network goes with the last process. */
static void quit_when_heard(struct connection *connection)
{
    struct linger patience = {1, 1};

    call(SYS_SETSOCKOPT, connection->file, SOL_SOCKET, SO_LINGER, (long)&patience, sizeof patience);
    call(SYS_CLOSE, connection->file, 0, 0, 0, 0);
    quit(0);
}

/* The next request; 0 while there is none. */
static int take_request(struct server *server, struct connection *connection)
{
    static const enum state next[] = {ASKING, ANSWERING, CLOSING, QUITTING}; /* by enum http_result */
    struct http_reply *reply = &connection->reply;

    connection->state = next[http_answer(&server->self, connection->request, connection->held, reply)];
    if (connection->state == ASKING)
        return 0;
    connection->sent = 0;
    connection->held -= reply->consumed;
    for (unsigned i = 0; i < connection->held; i++)
        connection->request[i] = connection->request[reply->consumed + i];
    return 1;
}

/* 1 once the answer is out; 0 while the peer takes no more of it, or if it has gone. */
static int send_reply(struct server *server, struct connection *connection)
{
    struct http_reply *reply = &connection->reply;
    unsigned long index = (unsigned long)(connection - server->connections);
    long rest = (long)(reply->length - connection->sent);
    long count = call(SYS_WRITE, connection->file, (long)(reply->bytes + connection->sent), rest, 0, 0);

    if (count == rest)
        return 1;
    if (count < 0 && count != -EAGAIN) {
        drop(connection);
        return 0;
    }
    connection->sent += count > 0 ? (unsigned)count : 0;
    watch(server, EPOLL_CTL_MOD, connection->file, EPOLLOUT, index);
    return 0;
}

static void after_reply(struct connection *connection)
{
    if (connection->state == ANSWERING) {
        connection->state = ASKING;
        return;
    }
    call(SYS_SHUTDOWN, connection->file, SHUT_WR, 0, 0, 0);
    if (connection->state == QUITTING)
        quit_when_heard(connection);
    connection->state = DRAINING;
}

/* All requests that are here, each after the answer to the one before. */
static void converse(struct server *server, struct connection *connection)
{
    do {
        if (connection->state == ASKING && !take_request(server, connection))
            return;
        if (!send_reply(server, connection))
            return;
        after_reply(connection);
    } while (connection->state == ASKING);
}

static void hear(struct server *server, struct connection *connection)
{
    unsigned held = connection->state == DRAINING ? 0 : connection->held;
    long room = (long)(HTTP_MAX_REQUEST - held);
    long got = call(SYS_READ, connection->file, (long)(connection->request + held), room, 0, 0);

    if (got <= 0) {
        drop(connection);
    } else if (connection->state == ASKING) {
        connection->held += (unsigned)got;
        converse(server, connection);
    }
}

static void resume(struct server *server, struct connection *connection)
{
    watch(server, EPOLL_CTL_MOD, connection->file, EPOLLIN, (unsigned long)(connection - server->connections));
    converse(server, connection);
}

static void serve(struct server *server)
{
    server->epoll = call(SYS_EPOLL_CREATE1, 0, 0, 0, 0, 0);
    watch(server, EPOLL_CTL_ADD, server->listener, EPOLLIN, MAX_CONNECTIONS);
    for (;;) {
        struct epoll_event event;
        struct connection *connection;

        if (call(SYS_EPOLL_PWAIT, server->epoll, (long)&event, 1, -1, 0) != 1)
            continue;
        server->events++;
        if (event.data == MAX_CONNECTIONS) {
            accept(server);
            continue;
        }
        connection = &server->connections[event.data];
        connection->heard = server->events;
        if (connection->state == ASKING || connection->state == DRAINING)
            hear(server, connection);
        else
            resume(server, connection);
    }
}

/* The kernel leaves argc, argv, 0, environment, 0 on the stack. */
void run(const long *stack)
{
    const char *const *environment = (const char *const *)(stack + 1 + stack[0] + 1);
    const char *port = variable(environment, "COLDSTART_PORT=", "");
    const char *fault = variable(environment, "COLDSTART_FAULT=", "none");
    long number = *port ? parse_number(port) : DEFAULT_PORT;
    static struct server server;
    struct plan plan;

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
    server.mute = plan.fault == MUTE;
    server.self.kind = "linux";
    http_set_nonce(&server.self, plan.fault == STALE ? "stale" : variable(environment, "COLDSTART_NONCE=", "none"));
    server.listener = listen_on(number);
    say(STDOUT, "COLDSTART ready\n");
    serve(&server);
}
