/* Ethernet, ARP, IPv4 and ICMP echo: frames in, frames out. It touches no hardware, so that it can be tested anywhere.
 *
 * Nothing is ever sent of our own accord but the announcement at the start: every frame answers one that has just come,
 * and goes to where that came from. So there is no neighbour table, no gateway and no routing. */
#ifndef COLDSTART_NET_H
#define COLDSTART_NET_H

#include "http.h"

#include <stdint.h>

enum { MAC_LENGTH = 6, MAX_FRAME = 1514 };

struct net {
    uint8_t mac[MAC_LENGTH];
    uint32_t address;
    uint16_t port;
    int mute; /* takes connections, and never answers */
    struct http_self self;
};

extern struct net net;

/* To be called once `net` is filled in: tells the neighbours who we are. */
void net_announce(void);

/* A frame has come. */
void net_input(const uint8_t *frame, unsigned length);

/* What net and TCP want of others. */
uint8_t *link_buffer(void);        /* for MAX_FRAME bytes; there is always one */
void link_send(unsigned length);   /* what has been written into it */
uint32_t random_number(void);      /* that nobody can guess */
void quit_acknowledged(void);      /* GET /quit was answered, and the peer has the answer */

/* What TCP wants of IPv4: where its segment goes in the frame that is being made; send it, checksum included. */
uint8_t *ip_payload(void);
void ip_send_tcp(uint32_t destination, unsigned length);

#endif
