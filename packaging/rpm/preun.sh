if [ "$1" -eq 0 ]; then
    systemctl disable --now hf-mem-probe.socket hf-mem-probe.service >/dev/null 2>&1 || :
fi
