systemd-sysusers hf-mem-probe.conf || :
systemd-tmpfiles --create hf-mem-probe.conf || :
systemctl daemon-reload >/dev/null 2>&1 || :
if [ "$1" -eq 1 ]; then
    systemctl preset hf-mem-probe.socket hf-mem-probe.service >/dev/null 2>&1 || :
fi
