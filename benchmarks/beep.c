/* Sends one datagram, first thing, and ends: what an outside observer can see of a start. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = {inet_addr(OBSERVER)}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return sendto(fd, "beep", 4, 0, (struct sockaddr *)&to, sizeof to) == 4 ? 0 : 1;
}
