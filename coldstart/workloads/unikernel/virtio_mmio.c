/* virtio 1.2, 4.2: registers in memory, version 2. */
#include "platform.h"
#include "virtio.h"

enum {
    MAGIC = 0x00,
    VERSION = 0x04,
    DEVICE = 0x08,
    DEVICE_FEATURES = 0x10,
    DEVICE_FEATURES_HALF = 0x14,
    DRIVER_FEATURES = 0x20,
    DRIVER_FEATURES_HALF = 0x24,
    QUEUE = 0x30,
    QUEUE_SIZE_MAX = 0x34,
    QUEUE_SIZE = 0x38,
    QUEUE_READY = 0x44,
    QUEUE_NOTIFY = 0x50,
    INTERRUPT_STATUS = 0x60,
    INTERRUPT_ACKNOWLEDGE = 0x64,
    STATUS = 0x70,
    QUEUE_DESCRIPTORS = 0x80,
    QUEUE_AVAILABLE = 0x90,
    QUEUE_USED = 0xa0,
    CONFIGURATION = 0x100,
};
enum { MAGIC_VALUE = 0x74726976, MODERN = 2 };

static uint64_t base;
static unsigned line;

static uint32_t get(unsigned at) { return *(volatile uint32_t *)(base + at); }

static void set(unsigned at, uint32_t value) { *(volatile uint32_t *)(base + at) = value; }

static void set_address(unsigned at, const void *address)
{
    set(at, (uint32_t)(uint64_t)address);
    set(at + 4, (uint32_t)((uint64_t)address >> 32));
}

static uint32_t status(void) { return get(STATUS); }

static void set_status(uint32_t value) { set(STATUS, value); }

static uint64_t features(void)
{
    uint64_t low;

    set(DEVICE_FEATURES_HALF, 0);
    low = get(DEVICE_FEATURES);
    set(DEVICE_FEATURES_HALF, 1);
    return (uint64_t)get(DEVICE_FEATURES) << 32 | low;
}

static void accept_features(uint64_t value)
{
    set(DRIVER_FEATURES_HALF, 0);
    set(DRIVER_FEATURES, (uint32_t)value);
    set(DRIVER_FEATURES_HALF, 1);
    set(DRIVER_FEATURES, (uint32_t)(value >> 32));
}

static uint8_t configuration(unsigned at) { return *(volatile uint8_t *)(base + CONFIGURATION + at); }

static int set_up_queue(unsigned queue, unsigned size, const void *descriptors, const void *available, const void *used)
{
    set(QUEUE, queue);
    if (get(QUEUE_READY) || get(QUEUE_SIZE_MAX) < size)
        return 0;
    set(QUEUE_SIZE, size);
    set_address(QUEUE_DESCRIPTORS, descriptors);
    set_address(QUEUE_AVAILABLE, available);
    set_address(QUEUE_USED, used);
    set(QUEUE_READY, 1);
    return 1;
}

static void notify(unsigned queue) { set(QUEUE_NOTIFY, queue); }

static int enable_interrupt(void) { return interrupt_enable(line); }

static void acknowledge_interrupt(void) { set(INTERRUPT_ACKNOWLEDGE, get(INTERRUPT_STATUS)); }

static const struct transport transport = {
    status,       set_status, features,         accept_features,       configuration,
    set_up_queue, notify,     enable_interrupt, acknowledge_interrupt,
};

const struct transport *mmio_network(uint64_t where, unsigned interrupt)
{
    base = where;
    line = interrupt;
    return get(MAGIC) == MAGIC_VALUE && get(VERSION) == MODERN && get(DEVICE) == VIRTIO_NET ? &transport : 0;
}
