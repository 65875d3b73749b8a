/* TCP without timers: nothing is repeated because time has passed, only because the peer has repeated something.
 *
 * That is enough as long as this holds: whatever of ours the peer may have missed, something of its own is then without
 * acknowledgement, and the peer repeats that until it has one. So
 *
 *  - the end of a request is acknowledged by the answer to it, never before and never by anything else: as long as an
 *    answer is outstanding, every segment of that connection is the answer (`speak` knows no other);
 *  - at most one answer is outstanding. What comes meanwhile is held, and acknowledged with its own answer;
 *  - an answer is one segment, its FIN included, and is sent only when the peer's window takes it whole;
 *  - a SYN-ACK is outstanding like an answer, to a SYN; a FIN of ours alone is one to the peer's FIN.
 *
 * What needs no answer (the beginning of a request, a FIN after ours) is acknowledged at once. */
#include "tcp.h"

#include "bytes.h"
#include "net.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { OPTION_MSS = 2, MSS_LENGTH = 4, MSS = 1460 };
enum { WINDOW = HTTP_MAX_REQUEST, MAX_CONNECTIONS = 64 };

struct segment {
    uint32_t peer;
    uint32_t peer_port;
    uint32_t port;
    uint32_t sequence;
    uint32_t acknowledged;
    unsigned flags;
    unsigned window;
    const uint8_t *data;
    unsigned length;
};

/* What is big, and only touched when there is something to say. */
struct exchange {
    struct http_reply reply;
    char request[HTTP_MAX_REQUEST];
};

/* The bytes of `request` begin with the sequence number `first`; up to `next` they are acknowledged. `ours` is the
 * first number of ours that the peer has not acknowledged, `outstanding` how many of them we have sent: the reply and,
 * if `closed`, our FIN; or a SYN. */
struct connection {
    enum { FREE, OPENING, OPEN } state;
    int closed;      /* our FIN is sent, or outstanding */
    int peer_closed; /* the peer's FIN is here */
    int discarding;  /* what comes is forgotten */
    int quitting;
    uint32_t peer;
    uint32_t peer_port;
    uint32_t heard; /* when, counted in segments */
    unsigned window;
    uint32_t first;
    uint32_t next;
    uint32_t ours;
    unsigned outstanding;
    unsigned held;
    struct exchange *exchange;
};

static struct connection connections[MAX_CONNECTIONS];
static UNINITIALISED struct exchange exchanges[MAX_CONNECTIONS];
static uint32_t segments;

/* Up to here everything has come. */
static uint32_t end_of(const struct connection *connection)
{
    return connection->first + connection->held + (connection->peer_closed ? 1 : 0);
}

/* Up to here we take something; it never moves back. */
static uint32_t limit_of(const struct connection *connection)
{
    return (connection->discarding ? connection->next : connection->first) + WINDOW;
}

/* How many numbers it takes. */
static unsigned extent_of(const struct segment *segment)
{
    return segment->length + (segment->flags & SYN ? 1 : 0) + (segment->flags & FIN ? 1 : 0);
}

/* The peer has all we sent, and we all it sent. */
static int is_done(const struct connection *connection)
{
    return connection->closed && connection->peer_closed && !connection->outstanding;
}

/* --- what we send --- */

/* Turns the segment in hand into its answer's header. */
static uint8_t *begin(const struct segment *to, uint32_t sequence, uint32_t acknowledge, unsigned flags)
{
    uint8_t *header = ip_payload();

    put16(header, to->port);
    put16(header + 2, to->peer_port);
    put32(header + 4, sequence);
    put32(header + 8, acknowledge);
    put16(header + 12, TCP_HEADER / 4 << 12 | flags);
    put16(header + 14, 0);
    put16(header + 18, 0);
    return header;
}

static void speak_syn(const struct segment *to, const struct connection *connection)
{
    uint8_t *header = begin(to, connection->ours, connection->next, SYN | ACK);

    put16(header + 12, (TCP_HEADER + MSS_LENGTH) / 4 << 12 | SYN | ACK);
    put16(header + 14, WINDOW);
    put16(header + TCP_HEADER, OPTION_MSS << 8 | MSS_LENGTH);
    put16(header + TCP_HEADER + 2, MSS);
    ip_send_tcp(connection->peer, TCP_HEADER + MSS_LENGTH);
}

