#!/bin/sh
# Process 1 of a guest: what a service manager would do, as far as a node needs it.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# shellcheck source=/dev/null
. /etc/coldstart-lab # address, engine
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts -o mode=620,gid=5,ptmxmode=666
mount -t tmpfs shm /dev/shm -o mode=1777
mount -t tmpfs run /run -o mode=755
mount -t tmpfs tmp /tmp -o mode=1777
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /run/sshd /run/lock
chmod 1777 /run/lock
chmod 700 /root /root/.ssh
hostname -F /etc/hostname
# Others are loaded when they are asked for; nobody asks for these.
modprobe -a virtio-rng tun
ip link set lo up
ip addr add "$address" dev eth0
ip link set eth0 up
/usr/sbin/sshd -E /var/log/sshd.log
[ "$engine" != yes ] || dockerd --storage-driver overlay2 --log-level warn >>/var/log/services.log 2>&1 &
until busybox nc -w 5 127.0.0.1 22 </dev/null | grep -q ^SSH-; do busybox usleep 50000; done
echo "coldstart-lab: sshd answers" >/dev/console
if [ "$engine" = yes ]; then
    until [ -S /run/docker.sock ]; do busybox usleep 50000; done
    echo "coldstart-lab: engine listens" >/dev/console
fi
# It must never end; `wait` takes in whoever has lost their parent.
while :; do
    sleep 86400 &
    wait $!
done
