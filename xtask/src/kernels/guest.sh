# Runs in the guest, with the host's files as its root: what a host has mounted, then the jobs.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
# The host may keep what the jobs need where the guest has folders of its own.
number=0
while read -r folder; do
    number=$((number + 1))
    mkdir -p "/kept/$number"
    mount --bind "$folder" "/kept/$number"
done </mnt/kept
for folder in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
number=0
while read -r folder; do
    number=$((number + 1))
    mkdir -p "$folder"
    mount --bind "/kept/$number" "$folder"
done </mnt/kept
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
uname -r >/mnt/release

# run NAME PROGRAM [ARGUMENT...]: what it says goes to a file of that name, how it ends and how long it took to another.
run() {
    name=$1
    shift
    echo "$name"
    began=$(cut -d. -f1 /proc/uptime)
    "$@" >"/mnt/$name.said" 2>&1 </dev/null
    status=$?
    echo "$status $(($(cut -d. -f1 /proc/uptime) - began))" >"/mnt/$name.ended"
}

. /mnt/jobs.sh
echo over >/mnt/over
sync
poweroff -f 2>/dev/null || echo o >/proc/sysrq-trigger
sleep 60