/* All that is outstanding; if nothing is, a mere acknowledgement. */
static void speak(const struct segment *to, const struct connection *connection)
{
    unsigned fin = connection->closed && connection->outstanding;
    unsigned length = connection->outstanding - fin;
    uint8_t *header;

    if (connection->state == OPENING) {
        speak_syn(to, connection);
        return;
    }
    header = begin(to, connection->ours, connection->next, ACK | (length ? PSH : 0u) | (fin ? FIN : 0u));
    put16(header + 14, limit_of(connection) - connection->next);
    copy_bytes(header + TCP_HEADER, connection->exchange->reply.bytes, length);
    ip_send_tcp(connection->peer, TCP_HEADER + length);
}

/* There is no such connection (RFC 9293, 3.10.7.1). */
static void refuse(const struct segment *segment)
{
    if (segment->flags & RST)
        return;
    if (segment->flags & ACK)
        begin(segment, segment->acknowledged, 0, RST);
    else
        begin(segment, 0, segment->sequence + extent_of(segment), RST | ACK);
    ip_send_tcp(segment->peer, TCP_HEADER);
}

/* --- the table --- */

static struct connection *find(const struct segment *segment)
{
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++) {
        struct connection *connection = &connections[i];

        if (connection->state != FREE && connection->peer == segment->peer &&
            connection->peer_port == segment->peer_port)
            return connection;
    }
    return 0;
}

/* The higher, the sooner it must go: free, done, only begun, longest silent. */
static uint64_t rank(const struct connection *connection)
{
    uint64_t silent = segments - connection->heard;

    if (connection->state == FREE)
        return 3ull << 32;
    if (is_done(connection))
        return 2ull << 32 | silent;
    return (connection->state == OPENING ? 1ull << 32 : 0) | silent;
}

static struct connection *make_room(void)
{
    struct connection *best = connections;

    for (unsigned i = 1; i < MAX_CONNECTIONS && best->state != FREE; i++)
        if (rank(&connections[i]) > rank(best))
            best = &connections[i];
    return best;
}

static void open(struct connection *connection, const struct segment *segment)
{
    connection->state = OPENING;
    connection->closed = connection->peer_closed = connection->quitting = 0;
    connection->discarding = net.mute;
    connection->peer = segment->peer;
    connection->peer_port = segment->peer_port;
    connection->heard = segments;
    connection->window = segment->window;
    connection->first = connection->next = segment->sequence + 1;
    connection->ours = random_number();
    connection->outstanding = 1;
    connection->held = 0;
    connection->exchange = &exchanges[connection - connections];
    speak(segment, connection);
}

/* --- what we hear --- */

/* Repeated, it gets our answer again. If it is another one, the peer has forgotten us: it will say so by a reset. */
static void on_syn(struct connection *connection, const struct segment *segment)
{
    if (segment->flags == SYN && is_done(connection))
        open(connection, segment);
    else
        speak(segment, connection);
}

/* Exactly where we are, else anybody could guess it; one that is near is asked about (RFC 5961). */
static void on_reset(struct connection *connection, const struct segment *segment)
{
    if (segment->sequence == connection->next || segment->sequence == end_of(connection))
        connection->state = FREE;
    else if (segment->sequence - connection->next < WINDOW)
        speak(segment, connection);
}

/* 0: it acknowledges what was never sent. */
static int on_acknowledgement(struct connection *connection, const struct segment *segment)
{
    uint32_t count = segment->acknowledged - connection->ours;

    if ((int32_t)count < 0)
        return connection->state == OPEN; /* an old one: what it brings may still be new */
    if (count > connection->outstanding)
        return 0;
    connection->window = segment->window;
    if (count < connection->outstanding)
        return connection->state == OPEN;
    connection->state = OPEN;
    connection->ours += count;
    connection->outstanding = 0;
    if (connection->closed && connection->quitting)
        quit_acknowledged();
    return 1;
}

