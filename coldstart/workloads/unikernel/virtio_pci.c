/* virtio 1.2, 4.1: the first network device on the first bus, by the modern registers only. The firmware has placed
 * them; what it placed beyond 4 GiB cannot be reached. Interrupts by MSI-X: a message needs no line, and no
 * acknowledgement. */
#include "ports.h"
#include "virtio.h"

enum { ADDRESS_PORT = 0xcf8, DATA_PORT = 0xcfc, DEVICES = 32 };
enum { ID = 0x00, COMMAND = 0x04, BARS = 0x10, FIRST_CAPABILITY = 0x34 };
enum { USE_MEMORY = 2, BUS_MASTER = 4, NO_LINE = 0x400, BAR_IS_PORT = 1, BAR_IS_64_BIT = 4 };
enum { VIRTIO_VENDOR = 0x1af4, MODERN_NET = 0x1041, TRANSITIONAL_NET = 0x1000 };
enum { VENDOR_CAPABILITY = 0x09, MSIX_CAPABILITY = 0x11, MAX_CAPABILITIES = 48 };
enum { COMMON = 1, NOTIFY = 2, DEVICE = 4, KINDS = 5 };
enum { MSIX_ENABLE = 1 << 31, MSIX_MASK_ALL = 1 << 30, MESSAGE_TO_FIRST_PROCESSOR = 0xfee00000, NO_VECTOR = 0xffff };
enum {
    DEVICE_FEATURES_HALF = 0x00,
    DEVICE_FEATURES = 0x04,
    DRIVER_FEATURES_HALF = 0x08,
    DRIVER_FEATURES = 0x0c,
    STATUS = 0x14,
    QUEUE = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_AT = 0x1e,
    QUEUE_DESCRIPTORS = 0x20,
    QUEUE_AVAILABLE = 0x28,
    QUEUE_USED = 0x30,
};

static uint32_t slot;          /* of the device, as the address port wants it */
static uint64_t parts[KINDS];  /* where its registers are, by kind */
static uint32_t notify_stride;
static uint64_t notify_at[2];
static int has_messages;

static uint32_t pci_get(unsigned at)
{
    out32(ADDRESS_PORT, slot | (at & 0xfc));
    return in32(DATA_PORT);
}

static void pci_set(unsigned at, uint32_t value)
{
    out32(ADDRESS_PORT, slot | (at & 0xfc));
    out32(DATA_PORT, value);
}

static volatile uint8_t *reg8(uint64_t at) { return (volatile uint8_t *)at; }

static volatile uint16_t *reg16(uint64_t at) { return (volatile uint16_t *)at; }

static volatile uint32_t *reg32(uint64_t at) { return (volatile uint32_t *)at; }

static void set_address(uint64_t at, const void *address)
{
    *reg32(at) = (uint32_t)(uint64_t)address;
    *reg32(at + 4) = (uint32_t)((uint64_t)address >> 32);
}

static uint32_t status(void) { return *reg8(parts[COMMON] + STATUS); }

static void set_status(uint32_t value) { *reg8(parts[COMMON] + STATUS) = (uint8_t)value; }

static uint64_t features(void)
{
    uint64_t low;

    *reg32(parts[COMMON] + DEVICE_FEATURES_HALF) = 0;
    low = *reg32(parts[COMMON] + DEVICE_FEATURES);
    *reg32(parts[COMMON] + DEVICE_FEATURES_HALF) = 1;
    return (uint64_t)*reg32(parts[COMMON] + DEVICE_FEATURES) << 32 | low;
}

static void accept_features(uint64_t value)
{
    *reg32(parts[COMMON] + DRIVER_FEATURES_HALF) = 0;
    *reg32(parts[COMMON] + DRIVER_FEATURES) = (uint32_t)value;
    *reg32(parts[COMMON] + DRIVER_FEATURES_HALF) = 1;
    *reg32(parts[COMMON] + DRIVER_FEATURES) = (uint32_t)(value >> 32);
}

