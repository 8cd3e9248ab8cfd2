#!/busybox sh
# The guest's first program: makes the host's files its root, read-only below a layer in memory, and goes on there.
busybox=/busybox
fail() { echo "the guest cannot start: $1"; $busybox poweroff -f; }

$busybox mount -t proc proc /proc
$busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    $busybox insmod "$module" || fail "$module does not load"
done
$busybox mount -t tmpfs -o mode=755 tmpfs /layer
$busybox mkdir /layer/upper /layer/work
$busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /host || fail "no host"
$busybox mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /newroot ||
    fail "no overlay"
$busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 shared /newroot/mnt || fail "no shared folder"
$busybox umount /dev
$busybox umount /proc
exec $busybox switch_root /newroot /bin/sh /mnt/guest.sh
