/* GET / is answered, GET /quit ends the wrap, everything else is refused by status. Bodies are never read: whoever
 * announces one gets an answer and the connection's end. */
#include "http.h"

#if defined(__x86_64__)
#define ARCH "x86_64"
#elif defined(__aarch64__)
#define ARCH "aarch64"
#else
#error "the handler names its architecture: add it here"
#endif

/* One copy for all callers. Where the processor is emulated every block of code costs some 10 us when it first runs, and
 * these decide how soon a unikernel gives its first answer. */
#define SHARED __attribute__((noinline)) static

struct answer {
    const char *status;
    const char *headers;
    const char *body;
    char length[3];          /* of the body, in digits */
    enum http_result result; /* at best: the request may want less */
};

/* Every body has 10 to 99 bytes. */
#define BODY(text) text, {'0' + (sizeof text - 1) / 10, '0' + (sizeof text - 1) % 10, 0}

static const struct answer OK = {"200 OK", "", BODY("Serverless Unikernels!\n"), HTTP_KEEP};
static const struct answer QUIT = {"200 OK", "", BODY("good bye!\n"), HTTP_QUIT};
static const struct answer NOT_FOUND = {"404 Not Found", "", BODY("not found\n"), HTTP_KEEP};
static const struct answer NOT_ALLOWED = {
    "405 Method Not Allowed", "Allow: GET\r\n", BODY("only GET here\n"), HTTP_CLOSE};
static const struct answer TOO_LARGE = {
    "431 Request Header Fields Too Large", "", BODY("request too large\n"), HTTP_CLOSE};

/* Bytes that are part of a request. */
struct text {
    const char *bytes;
    unsigned length;
};

static struct text rest_after(struct text text, unsigned count)
{
    return (struct text){text.bytes + count, text.length - count};
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c; }

SHARED int starts_with(struct text text, const char *prefix)
{
    unsigned i;

    for (i = 0; prefix[i]; i++)
        if (i >= text.length || text.bytes[i] != prefix[i])
            return 0;
    return 1;
}

/* word: in lower case; the text in any. */
SHARED int starts_with_word(struct text text, const char *word)
{
    unsigned i;

    for (i = 0; word[i]; i++)
        if (i >= text.length || lower(text.bytes[i]) != word[i])
            return 0;
    return 1;
}

/* With its LF; all there is if there is none. */
SHARED struct text first_line(struct text text)
{
    unsigned length = 0;

    while (length < text.length && text.bytes[length++] != '\n')
        ;
    return (struct text){text.bytes, length};
}

/* Ended by CRLF or, as people type it, by LF alone. */
static int is_empty(struct text line) { return starts_with(line, "\r\n") || starts_with(line, "\n"); }

static int is_whole(struct text line) { return line.length && line.bytes[line.length - 1] == '\n'; }

/* Empty lines before a request are left over from the one before (RFC 9112, 2.2). */
static unsigned blank_length(struct text text)
{
    struct text rest = text;

    while (is_empty(first_line(rest)))
        rest = rest_after(rest, first_line(rest).length);
    return text.length - rest.length;
}

/* Up to and with the empty line that ends the head; 0 while it is not there. */
static unsigned head_length(struct text text)
{
    struct text rest = text;

    while (is_whole(first_line(rest))) {
        struct text line = first_line(rest);

        rest = rest_after(rest, line.length);
        if (is_empty(line))
            return text.length - rest.length;
    }
    return 0;
}

/* The words of a list: `close, TE`. */
SHARED int names_word(struct text value, const char *word)
{
    for (; value.length; value = rest_after(value, 1))
        if (starts_with_word(value, word))
            return 1;
    return 0;
}

/* What the head says about the connection. */
struct wishes {
    int close;
    int keep;
    int body;
};

/* `Content-Length: 0` is no body; any other value is taken for one, it need not even be a number. */
static int is_zero(struct text value)
{
    while (value.length && (value.bytes[0] == ' ' || value.bytes[0] == '0'))
        value = rest_after(value, 1);
    return is_empty(value);
}

static void read_header(struct text line, struct wishes *wishes)
{
    if (starts_with_word(line, "connection:")) {
        wishes->close |= names_word(line, "close");
        wishes->keep |= names_word(line, "keep-alive");
    } else if (starts_with_word(line, "content-length:")) {
        wishes->body |= !is_zero(rest_after(line, sizeof "content-length:" - 1));
    } else if (starts_with_word(line, "transfer-encoding:")) {
        wishes->body = 1;
    }
}

/* Only HTTP/1.1 stays open unasked. */
static int is_kept(struct text head)
{
    struct text line = first_line(head);
    int persistent = names_word(line, " http/1.1\r") || names_word(line, " http/1.1\n");
    struct wishes wishes = {0, 0, 0};

    for (head = rest_after(head, line.length); head.length; head = rest_after(head, line.length)) {
        line = first_line(head);
        read_header(line, &wishes);
    }
    return (persistent || wishes.keep) && !wishes.close && !wishes.body;
}

static const struct answer *choose(struct text head)
{
    if (!starts_with(head, "GET "))
        return &NOT_ALLOWED;
    if (starts_with(head, "GET / ") || starts_with(head, "GET /?"))
        return &OK;
    if (starts_with(head, "GET /quit ") || starts_with(head, "GET /quit?"))
        return &QUIT;
    return &NOT_FOUND;
}

/* What does not fit is left out: a cut answer can be seen, a write past the end cannot. */
static void write_reply(const struct http_self *self, const struct answer *answer, int kept, struct http_reply *reply)
{
    const char *const parts[] = {
        "HTTP/1.1 ",
        answer->status,
        "\r\nContent-Type: text/plain\r\nContent-Length: ",
        answer->length,
        kept ? "\r\nConnection: keep-alive" : "\r\nConnection: close",
        "\r\nX-Coldstart-Nonce: ",
        self->nonce,
        "\r\nX-Coldstart-Kind: ",
        self->kind,
        "-" ARCH "\r\n",
        answer->headers,
        "\r\n",
        answer->body,
    };

    reply->length = 0;
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
        for (const char *text = parts[i]; *text && reply->length < HTTP_MAX_REPLY; text++)
            reply->bytes[reply->length++] = *text;
}

enum http_result http_answer(const struct http_self *self, const char *request, unsigned length,
                             struct http_reply *reply)
{
    struct text all = {request, length};
    unsigned blank = blank_length(all);
    struct text head = {request + blank, head_length(rest_after(all, blank))};
    const struct answer *answer;
    enum http_result result;

    if (!head.length && length < HTTP_MAX_REQUEST)
        return HTTP_INCOMPLETE;
    answer = head.length ? choose(head) : &TOO_LARGE;
    result = answer->result == HTTP_KEEP && !is_kept(head) ? HTTP_CLOSE : answer->result;
    write_reply(self, answer, result == HTTP_KEEP, reply);
    reply->consumed = head.length ? blank + head.length : length;
    return result;
}

void http_set_nonce(struct http_self *self, const char *nonce)
{
    unsigned length = 0;

    for (; *nonce && length < HTTP_MAX_NONCE; nonce++)
        if (*nonce >= ' ' && *nonce <= '~')
            self->nonce[length++] = *nonce;
    self->nonce[length] = 0;
}
