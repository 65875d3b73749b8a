/* PID 1 of the virtual machine, for as long as it takes to make the kernel's network usable: then it becomes the
 * handler, which is the same program that every wrap holds. No shell, no udev, no DHCP: what is measured is Linux, not
 * a distribution's start-up. No libc, because one would be loaded and started as well.
 *
 * Environment, which is what the kernel does not know of its own command line: COLDSTART_IP=ADDRESS/PREFIX,
 * COLDSTART_GATEWAY=ADDRESS (optional), COLDSTART_FAULT=panic|reboot|poweroff (others are the handler's). All of it is
 * handed on. On the console: `COLDSTART boot` as the first act; `COLDSTART failed WHY` before it powers off. Started as
 * anything but PID 1 it refuses: it would switch off the machine of whoever tried it. */

#include "../hello/syscalls.h"

enum { O_RDONLY = 0, SOCK_DGRAM = 2, EEXIST = 17, EXIT_USAGE = 2, ADDRESS_BITS = 32 };
enum { SIOCADDRT = 0x890b, SIOCSIFFLAGS = 0x8914, SIOCSIFADDR = 0x8916, SIOCSIFNETMASK = 0x891c };
enum { IFF_UP = 1, RTF_UP = 1, RTF_GATEWAY = 2, ORDER_BYTES = 8192 };

#define REBOOT_MAGIC1 0xfee1deadU
#define REBOOT_MAGIC2 672274793U
#define REBOOT_RESTART 0x01234567U
#define REBOOT_POWER_OFF 0x4321fedcU

/* struct ifreq: a name, and one of several things. */
struct request {
    char name[16];
    union {
        struct sockaddr_in address;
        short flags;
        char room[24];
    } value;
};

/* struct rtentry */
struct route {
    unsigned long pad1;
    struct sockaddr_in destination, gateway, mask;
    unsigned short flags;
    short pad2;
    unsigned long pad3;
    void *pad4;
    short metric;
    char *device;
    unsigned long mtu, window;
    unsigned short rtt;
};

#if defined(__x86_64__)

enum {
    SYS_IOCTL = 16,
    SYS_GETPID = 39,
    SYS_EXECVE = 59,
    SYS_REBOOT = 169,
    SYS_OPENAT = 257,
    SYS_FINIT_MODULE = 313,
};

#elif defined(__aarch64__)

enum {
    SYS_IOCTL = 29,
    SYS_OPENAT = 56,
    SYS_REBOOT = 142,
    SYS_GETPID = 172,
    SYS_EXECVE = 221,
    SYS_FINIT_MODULE = 273,
};

#endif

/* --- texts --- */

static unsigned long length_of(const char *text)
{
    unsigned long length = 0;

    while (text[length])
        length++;
    return length;
}

