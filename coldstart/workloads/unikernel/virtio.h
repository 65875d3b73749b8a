/* virtio 1.2. The queues and the network device are the same everywhere (virtio_net.c); how its registers are reached
 * differs: virtio_mmio.c, virtio_pci.c. */
#ifndef COLDSTART_VIRTIO_H
#define COLDSTART_VIRTIO_H

#include <stdint.h>

enum { VIRTIO_NET = 1 };

struct transport {
    uint32_t (*status)(void);
    void (*set_status)(uint32_t status);
    uint64_t (*features)(void);
    void (*accept_features)(uint64_t features);
    uint8_t (*configuration)(unsigned at);
    /* 0: the device cannot. */
    int (*set_up_queue)(unsigned queue, unsigned size, const void *descriptors, const void *available,
                        const void *used);
    void (*notify)(unsigned queue);
    /* 0: there is none. */
    int (*enable_interrupt)(void);
    /* Before the queues are looked at, so that what comes afterwards interrupts anew. */
    void (*acknowledge_interrupt)(void);
};

/* The network device whose registers are there, or 0. */
const struct transport *mmio_network(uint64_t base, unsigned interrupt);

/* The first network device on the first bus, or 0. x86_64 only. */
const struct transport *pci_network(void);

/* Makes it work, and says its address; 0: it does not. */
int virtio_net_start(const struct transport *transport, uint8_t *mac);

/* Hands the frames that have come to `net_input`, then sleeps until there are more. */
void virtio_net_serve(void);

#endif