/* What of it is new and in order, as far as there is room. */
static void take(struct connection *connection, const struct segment *segment)
{
    uint32_t end = end_of(connection);
    uint32_t known = end - segment->sequence;
    unsigned room = limit_of(connection) - end;
    unsigned length;

    if (connection->peer_closed || known > segment->length)
        return; /* a gap before it, or nothing new */
    length = segment->length - known;
    if (length <= room && segment->flags & FIN)
        connection->peer_closed = 1;
    length = length < room ? length : room;
    if (connection->discarding) {
        connection->first += length;
        return;
    }
    copy_bytes(connection->exchange->request + connection->held, segment->data + known, length);
    connection->held += length;
}

static void forget_the_rest(struct connection *connection)
{
    connection->first += connection->held;
    connection->held = 0;
    connection->discarding = 1;
}

static void consume(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;
    unsigned count = exchange->reply.consumed;

    connection->first += count;
    connection->held -= count;
    copy_bytes(exchange->request, exchange->request + count, connection->held);
}

/* Our FIN goes with what is outstanding, and acknowledges all there is. */
static void close(struct connection *connection)
{
    forget_the_rest(connection);
    connection->closed = 1;
    connection->outstanding++;
    connection->next = end_of(connection);
}

static void answer(struct connection *connection, enum http_result result)
{
    consume(connection);
    connection->outstanding = connection->exchange->reply.length;
    connection->quitting = result == HTTP_QUIT;
    connection->next = connection->first;
    if (result != HTTP_KEEP || (connection->peer_closed && !connection->held))
        close(connection);
}

/* What can be done with what is held. */
static void proceed(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;
    enum http_result result = HTTP_INCOMPLETE;

    if (connection->outstanding)
        return;
    if (!connection->discarding)
        result = http_answer(&net.self, exchange->request, connection->held, &exchange->reply);
    if (result != HTTP_INCOMPLETE) {
        if (connection->window >= exchange->reply.length)
            answer(connection, result);
        return;
    }
    connection->next = end_of(connection);
    if (connection->peer_closed && !connection->closed)
        close(connection);
}

/* Whether the peer waits for a word: it has sent something, or seems to have missed something, or there is news. While
 * an answer is outstanding, more that is new can wait for the end of that. */
static void on_segment(struct connection *connection, const struct segment *segment)
{
    uint32_t end = end_of(connection);
    uint32_t next = connection->next;
    int waited;

    if (!on_acknowledgement(connection, segment)) {
        connection->state == OPENING ? refuse(segment) : speak(segment, connection);
        return;
    }
    waited = connection->outstanding != 0;
    take(connection, segment);
    proceed(connection);
    if (waited ? extent_of(segment) && end == end_of(connection)
               : extent_of(segment) || segment->sequence != end || connection->next != next || connection->outstanding)
        speak(segment, connection);
}

/* 0: it is not one. */
static int parse(uint32_t peer, const uint8_t *bytes, unsigned length, struct segment *segment)
{
    unsigned header = (unsigned)(bytes[12] >> 4) * 4;

    if (header < TCP_HEADER || header > length)
        return 0;
    segment->peer = peer;
    segment->peer_port = get16(bytes);
    segment->port = get16(bytes + 2);
    segment->sequence = get32(bytes + 4);
    segment->acknowledged = get32(bytes + 8);
    segment->flags = bytes[13] & (FIN | SYN | RST | ACK);
    segment->window = get16(bytes + 14);
    segment->data = bytes + header;
    segment->length = length - header;
    return 1;
}

static void on_known(struct connection *connection, const struct segment *segment)
{
    connection->heard = segments;
    if (segment->flags & RST)
        on_reset(connection, segment);
    else if (segment->flags & SYN)
        on_syn(connection, segment);
    else if (segment->flags & ACK)
        on_segment(connection, segment);
}

void tcp_input(uint32_t peer, const uint8_t *bytes, unsigned length)
{
    struct segment segment;
    struct connection *connection;

    if (!parse(peer, bytes, length, &segment))
        return;
    segments++;
    connection = segment.port == net.port ? find(&segment) : 0;
    if (connection)
        on_known(connection, &segment);
    else if (segment.flags == SYN && segment.port == net.port)
        open(make_room(), &segment);
    else
        refuse(&segment);
}
