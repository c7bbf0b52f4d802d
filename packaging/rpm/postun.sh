systemctl daemon-reload >/dev/null 2>&1 || :
if [ "$1" -ge 1 ]; then
    # Upgrade: the socket stays open, so that callers wait for the new daemon.
    systemctl try-restart hf-mem-probe.service >/dev/null 2>&1 || :
fi
