/* From the command line to the loop that never ends. */
#include "net.h"
#include "options.h"
#include "platform.h"

enum { PATTERN = 0x5eed };

extern uint32_t image_end[]; /* behind all we use: the linker's */

static struct options options;

static void print(const char *text)
{
    while (*text)
        console_put(*text++);
}

void fail(const char *why)
{
    print("COLDSTART failed ");
    print(why);
    print("\n");
    power_off(EXIT_FAILURE);
}

/* With too little of it everything seems to work, but what is written beyond the end is lost. */
static void check_memory(void)
{
    volatile uint32_t *last = image_end - 1;

    *last = PATTERN;
    if (*last != PATTERN)
        fail("no-memory");
    *last = 0;
}

/* The counter differs by what the boot and the peer's timing have made of it; where the processor has real random
 * numbers they come on top. Mixed as in SplitMix64. */
uint32_t random_number(void)
{
    static uint64_t state;

    state += 0x9e3779b97f4a7c15 + (ticks() ^ hardware_random());
    state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9;
    state = (state ^ state >> 27) * 0x94d049bb133111eb;
    return (uint32_t)(state >> 31);
}

void quit_acknowledged(void) { power_off(EXIT_OK); }

static void misbehave(void)
{
    switch (options.fault) {
    case DELAY:
        sleep_ms(options.number);
        break;
    case EXIT:
        power_off(options.number);
    case REBOOT:
        restart();
    case PANIC:
        print("COLDSTART panic: fault=panic\n");
        halt();
    case DEAF:
        halt();
    default:
        break;
    }
}

static void start_network(void)
{
    const struct transport *transport = find_network();

    if (!transport || !virtio_net_start(transport, net.mac))
        fail("no-virtio-net");
    net.address = options.address;
    net.port = options.port;
    net.mute = options.fault == MUTE;
    net.self.kind = "unikernel";
    http_set_nonce(&net.self, options.fault == STALE ? "stale" : options.nonce);
    net_announce();
}

void unikernel(const char *command_line)
{
    const char *wrong;

    print("COLDSTART boot\n");
    check_memory();
    wrong = read_options(command_line, &options);
    if (wrong)
        fail(wrong);
    misbehave();
    start_network();
    print("COLDSTART ready nonce=");
    print(net.self.nonce);
    print("\n");
    for (;;)
        virtio_net_serve();
}
