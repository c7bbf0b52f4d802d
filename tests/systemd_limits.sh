#!/usr/bin/env bash
# Tests the limits of the unit in a virtual machine, whose kernel enforces them. The test reaches and exceeds the limits of
# memory, tasks, descriptors, devices and addresses. Needs root for the file system, mmdebstrap, qemu-system-x86, e2fsprogs,
# python3 and a Debian mirror. Takes a few minutes, because the processor is emulated unless LIMITS_ACCEL=kvm.
#
#   tests/systemd_limits.sh DEB SIMULATED_NVML.so
#
# LIMITS_ROOT=FOLDER keeps the root file system and reuses it. BOOT_MIRROR names the mirror; the default is this system's own
# archive. tests/load/limits.py has the test cases. It runs in the virtual machine and writes its results to a disk, because
# a console loses lines.
set -euo pipefail
cd "$(dirname "$0")/.."

deb=$(realpath "${1:?usage: tests/systemd_limits.sh DEB SIMULATED_NVML.so}")
simulated=$(realpath "${2:?usage: tests/systemd_limits.sh DEB SIMULATED_NVML.so}")
mirror=${BOOT_MIRROR:-$(tests/support/apt_mirror.sh bookworm)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=${LIMITS_ROOT:-$work/root}

if [ ! -e "$root/usr/bin/systemctl" ]; then
    mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,procps,iproute2,util-linux,kmod,python3 \
        --include=linux-image-cloud-amd64,initramfs-tools bookworm "$root" "$mirror"
fi
chroot "$root" id alice >/dev/null 2>&1 || chroot "$root" useradd -m alice
cat >"$root/etc/systemd/system/limits.service" <<'U'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /opt/test && mount -o ro /dev/vdb /opt/test && python3 /opt/test/tests/load/limits.py >/run/found 2>&1; echo "exit $?" >>/run/found; dd if=/run/found of=/dev/vdc conv=fsync; systemctl poweroff --no-block'
[Install]
WantedBy=default.target
U
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -sfn /etc/systemd/system/limits.service "$root/etc/systemd/system/default.target.wants/limits.service"

mkdir -p "$work/test/driver" "$work/test/tests/load" "$work/test/tests/fixtures"
cp "$deb" "$work/test/one.deb"
cp "$simulated" "$work/test/driver/libnvidia-ml.so.1"
cp tests/load/*.py "$work/test/tests/load/"
cp -r tests/fixtures/Qwen3-8B "$work/test/tests/fixtures/"
mkfs.ext4 -qF -d "$root" "$work/root.img" 3G
mkfs.ext4 -q -d "$work/test" "$work/test.img" 64M
truncate -s 1M "$work/found"

timeout 600 qemu-system-x86_64 -accel "${LIMITS_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m 3072 -display none -serial "file:$work/console" \
    -monitor none -no-reboot -nic none -kernel "$(ls "$root"/boot/vmlinuz-* | tail -1)" -initrd "$(ls "$root"/boot/initrd.img-* | tail -1)" \
    -append "root=/dev/vda rw console=ttyS0 quiet" \
    -drive "file=$work/root.img,format=raw,if=virtio,snapshot=on" -drive "file=$work/test.img,format=raw,if=virtio,readonly=on" \
    -drive "file=$work/found,format=raw,if=virtio" </dev/null >"$work/qemu.log" 2>&1 || { cat "$work/qemu.log"; exit 1; }
tr -d '\0' <"$work/found"
tr -d '\0' <"$work/found" | tail -1 | grep -qx 'exit 0' || { tail -20 "$work/console"; exit 1; }