static int is_same(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static void say(const char *text) { call(SYS_WRITE, STDOUT, (long)text, (long)length_of(text), 0, 0); }

static void say_number(long number)
{
    char digits[24];
    char *first = digits + sizeof digits - 1;

    *first = 0;
    do
        *--first = (char)('0' + number % 10);
    while (number /= 10);
    say(first);
}

/* Its value, or an empty text; name: with the equals sign. */
static const char *variable(const char *const *environment, const char *name)
{
    unsigned long length = length_of(name);

    for (; *environment; environment++) {
        unsigned long same = 0;

        while (same < length && (*environment)[same] == name[same])
            same++;
        if (same == length)
            return *environment + length;
    }
    return "";
}

/* --- the end --- */

static void restart(unsigned how)
{
    call(SYS_REBOOT, (long)REBOOT_MAGIC1, REBOOT_MAGIC2, how, 0, 0);
    call(SYS_EXIT_GROUP, 1, 0, 0, 0, 0); /* a machine that cannot be switched off: the kernel's panic ends it */
}

static void refuse_outside_of_a_machine(void)
{
    if (call(SYS_GETPID, 0, 0, 0, 0, 0) == 1)
        return;
    say("hello-vm-init: only for PID 1 of a virtual machine\n");
    call(SYS_EXIT_GROUP, EXIT_USAGE, 0, 0, 0, 0);
}

/* errno: 0 if the kernel has no part in it. */
static void fail(const char *what, const char *which, long errno)
{
    say("COLDSTART failed ");
    say(what);
    say(which);
    if (errno) {
        say(": errno ");
        say_number(errno);
    }
    say("\n");
    restart(REBOOT_POWER_OFF);
}

static void break_if_asked(const char *fault)
{
    if (is_same(fault, "panic"))
        call(SYS_EXIT_GROUP, 1, 0, 0, 0, 0);
    if (is_same(fault, "reboot"))
        restart(REBOOT_RESTART);
    if (is_same(fault, "poweroff"))
        restart(REBOOT_POWER_OFF);
}

/* --- modules --- */

static long open_file(const char *path) { return call(SYS_OPENAT, 0, (long)path, O_RDONLY, 0, 0); }

static void load(const char *path)
{
    long file = open_file(path);
    long error = file < 0 ? file : call(SYS_FINIT_MODULE, file, (long)"", 0, 0, 0);

    if (error < 0 && error != -EEXIST)
        fail("module ", path, -error);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
}

/* One path per line, in the order in which they depend on each other. No file: all is built into the kernel. */
static void load_modules(void)
{
    static char order[ORDER_BYTES + 1];
    long file = open_file("/modules/order");
    long length = file < 0 ? 0 : call(SYS_READ, file, (long)order, ORDER_BYTES, 0, 0);
    char *line = order;

    for (char *c = order; c < order + length; c++) {
        if (*c != '\n')
            continue;
        *c = 0;
        load(line);
        line = c + 1;
    }
    call(SYS_CLOSE, file, 0, 0, 0, 0);
}

/* --- network --- */

/* The number that *text begins with, at most `most`; *text is moved behind it. Negative: there is none. */
static long take_number(const char **text, long most)
{
    const char *begin = *text;
    long number = 0;

    for (; **text >= '0' && **text <= '9' && number <= most; (*text)++)
        number = number * 10 + (**text - '0');
    return *text == begin || number > most ? -1 : number;
}

/* Whether *text begins with `a.b.c.d`; *text is moved behind it. */
static int take_address(const char **text, struct sockaddr_in *address)
{
    *address = (struct sockaddr_in){AF_INET, {0}, {0}, {0}};
    for (int i = 0; i < 4; i++) {
        long number = take_number(text, 255);

        if (number < 0 || (i < 3 && *(*text)++ != '.'))
            return 0;
        address->address[i] = (unsigned char)number;
    }
    return 1;
}

static struct sockaddr_in mask_of(long prefix)
{
    struct sockaddr_in mask = {AF_INET, {0}, {0}, {0}};

    for (int bit = 0; bit < prefix; bit++)
        mask.address[bit / 8] |= (unsigned char)(0x80 >> bit % 8);
    return mask;
}

static void configure(long socket, const char *device, long what, struct request request)
{
    long error;

    for (unsigned i = 0; device[i]; i++)
        request.name[i] = device[i];
    error = call(SYS_IOCTL, socket, what, (long)&request, 0, 0);
    if (error < 0)
        fail("interface ", device, -error);
}

static void bring_up(long socket, const char *device)
{
    configure(socket, device, SIOCSIFFLAGS, (struct request){.value.flags = IFF_UP});
}

static void add_default_route(long socket, const char *text)
{
    const char *rest = text;
    struct route route = {.destination.family = AF_INET, .mask.family = AF_INET, .flags = RTF_UP | RTF_GATEWAY};
    long error;

    if (!take_address(&rest, &route.gateway) || *rest)
        fail("COLDSTART_GATEWAY is not ADDRESS: ", text, 0);
    error = call(SYS_IOCTL, socket, SIOCADDRT, (long)&route, 0, 0);
    if (error < 0)
        fail("route by ", text, -error);
}

static void bring_network_up(const char *ip, const char *gateway)
{
    const char *rest = ip;
    long socket = call(SYS_SOCKET, AF_INET, SOCK_DGRAM, 0, 0, 0);
    struct sockaddr_in address;
    long prefix = take_address(&rest, &address) && *rest++ == '/' ? take_number(&rest, ADDRESS_BITS) : -1;

    if (prefix < 0 || *rest)
        fail("COLDSTART_IP is not ADDRESS/PREFIX: ", ip, 0);
    bring_up(socket, "lo");
    configure(socket, "eth0", SIOCSIFADDR, (struct request){.value.address = address});
    configure(socket, "eth0", SIOCSIFNETMASK, (struct request){.value.address = mask_of(prefix)});
    bring_up(socket, "eth0");
    if (*gateway)
        add_default_route(socket, gateway);
    call(SYS_CLOSE, socket, 0, 0, 0, 0);
}

/* The kernel leaves argc, argv, 0, environment, 0 on the stack. */
void run(const long *stack)
{
    static const char *const arguments[] = {"/hello", 0};
    const char *const *environment = (const char *const *)(stack + 1 + stack[0] + 1);

    refuse_outside_of_a_machine();
    say("COLDSTART boot\n");
    break_if_asked(variable(environment, "COLDSTART_FAULT="));
    load_modules();
    bring_network_up(variable(environment, "COLDSTART_IP="), variable(environment, "COLDSTART_GATEWAY="));
    fail("cannot run ", arguments[0], -call(SYS_EXECVE, (long)arguments[0], (long)arguments, (long)environment, 0, 0));
}
