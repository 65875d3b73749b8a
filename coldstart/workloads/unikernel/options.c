#include "options.h"

enum { DEFAULT_PORT = 8080, MAX_PORT = 65535, MAX_CODE = 255, MAX_PREFIX = 32, MAX_NUMBER = 999999999 };

/* One copy for all callers: see http.c. */
#define SHARED __attribute__((noinline)) static

/* What follows the prefix, or 0 if the text begins otherwise. */
SHARED const char *after(const char *prefix, const char *text)
{
    while (*prefix)
        if (*prefix++ != *text++)
            return 0;
    return text;
}

static int is_end(char c) { return !c || c == ' '; }

SHARED const char *next_word(const char *text)
{
    while (!is_end(*text))
        text++;
    while (*text == ' ')
        text++;
    return text;
}

/* The value of the first word that begins with the key, or 0. */
static const char *value_of(const char *key, const char *text)
{
    for (; *text; text = next_word(text)) {
        const char *value = after(key, text);

        if (value)
            return value;
    }
    return 0;
}

/* Advances the text behind it; 0 if there is none, or if it is above the limit. */
SHARED int read_number(const char **text, unsigned limit, unsigned *number)
{
    const char *begin = *text;
    uint64_t value = 0;

    for (; **text >= '0' && **text <= '9' && value <= limit; (*text)++)
        value = value * 10 + (unsigned)(**text - '0');
    *number = (unsigned)value;
    return *text != begin && value <= limit;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static uint64_t read_hex(const char **text)
{
    uint64_t value = 0;

    for (; digit_of(**text) >= 0; (*text)++)
        value = value << 4 | (unsigned)digit_of(**text);
    return value;
}

/* The prefix is taken for what it is, and not needed: answers go to where the question came from. */
static int read_address(const char *text, uint32_t *address)
{
    unsigned part;

    for (int i = 0; i < 4; i++) {
        if (i && *text++ != '.')
            return 0;
        if (!read_number(&text, 255, &part))
            return 0;
        *address = *address << 8 | part;
    }
    if (*text == '/') {
        text++;
        if (!read_number(&text, MAX_PREFIX, &part))
            return 0;
    }
    return is_end(*text) && *address;
}

static int read_port(const char *text, uint16_t *port)
{
    unsigned number;

    if (!read_number(&text, MAX_PORT, &number) || !number || !is_end(*text))
        return 0;
    *port = (uint16_t)number;
    return 1;
}

static int read_fault(const char *text, struct options *options)
{
    static const char *const names[FAULTS] = {"none", "delay:", "deaf", "mute", "exit:", "stale", "panic", "reboot"};

    for (int fault = NO_FAULT; fault < FAULTS; fault++) {
        const char *rest = after(names[fault], text);
        unsigned limit = fault == EXIT ? MAX_CODE : MAX_NUMBER;
        int numbered = fault == DELAY || fault == EXIT;

        if (!rest || (!numbered && !is_end(*rest)))
            continue;
        options->fault = (enum fault)fault;
        return !numbered || (read_number(&rest, limit, &options->number) && is_end(*rest));
    }
    return 0;
}

static void read_nonce(const char *text, char *nonce)
{
    unsigned length = 0;

    for (; !is_end(*text) && length < HTTP_MAX_NONCE; text++)
        nonce[length++] = *text;
    nonce[length] = 0;
}

const char *read_options(const char *command_line, struct options *options)
{
    const char *address = value_of("COLDSTART_IP=", command_line);
    const char *port = value_of("COLDSTART_PORT=", command_line);
    const char *fault = value_of("COLDSTART_FAULT=", command_line);
    const char *nonce = value_of("COLDSTART_NONCE=", command_line);

    options->address = 0;
    options->port = DEFAULT_PORT;
    options->fault = NO_FAULT;
    read_nonce(nonce ? nonce : "none", options->nonce);
    if (!address || !read_address(address, &options->address))
        return address ? "bad-ip" : "no-ip";
    if (port && !read_port(port, &options->port))
        return "bad-port";
    return fault && !read_fault(fault, options) ? "bad-fault" : 0;
}

int next_place(const char **command_line, struct place *place)
{
    const char *at = value_of("virtio_mmio.device=", *command_line);

    while (at && !is_end(*at) && *at != '@')
        at++;
    if (!at || !(at = after("@0x", at)))
        return 0;
    place->base = read_hex(&at);
    if (*at++ != ':' || !read_number(&at, MAX_NUMBER, &place->interrupt))
        return 0;
    *command_line = at;
    return 1;
}
