/* The unikernel's network code as a library of this machine: frames are passed by calls, and all it knows can be
 * forgotten. */
#include "../../../../coldstart/workloads/unikernel/tcp.c"

#include "../../../../coldstart/workloads/unikernel/devicetree.h"

enum { MAX_SENT = 16 };

static uint8_t *buffer; /* the caller's: what is written behind its end is seen */
static uint8_t sent[MAX_SENT][MAX_FRAME];
static unsigned lengths[MAX_SENT];
static unsigned count;
static uint32_t random;
static int quit;

uint8_t *link_buffer(void) { return buffer; }

void link_send(unsigned length)
{
    if (count == MAX_SENT || length > MAX_FRAME)
        __builtin_trap();
    copy_bytes(sent[count], buffer, length);
    lengths[count++] = length;
}

uint32_t random_number(void) { return random; }

void quit_acknowledged(void) { quit = 1; }

void native_start(uint8_t *frame, const uint8_t *mac, uint32_t address, int mute, uint32_t sequence)
{
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        connections[i].state = FREE;
    segments = 0;
    quit = 0;
    count = 0;
    buffer = frame;
    random = sequence;
    copy_bytes(net.mac, mac, MAC_LENGTH);
    net.address = address;
    net.port = 8080;
    net.mute = mute;
    net.self.kind = "unikernel";
    http_set_nonce(&net.self, "n1");
}

/* How many frames are sent in answer. */
unsigned native_input(const uint8_t *frame, unsigned length)
{
    count = 0;
    net_input(frame, length);
    return count;
}

unsigned native_announce(void)
{
    count = 0;
    net_announce();
    return count;
}

const uint8_t *native_sent(unsigned index, unsigned *length)
{
    *length = lengths[index];
    return sent[index];
}

int native_quit(void) { return quit; }

/* How many connections are not free. */
unsigned native_connections(void)
{
    unsigned used = 0;

    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        used += connections[i].state != FREE;
    return used;
}
