/* QEMU's virt, by what its device tree says: PL011, GICv2 or GICv3, the generic timer, PSCI. */
#include "devicetree.h"
#include "platform.h"

enum { UART_FLAGS = 0x18, UART_FULL = 0x20 };
enum { RANDOM_SHIFT = 60, MS_PER_SECOND = 1000 };
enum {
    DISTRIBUTOR_CONTROL = 0x000,
    GROUPS = 0x080,
    ENABLE = 0x100,
    PRIORITIES = 0x400,
    TARGETS = 0x800,
    ROUTES = 0x6000,
};
enum { ENABLE_GROUP_0 = 1, ENABLE_GROUP_1_BY_AFFINITY = 0x12, FIRST_PROCESSOR = 1, MIDDLE_PRIORITY = 0x80 };
enum { INTERFACE_CONTROL = 0x0, INTERFACE_MASK = 0x4, ALL_PRIORITIES = 0xff };
enum { REDISTRIBUTOR_WAKER = 0x14, PROCESSOR_SLEEP = 2, CHILDREN_ASLEEP = 4 };
enum { SYSTEM_OFF = 0x84000008, SYSTEM_RESET = 0x84000009 };

static struct machine machine;

static volatile uint32_t *word(uint64_t at) { return (volatile uint32_t *)at; }

void console_put(char c)
{
    if (!machine.console)
        return;
    while (*word(machine.console + UART_FLAGS) & UART_FULL)
        ;
    *word(machine.console) = (uint8_t)c;
}

uint64_t ticks(void)
{
    uint64_t value;

    __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(value));
    return value;
}

/* RNDR, by its number: assemblers know the name for newer processors only. */
uint64_t hardware_random(void)
{
    uint64_t value;

    __asm__ volatile("mrs %0, id_aa64isar0_el1" : "=r"(value));
    if (value >> RANDOM_SHIFT)
        __asm__ volatile("mrs %0, s3_3_c2_c4_0" : "=r"(value)::"cc");
    return value;
}

void sleep_ms(unsigned ms)
{
    uint64_t rate, begin = ticks();

    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(rate));
    while (ticks() - begin < rate * ms / MS_PER_SECOND)
        pause();
}

void pause(void) { __asm__ volatile("yield"); }

/* Ends by a pending interrupt, though they are masked; the device takes it back when it is acknowledged there. */
void wait_for_interrupt(void) { __asm__ volatile("dsb sy; wfi" ::: "memory"); }

static void enable_v2(unsigned line)
{
    *word(machine.distributor + DISTRIBUTOR_CONTROL) = ENABLE_GROUP_0;
    *(volatile uint8_t *)(machine.distributor + TARGETS + line) = FIRST_PROCESSOR;
    *word(machine.interface + INTERFACE_MASK) = ALL_PRIORITIES;
    *word(machine.interface + INTERFACE_CONTROL) = ENABLE_GROUP_0;
}

/* The processor's side of version 3 is in system registers, here by number: ICC_SRE, ICC_PMR, ICC_IGRPEN1. */
static void enable_v3(unsigned line)
{
    volatile uint32_t *waker = word(machine.interface + REDISTRIBUTOR_WAKER);

    __asm__ volatile("msr s3_0_c12_c12_5, %0; isb" ::"r"(7ul));
    *word(machine.distributor + DISTRIBUTOR_CONTROL) = ENABLE_GROUP_1_BY_AFFINITY;
    *waker &= ~(uint32_t)PROCESSOR_SLEEP;
    while (*waker & CHILDREN_ASLEEP)
        pause();
    *word(machine.distributor + GROUPS + line / 32 * 4) |= 1u << line % 32;
    *(volatile uint64_t *)(machine.distributor + ROUTES + line * 8ul) = 0;
    __asm__ volatile("msr s3_0_c4_c6_0, %0" ::"r"((uint64_t)ALL_PRIORITIES));
    __asm__ volatile("msr s3_0_c12_c12_7, %0; isb" ::"r"(1ul));
}

int interrupt_enable(unsigned line)
{
    if (machine.gic == 2)
        enable_v2(line);
    else if (machine.gic == 3)
        enable_v3(line);
    else
        return 0;
    *(volatile uint8_t *)(machine.distributor + PRIORITIES + line) = MIDDLE_PRIORITY;
    *word(machine.distributor + ENABLE + line / 32 * 4) = 1u << line % 32;
    return 1;
}

const struct transport *find_network(void)
{
    const struct transport *found = 0;

    for (unsigned i = 0; i < machine.places && !found; i++)
        found = mmio_network(machine.virtio[i].base, machine.virtio[i].interrupt);
    return found;
}

static void call_firmware(uint32_t function)
{
    register uint64_t x0 __asm__("x0") = function;

    if (machine.firmware_by_smc)
        __asm__ volatile(".inst 0xd4000003" : "+r"(x0)::"memory"); /* smc #0, which the assembler would refuse */
    else
        __asm__ volatile("hvc #0" : "+r"(x0)::"memory");
}

/* The firmware takes no status. */
void power_off(unsigned value)
{
    (void)value;
    call_firmware(SYSTEM_OFF);
    halt();
}

void restart(void)
{
    call_firmware(SYSTEM_RESET);
    halt();
}

void halt(void)
{
    for (;;)
        __asm__ volatile("wfi");
}

_Noreturn void on_exception(void);
void on_exception(void) { fail("exception"); }

_Noreturn void start(const void *devicetree);
void start(const void *devicetree)
{
    read_devicetree(devicetree, &machine);
    unikernel(machine.command_line);
}
