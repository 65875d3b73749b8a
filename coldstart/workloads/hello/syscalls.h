/* Linux without a C library: raw system calls, and the entry that calls `run` with the stack the kernel left. For one
 * file of a program only. */
#ifndef COLDSTART_SYSCALLS_H
#define COLDSTART_SYSCALLS_H

/* From the kernel's headers, which a build without libc does not have. */
enum { AF_INET = 2, SOCK_STREAM = 1, SOCK_NONBLOCK = 04000, SHUT_WR = 1 };
enum { SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_LINGER = 13 };
enum { EPOLL_CTL_ADD = 1, EPOLL_CTL_MOD = 3, EPOLLIN = 1, EPOLLOUT = 4 };
enum { SIGINT = 2, SIGPIPE = 13, SIGTERM = 15, SA_RESTORER = 0x04000000 };
enum { EINTR = 4, EAGAIN = 11, STDOUT = 1, STDERR = 2 };

struct timespec {
    long seconds;
    long nanoseconds;
};

struct linger {
    int on;
    int seconds;
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

/* Packed here, and nowhere else: a 32-bit program's layout is the same. */
struct __attribute__((packed)) epoll_event {
    unsigned events;
    unsigned long data;
};

enum {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_CLOSE = 3,
    SYS_SIGACTION = 13,
    SYS_NANOSLEEP = 35,
    SYS_SOCKET = 41,
    SYS_SHUTDOWN = 48,
    SYS_BIND = 49,
    SYS_LISTEN = 50,
    SYS_SETSOCKOPT = 54,
    SYS_EXIT_GROUP = 231,
    SYS_EPOLL_CTL = 233,
    SYS_PPOLL = 271,
    SYS_EPOLL_PWAIT = 281,
    SYS_ACCEPT4 = 288,
    SYS_EPOLL_CREATE1 = 291,
};

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call run\n");

static inline long call_once(long number, long a, long b, long c, long d, long e)
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

struct epoll_event {
    unsigned events;
    unsigned long data;
};

enum {
    SYS_EPOLL_CREATE1 = 20,
    SYS_EPOLL_CTL = 21,
    SYS_EPOLL_PWAIT = 22,
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
    SYS_SETSOCKOPT = 208,
    SYS_SHUTDOWN = 210,
    SYS_ACCEPT4 = 242,
};

__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, xzr\n"
        "    mov x30, xzr\n"
        "    mov x0, sp\n"
        "    bl run\n");

static inline long call_once(long number, long a, long b, long c, long d, long e)
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
static inline long call(long number, long a, long b, long c, long d, long e)
{
    long result;

    do
        result = call_once(number, a, b, c, d, e);
    while (result == -EINTR);
    return result;
}

#endif
