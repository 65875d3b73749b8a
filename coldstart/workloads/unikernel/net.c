#include "net.h"

#include "bytes.h"
#include "tcp.h"

enum { TYPE_AT = 12, ETHERNET_HEADER = 14, TYPE_IPV4 = 0x0800, TYPE_ARP = 0x0806, SHORTEST_FRAME = 60 };
enum { ARP_LENGTH = 28, ARP_REQUEST = 1, ARP_REPLY = 2 };
enum { IP_HEADER = 20, IP_VERSION = 4, DONT_FRAGMENT = 0x4000, FRAGMENT_BITS = 0x3fff, HOPS = 64 };
enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6 };
enum { ICMP_HEADER = 8, ICMP_ECHO_REPLY = 0, ICMP_ECHO = 8 };

struct net net;

static uint8_t peer_mac[MAC_LENGTH] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}; /* who sent the frame in hand */

/* One's complement sum of 16-bit words, not yet folded: 64 KiB of them and more fit. */
static uint32_t add_words(const uint8_t *bytes, unsigned length, uint32_t sum)
{
    for (; length > 1; bytes += 2, length -= 2)
        sum += get16(bytes);
    return length ? sum + ((uint32_t)*bytes << 8) : sum;
}

/* Of data that holds its own checksum: 0 if it is right. */
static uint32_t checksum(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

/* TCP's sum takes in the addresses, the protocol and the length. */
static uint32_t add_pseudo_header(uint32_t from, uint32_t to, unsigned length)
{
    return (from >> 16) + (from & 0xffff) + (to >> 16) + (to & 0xffff) + PROTOCOL_TCP + length;
}

static void ethernet_send(uint32_t type, unsigned length)
{
    uint8_t *frame = link_buffer();

    copy_bytes(frame, peer_mac, MAC_LENGTH);
    copy_bytes(frame + MAC_LENGTH, net.mac, MAC_LENGTH);
    put16(frame + TYPE_AT, type);
    for (length += ETHERNET_HEADER; length < SHORTEST_FRAME; length++)
        frame[length] = 0;
    link_send(length);
}

static void arp_send(uint32_t operation, uint32_t target)
{
    static const uint8_t ethernet_ipv4[] = {0, 1, 8, 0, MAC_LENGTH, 4};
    uint8_t *arp = link_buffer() + ETHERNET_HEADER;

    copy_bytes(arp, ethernet_ipv4, sizeof ethernet_ipv4);
    put16(arp + 6, operation);
    copy_bytes(arp + 8, net.mac, MAC_LENGTH);
    put32(arp + 14, net.address);
    copy_bytes(arp + 18, peer_mac, MAC_LENGTH);
    put32(arp + 24, target);
    ethernet_send(TYPE_ARP, ARP_LENGTH);
}

void net_announce(void) { arp_send(ARP_REQUEST, net.address); }

uint8_t *ip_payload(void) { return link_buffer() + ETHERNET_HEADER + IP_HEADER; }

static void ip_send(uint8_t protocol, uint32_t destination, unsigned length)
{
    uint8_t *ip = link_buffer() + ETHERNET_HEADER;

    put16(ip, (IP_VERSION << 4 | IP_HEADER / 4) << 8);
    put16(ip + 2, IP_HEADER + length);
    put16(ip + 4, 0); /* never in fragments: no identity is needed (RFC 6864) */
    put16(ip + 6, DONT_FRAGMENT);
    put16(ip + 8, HOPS << 8 | protocol);
    put16(ip + 10, 0);
    put32(ip + 12, net.address);
    put32(ip + 16, destination);
    put16(ip + 10, checksum(add_words(ip, IP_HEADER, 0)));
    ethernet_send(TYPE_IPV4, IP_HEADER + length);
}

void ip_send_tcp(uint32_t destination, unsigned length)
{
    uint8_t *segment = ip_payload();

    put16(segment + TCP_CHECKSUM_AT, 0);
    put16(segment + TCP_CHECKSUM_AT,
          checksum(add_words(segment, length, add_pseudo_header(net.address, destination, length))));
    ip_send(PROTOCOL_TCP, destination, length);
}

static void icmp_input(uint32_t peer, const uint8_t *request, unsigned length)
{
    uint8_t *reply = ip_payload();

    if (length < ICMP_HEADER || request[0] != ICMP_ECHO || checksum(add_words(request, length, 0)))
        return;
    copy_bytes(reply, request, length);
    reply[0] = ICMP_ECHO_REPLY;
    put16(reply + 2, 0);
    put16(reply + 2, checksum(add_words(reply, length, 0)));
    ip_send(PROTOCOL_ICMP, peer, length);
}

static void arp_input(const uint8_t *arp, unsigned length)
{
    if (length >= ARP_LENGTH && get16(arp + 6) == ARP_REQUEST && get32(arp + 24) == net.address)
        arp_send(ARP_REPLY, get32(arp + 14));
}

/* One that can be answered: neither nobody, nor ourselves, nor many. */
static int is_peer(uint32_t address) { return address >> 24 && address >> 28 < 14 && address != net.address; }

/* The whole header is there, and all the bytes it speaks of. */
static int is_whole(const uint8_t *ip, unsigned length)
{
    unsigned header = (ip[0] & 15u) * 4;
    unsigned total = get16(ip + 2);

    return header >= IP_HEADER && total >= header && total <= length && total <= MAX_FRAME - ETHERNET_HEADER;
}

static void ip_input(const uint8_t *ip, unsigned length)
{
    unsigned header;
    uint32_t peer;

    if (length < IP_HEADER || ip[0] >> 4 != IP_VERSION || !is_whole(ip, length))
        return;
    header = (ip[0] & 15u) * 4;
    peer = get32(ip + 12);
    if (checksum(add_words(ip, header, 0)) || get16(ip + 6) & FRAGMENT_BITS)
        return;
    if (get32(ip + 16) != net.address || !is_peer(peer))
        return;
    length = get16(ip + 2) - header; /* short frames are padded */
    if (ip[9] == PROTOCOL_ICMP)
        icmp_input(peer, ip + header, length);
    if (ip[9] == PROTOCOL_TCP && length >= TCP_HEADER &&
        !checksum(add_words(ip + header, length, add_pseudo_header(peer, net.address, length))))
        tcp_input(peer, ip + header, length);
}

void net_input(const uint8_t *frame, unsigned length)
{
    if (length < ETHERNET_HEADER || frame[MAC_LENGTH] & 1)
        return; /* from a group: not even a bridge answers that */
    copy_bytes(peer_mac, frame + MAC_LENGTH, MAC_LENGTH);
    if (get16(frame + TYPE_AT) == TYPE_ARP)
        arp_input(frame + ETHERNET_HEADER, length - ETHERNET_HEADER);
    if (get16(frame + TYPE_AT) == TYPE_IPV4)
        ip_input(frame + ETHERNET_HEADER, length - ETHERNET_HEADER);
}
