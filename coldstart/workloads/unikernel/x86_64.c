/* A PC, as far as it is needed: PVH start, COM1, interrupts by I/O APIC or message, the ways to end. */
#include "options.h"
#include "platform.h"
#include "ports.h"

#include <cpuid.h>

enum { COM1 = 0x3f8, COM1_STATUS = 0x3fd, CAN_SEND = 0x20, NOTHING_THERE = 0xff };
enum { PIC1_MASK = 0x21, PIC2_MASK = 0xa1, DEBUG_EXIT = 0xf4, RESET_CONTROL = 0xcf9, RESET = 6 };
enum { FIRST_IOAPIC = 0xfec00000, SECOND_IOAPIC = 0xfec10000, LOCAL_APIC = 0xfee00000 };
enum { MICROVM_DEVICES = 0xfeb00000, MICROVM_STRIDE = 512, MICROVM_SLOTS = 24, MICROVM_PINS = 24 };
enum { IOAPIC_VERSION = 1, IOAPIC_PINS = 0x10 };
enum {
    APIC_SPURIOUS = 0xf0,
    APIC_LINT0 = 0x350,
    APIC_TIMER = 0x320,
    APIC_TIMER_START = 0x380,
    APIC_TIMER_NOW = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
};
enum { APIC_ENABLED = 0x100, APIC_MASKED = 0x10000, DIVIDE_BY_1 = 11, APIC_TICKS_PER_MS = 1000000 };
enum { CODE_SEGMENT = 8, INTERRUPT_GATE = 0x8e00, SPURIOUS = 0x2f, GATES = 0x30, RANDOM_TRIES = 10 };
enum { START_MAGIC = 0x336ec578 };

struct gate {
    uint16_t low;
    uint16_t segment;
    uint16_t type;
    uint16_t middle;
    uint32_t high;
    uint32_t zero;
};

struct __attribute__((packed)) table {
    uint16_t limit;
    uint64_t base;
};

/* What a PVH loader tells (Xen's hvm_start_info), as far as it is read. */
struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t modules;
    uint64_t module_list;
    uint64_t command_line;
};

extern const char interrupt_entry[], spurious_entry[], exception_entry[]; /* x86_64.S */

static struct gate gates[GATES];
static const char *command_line = "";

static volatile uint32_t *apic(unsigned at) { return (volatile uint32_t *)(uint64_t)(LOCAL_APIC + at); }

void console_put(char c)
{
    if (in8(COM1_STATUS) == NOTHING_THERE)
        return;
    while (!(in8(COM1_STATUS) & CAN_SEND))
        ;
    out8(COM1, (uint8_t)c);
}

uint64_t ticks(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

uint64_t hardware_random(void)
{
    uint32_t a, b, c, d;
    uint64_t value = 0;
    uint8_t got = 0;

    __cpuid(1, a, b, c, d);
    if (!(c & bit_RDRND))
        return 0;
    for (int i = 0; i < RANDOM_TRIES && !got; i++)
        __asm__ volatile("rdrand %0; setc %1" : "=r"(value), "=qm"(got)::"cc");
    return got ? value : 0;
}

/* By the local APIC's timer: a billion ticks a second in QEMU and in KVM. The processor's own counter has no known
 * rate. */
void sleep_ms(unsigned ms)
{
    *apic(APIC_TIMER) = APIC_MASKED;
    *apic(APIC_TIMER_DIVIDE) = DIVIDE_BY_1;
    for (; ms; ms--) {
        *apic(APIC_TIMER_START) = APIC_TICKS_PER_MS;
        while (*apic(APIC_TIMER_NOW))
            pause();
    }
}

void pause(void) { __asm__ volatile("pause"); }

/* Enabled and asleep in one: an interrupt cannot come in between. */
void wait_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }

static void set_gate(unsigned vector, const char *entry)
{
    uint64_t at = (uint64_t)entry;

    gates[vector] = (struct gate){(uint16_t)at, CODE_SEGMENT, INTERRUPT_GATE, (uint16_t)(at >> 16),
                                  (uint32_t)(at >> 32), 0};
}

static void load_gates(const struct gate *base, unsigned size)
{
    struct table table = {(uint16_t)(size - 1), (uint64_t)base};

    __asm__ volatile("lidt %0" ::"m"(table), "m"(gates));
}

/* A firmware may have left its timer ticking: nothing of the old interrupt controllers may come through. */
static void prepare_interrupts(void)
{
    for (unsigned vector = 0; vector < DEVICE_VECTOR; vector++)
        set_gate(vector, exception_entry);
    set_gate(DEVICE_VECTOR, interrupt_entry);
    set_gate(SPURIOUS, spurious_entry);
    load_gates(gates, sizeof gates);
    out8(PIC1_MASK, 0xff);
    out8(PIC2_MASK, 0xff);
    *apic(APIC_LINT0) = APIC_MASKED;
    *apic(APIC_SPURIOUS) = APIC_ENABLED | SPURIOUS;
}

/* 0: there is no such I/O APIC. */
static unsigned pins_of(volatile uint32_t *ioapic)
{
    uint32_t version;

    ioapic[0] = IOAPIC_VERSION;
    version = ioapic[4];
    return version && version != ~0u ? (version >> 16 & 0xff) + 1 : 0;
}

/* Pins are counted through all I/O APICs. */
int interrupt_enable(unsigned pin)
{
    volatile uint32_t *ioapic = (volatile uint32_t *)(uint64_t)FIRST_IOAPIC;

    if (pin >= pins_of(ioapic)) {
        pin -= pins_of(ioapic);
        ioapic = (volatile uint32_t *)(uint64_t)SECOND_IOAPIC;
    }
    if (pin >= pins_of(ioapic))
        return 0;
    ioapic[0] = IOAPIC_PINS + pin * 2 + 1;
    ioapic[4] = 0; /* to the first processor */
    ioapic[0] = IOAPIC_PINS + pin * 2;
    ioapic[4] = DEVICE_VECTOR; /* at its rising edge */
    return 1;
}

/* microvm with ACPI describes its devices in a program (AML), and nowhere else: its places are known all the same. */
static const struct transport *microvm_network(void)
{
    const struct transport *found = 0;

    for (unsigned slot = 0; slot < MICROVM_SLOTS && !found; slot++)
        found = mmio_network(MICROVM_DEVICES + slot * MICROVM_STRIDE, MICROVM_PINS + slot);
    return found;
}

const struct transport *find_network(void)
{
    const char *text = command_line;
    const struct transport *found = 0;
    struct place place;

    while (!found && next_place(&text, &place))
        found = mmio_network(place.base, place.interrupt);
    if (!found)
        found = pci_network();
    return found ? found : microvm_network();
}

/* Without the device that ends QEMU with a status, the machine is at least no longer there. */
void power_off(unsigned value)
{
    out32(DEBUG_EXIT, value);
    restart();
}

/* By the chipset; where there is none, by a fault that nobody handles. */
void restart(void)
{
    out8(RESET_CONTROL, RESET);
    load_gates(0, 1);
    __asm__ volatile("int3");
    halt();
}

void halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void on_exception(void);
void on_exception(void) { fail("exception"); }

_Noreturn void start(const struct start_info *info);
void start(const struct start_info *info)
{
    if (info->magic == START_MAGIC && info->command_line)
        command_line = (const char *)info->command_line;
    prepare_interrupts();
    unikernel(command_line);
}
