/* Devicetree specification 0.4, chapter 5. Of a node first come its properties, then its children: so it is complete
 * where the next one begins. Addresses and sizes are taken for two cells each, interrupts for three, as the machines
 * with a GIC have them. */
#include "devicetree.h"

#include "bytes.h"

enum { MAGIC = 0xd00dfeed, STRUCTURE_AT = 8, STRINGS_AT = 12 };
enum { BEGIN_NODE = 1, END_NODE = 2, PROPERTY = 3, NOP = 4 };
enum { FIRST_SHARED_INTERRUPT = 32, ADDRESS_AND_SIZE = 16 };

struct node {
    const uint8_t *compatible;
    const uint8_t *addresses;
    const uint8_t *interrupts;
    const uint8_t *method;
};

static int is(const char *text, const char *other)
{
    while (*text && *text == *other) {
        text++;
        other++;
    }
    return *text == *other;
}

/* The first of a list of names is the most exact one; it is enough. */
static int is_a(const struct node *node, const char *what)
{
    return node->compatible && is((const char *)node->compatible, what);
}

static uint64_t address(const struct node *node, unsigned index)
{
    const uint8_t *at = node->addresses;

    return at ? (uint64_t)get32(at + index * ADDRESS_AND_SIZE) << 32 | get32(at + index * ADDRESS_AND_SIZE + 4) : 0;
}

static void add_interrupt_controller(struct machine *machine, const struct node *node, int version)
{
    machine->gic = version;
    machine->distributor = address(node, 0);
    machine->interface = address(node, 1);
}

static void add_place(struct machine *machine, const struct node *node)
{
    struct place *place = &machine->virtio[machine->places];

    if (machine->places == MAX_PLACES || !node->interrupts)
        return;
    place->base = address(node, 0);
    place->interrupt = get32(node->interrupts + 4) + FIRST_SHARED_INTERRUPT;
    machine->places++;
}

static void add(struct machine *machine, const struct node *node)
{
    if (is_a(node, "virtio,mmio"))
        add_place(machine, node);
    else if (is_a(node, "arm,pl011"))
        machine->console = address(node, 0);
    else if (is_a(node, "arm,cortex-a15-gic"))
        add_interrupt_controller(machine, node, 2);
    else if (is_a(node, "arm,gic-v3"))
        add_interrupt_controller(machine, node, 3);
    else if (node->method)
        machine->firmware_by_smc = is((const char *)node->method, "smc");
}

static void add_property(struct machine *machine, struct node *node, const char *name, const uint8_t *value)
{
    if (is(name, "compatible"))
        node->compatible = value;
    else if (is(name, "reg"))
        node->addresses = value;
    else if (is(name, "interrupts"))
        node->interrupts = value;
    else if (is(name, "method"))
        node->method = value;
    else if (is(name, "bootargs"))
        machine->command_line = (const char *)value;
}

/* Up to the next multiple of four. */
static const uint8_t *padded(const uint8_t *at, const uint8_t *from) { return from + ((at - from + 3) & ~3l); }

static const uint8_t *behind_text(const uint8_t *text)
{
    while (*text++)
        ;
    return text;
}

void read_devicetree(const void *tree, struct machine *machine)
{
    const uint8_t *begin = tree;
    struct node node = {0, 0, 0, 0};

    *machine = (struct machine){.command_line = ""};
    if (!begin || get32(begin) != MAGIC)
        return;
    for (const uint8_t *at = begin + get32(begin + STRUCTURE_AT);;) {
        uint32_t token = get32(at);

        at += 4;
        if (token == PROPERTY) {
            const char *name = (const char *)begin + get32(begin + STRINGS_AT) + get32(at + 4);

            add_property(machine, &node, name, at + 8);
            at = padded(at + 8 + get32(at), begin);
            continue;
        }
        add(machine, &node);
        node = (struct node){0, 0, 0, 0};
        if (token == BEGIN_NODE)
            at = padded(behind_text(at), begin);
        else if (token != END_NODE && token != NOP)
            return;
    }
}