static uint8_t configuration(unsigned at) { return *reg8(parts[DEVICE] + at); }

/* Only the first queue, the one for receiving, interrupts. */
static int set_up_queue(unsigned queue, unsigned size, const void *descriptors, const void *available, const void *used)
{
    uint64_t common = parts[COMMON];

    *reg16(common + QUEUE) = (uint16_t)queue;
    if (*reg16(common + QUEUE_ENABLE) || *reg16(common + QUEUE_SIZE) < size)
        return 0;
    *reg16(common + QUEUE_SIZE) = (uint16_t)size;
    *reg16(common + QUEUE_VECTOR) = has_messages && queue == 0 ? 0 : NO_VECTOR;
    set_address(common + QUEUE_DESCRIPTORS, descriptors);
    set_address(common + QUEUE_AVAILABLE, available);
    set_address(common + QUEUE_USED, used);
    notify_at[queue] = parts[NOTIFY] + *reg16(common + QUEUE_NOTIFY_AT) * (uint64_t)notify_stride;
    *reg16(common + QUEUE_ENABLE) = 1;
    return 1;
}

static void notify(unsigned queue) { *reg16(notify_at[queue]) = (uint16_t)queue; }

static int enable_interrupt(void) { return has_messages; }

static void acknowledge_interrupt(void) {}

static const struct transport transport = {
    status,       set_status, features,         accept_features,       configuration,
    set_up_queue, notify,     enable_interrupt, acknowledge_interrupt,
};

/* 0: it is a port, or not placed where we can reach it. */
static uint64_t bar_address(unsigned bar)
{
    uint32_t low = pci_get(BARS + bar * 4);

    if (low & BAR_IS_PORT || (low & BAR_IS_64_BIT && pci_get(BARS + bar * 4 + 4)))
        return 0;
    return low & ~15u;
}

/* The first one of a kind is the one the device likes best. */
static void add_part(unsigned at)
{
    unsigned kind = pci_get(at) >> 24;
    uint64_t base = bar_address(pci_get(at + 4) & 7);

    if (kind >= KINDS || parts[kind] || !base)
        return;
    parts[kind] = base + pci_get(at + 8);
    if (kind == NOTIFY)
        notify_stride = pci_get(at + 16);
}

/* The table's first entry is our vector. */
static void enable_messages(unsigned at)
{
    uint32_t table = pci_get(at + 4);
    uint64_t base = bar_address(table & 7);
    volatile uint32_t *entry = reg32(base + (table & ~7u));

    if (!base)
        return;
    pci_set(at, pci_get(at) | (uint32_t)MSIX_ENABLE);
    entry[0] = MESSAGE_TO_FIRST_PROCESSOR;
    entry[1] = 0;
    entry[2] = DEVICE_VECTOR;
    entry[3] = 0;
    pci_set(at, pci_get(at) & ~(uint32_t)MSIX_MASK_ALL);
    has_messages = 1;
}

static const struct transport *examine(void)
{
    unsigned at = pci_get(FIRST_CAPABILITY) & 0xfc;

    pci_set(COMMAND, (pci_get(COMMAND) & 0xffff) | USE_MEMORY | BUS_MASTER | NO_LINE);
    for (int i = 0; at && i < MAX_CAPABILITIES; i++) {
        uint32_t capability = pci_get(at);

        if ((capability & 0xff) == VENDOR_CAPABILITY)
            add_part(at);
        if ((capability & 0xff) == MSIX_CAPABILITY)
            enable_messages(at);
        at = capability >> 8 & 0xfc;
    }
    return parts[COMMON] && parts[NOTIFY] && parts[DEVICE] ? &transport : 0;
}

const struct transport *pci_network(void)
{
    for (uint32_t device = 0; device < DEVICES; device++) {
        uint32_t id;

        slot = 1u << 31 | device << 11;
        id = pci_get(ID);
        if ((id & 0xffff) == VIRTIO_VENDOR && (id >> 16 == MODERN_NET || id >> 16 == TRANSITIONAL_NET))
            return examine();
    }
    return 0;
}
