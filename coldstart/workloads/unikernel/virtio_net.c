/* virtio 1.2, 2.7 (split queues) and 5.1 (the network device): one queue each way, no offloads. Frames are found by
 * looking at the queue; interrupts only end the sleep, so that a machine without them works, too, but never rests. */
#include "bytes.h"
#include "net.h"
#include "platform.h"
#include "virtio.h"

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, RESET = 0 };
enum { CAN_MAC = 5, CAN_VERSION_1 = 32 }; /* bits */
enum { DEVICE_WRITES = 2, NO_INTERRUPT = 1, NO_NOTIFY = 1 };
enum { RECEIVE, TRANSMIT };
enum { SIZE = 32, BUFFER = 2048, HEADER = 12 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct available {
    uint16_t flags;
    volatile uint16_t index;
    volatile uint16_t ring[SIZE];
};

struct used {
    volatile uint16_t flags;
    volatile uint16_t index;
    volatile struct {
        uint32_t id;
        uint32_t length;
    } ring[SIZE];
};

/* seen: how many entries of `used` have been dealt with. */
struct queue {
    struct descriptor descriptors[SIZE] __attribute__((aligned(16)));
    struct available available __attribute__((aligned(2)));
    struct used used __attribute__((aligned(4)));
    uint16_t number;
    uint16_t seen;
    uint8_t (*buffers)[BUFFER];
};

static const struct transport *device;
static struct queue receive, transmit;
static UNINITIALISED uint8_t received[SIZE][BUFFER];
static UNINITIALISED uint8_t sent[SIZE][BUFFER];
static uint16_t idle[SIZE]; /* transmit buffers that are not with the device, */
static unsigned idles;      /* so many, */
static uint16_t current;    /* and the one that is being written */
static int has_interrupts;

/* All that has been written is seen before what is read from now on. */
static void barrier(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static void give(struct queue *queue, uint16_t id)
{
    queue->available.ring[queue->available.index % SIZE] = id;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    queue->available.index++;
}

static void notify(struct queue *queue)
{
    barrier();
    if (!(queue->used.flags & NO_NOTIFY))
        device->notify(queue->number);
}

/* The next buffer the device is done with; 0: none. */
static int take(struct queue *queue, uint16_t *id, unsigned *length)
{
    unsigned slot = queue->seen % SIZE;

    if (queue->used.index == queue->seen)
        return 0;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    *id = (uint16_t)(queue->used.ring[slot].id % SIZE);
    *length = queue->used.ring[slot].length;
    queue->seen++;
    return 1;
}

uint8_t *link_buffer(void) { return transmit.buffers[current] + HEADER; }

void link_send(unsigned length)
{
    uint16_t id;
    unsigned ignored;

    for (unsigned i = 0; i < HEADER; i++)
        transmit.buffers[current][i] = 0; /* no offloads */
    transmit.descriptors[current].length = HEADER + length;
    give(&transmit, current);
    notify(&transmit);
    while (take(&transmit, &id, &ignored))
        idle[idles++] = id; /* in whatever order they come back */
    while (!idles) {
        pause();
        if (take(&transmit, &id, &ignored))
            idle[idles++] = id;
    }
    current = idle[--idles];
}

static int set_up(struct queue *queue, uint16_t number, uint8_t (*buffers)[BUFFER], uint16_t flags)
{
    queue->number = number;
    queue->buffers = buffers;
    for (unsigned id = 0; id < SIZE; id++)
        queue->descriptors[id] = (struct descriptor){(uint64_t)queue->buffers[id], BUFFER, flags, 0};
    queue->available.flags = NO_INTERRUPT;
    barrier();
    return device->set_up_queue(number, SIZE, queue->descriptors, &queue->available, &queue->used);
}

static int agree(void)
{
    uint64_t wanted = 1ull << CAN_MAC | 1ull << CAN_VERSION_1;

    device->set_status(RESET);
    while (device->status() != RESET)
        pause();
    device->set_status(ACKNOWLEDGE);
    device->set_status(ACKNOWLEDGE | DRIVER);
    if ((device->features() & wanted) != wanted)
        return 0;
    device->accept_features(wanted);
    device->set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return device->status() & FEATURES_OK ? 1 : 0;
}

int virtio_net_start(const struct transport *transport, uint8_t *mac)
{
    device = transport;
    if (!agree() || !set_up(&receive, RECEIVE, received, DEVICE_WRITES) ||
        !set_up(&transmit, TRANSMIT, sent, 0))
        return 0;
    for (unsigned i = 0; i < MAC_LENGTH; i++)
        mac[i] = device->configuration(i);
    has_interrupts = device->enable_interrupt();
    receive.available.flags = has_interrupts ? 0 : NO_INTERRUPT;
    for (uint16_t id = 1; id < SIZE; id++)
        idle[idles++] = id;
    for (uint16_t id = 0; id < SIZE; id++)
        give(&receive, id);
    device->set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    notify(&receive);
    return 1;
}

static void rest(void)
{
    if (!has_interrupts) {
        pause();
        return;
    }
    device->acknowledge_interrupt();
    barrier();
    if (receive.used.index == receive.seen)
        wait_for_interrupt();
}

void virtio_net_serve(void)
{
    uint16_t id;
    unsigned length;

    while (take(&receive, &id, &length)) {
        if (length > HEADER && length <= BUFFER)
            net_input(receive.buffers[id] + HEADER, length - HEADER);
        give(&receive, id);
        notify(&receive);
    }
    rest();
}
