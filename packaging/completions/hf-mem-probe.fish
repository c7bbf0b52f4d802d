# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hf_mem_probe_global_optspecs
    string join \n h/help V/version
end

function __fish_hf_mem_probe_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hf_mem_probe_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hf_mem_probe_using_subcommand
    set -l cmd (__fish_hf_mem_probe_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "fits" -d 'Whether and how a model fits here, now'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "estimate" -d 'What a model needs, whatever is installed here'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "gpus" -d 'What is free, and who holds what'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "free" -d 'What can be given on one device, as one whole number: for programs that compare numbers'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "run" -d 'Waits for room, holds it by a lease, and runs a command there'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "lease" -d 'The leases that are held'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "explain" -d 'Who had been promised what, and who had taken what, at a time: for after an out-of-memory'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "daemon" -d 'Serves questions on a Unix socket'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "health" -d 'Whether the daemon answers, and how each of its parts is'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "check-config" -d 'Reads a configuration file as the daemon would, and says what is wrong with it'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "pack" -d 'Writes all that an answer needs of a model into one small file, for hosts without a network'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "completions" -d 'Writes shell completions to standard output'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "manual" -d 'Writes a manual page to standard output: the program\'s own, or that of one of its commands'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l file -d 'One file of the repository, or the name of a quantisation (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l engine -d 'vllm, sglang, llama.cpp, ollama, transformers, diffusers or reference, with an optional version' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l context -d 'Tokens of one sequence, or "max" [default: the engine\'s own]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l sequences -d 'Sequences held at once [default: 1]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l kv-cache-dtype -d 'dtype of the KV cache, by the engine\'s own name (fp8, q8_0, ...)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l dtype -d 'dtype that weights are cast to, by the engine\'s own name' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l tensor-parallel -d 'Exactly this tensor-parallel degree' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l pipeline-parallel -d 'Exactly this many pipeline stages' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l set -d 'An engine parameter by the engine\'s own name, such as max_num_seqs=256. May be repeated' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l on -d 'Only these devices, by UUID' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l gpus -d 'Declared devices instead of this host\'s: 8xH100-80GB, 2x24GiB,1x12GiB,host:64GiB, or a file written by gpus --json. docs/cards.md lists the names' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l offload -d 'Whether layers, experts or components may stay in host memory' -r -f -a "allow\t'It may'
deny\t'It may not'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l config -d 'With --local: the configuration whose engine profiles, default engine, margins and policy apply [default: the daemon\'s, /etc/hf-mem-probe/config.toml, where it can be read]' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l ttl -d 'How long the lease lives unless renewed [default: the daemon\'s own]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l wait -d 'How long to wait in line for memory' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l holder -d 'Hold the lease by this name, until it is released or its time is up, instead of by the calling process' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l nvml -d 'The driver\'s library, where it is not found by its usual name' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l strict -d 'Exit with 1 when it fits only by its likely need, not by the high end ("tight")'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l condition -d 'For systemd\'s ExecCondition=: exit with 255 on everything but "fits" (0) and "does not fit" (1). A "fits" that does not count the leases of a stopped daemon is no "fits" here'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l frontier -d 'Also compute the largest context for each number of sequences'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l reserve -d 'Hold what is answered by a lease (needs the daemon). A lease is advisory: it is honoured by everyone who asks here, and cannot stop a process that does not'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l local -d 'Do not ask the daemon: its leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l file -d 'One file of the repository, or the name of a quantisation (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l engine -d 'vllm, sglang, llama.cpp, ollama, transformers, diffusers or reference, with an optional version' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l context -d 'Tokens of one sequence, or "max" [default: the engine\'s own]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l sequences -d 'Sequences held at once [default: 1]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l kv-cache-dtype -d 'dtype of the KV cache, by the engine\'s own name (fp8, q8_0, ...)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l dtype -d 'dtype that weights are cast to, by the engine\'s own name' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l tensor-parallel -d 'Exactly this tensor-parallel degree' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l pipeline-parallel -d 'Exactly this many pipeline stages' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l set -d 'An engine parameter by the engine\'s own name, such as max_num_seqs=256. May be repeated' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l on -d 'Only these devices, by UUID' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l gpus -d 'Declared devices instead of this host\'s: 8xH100-80GB, 2x24GiB,1x12GiB,host:64GiB, or a file written by gpus --json. docs/cards.md lists the names' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l offload -d 'Whether layers, experts or components may stay in host memory' -r -f -a "allow\t'It may'
deny\t'It may not'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l config -d 'With --local: the configuration whose engine profiles, default engine, margins and policy apply [default: the daemon\'s, /etc/hf-mem-probe/config.toml, where it can be read]' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l local -d 'Do not ask the daemon'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l gpus -d 'Declared devices instead of this host\'s' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l nvml -d 'The driver\'s library, where it is not found by its usual name' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l watch -d 'Print anew whenever something changes'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l topology -d 'Show how the devices are wired'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l local -d 'Do not ask the daemon: its leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l gpu -d 'The device, by UUID or index; needed where there is more than one' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l unit -d 'The unit; rounded down to whole ones' -r -f -a "B\t'Bytes'
KiB\t'1024 bytes'
MiB\t'1024 KiB'
GiB\t'1024 MiB'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l gpus -d 'Declared devices instead of this host\'s' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l nvml -d 'The driver\'s library, where it is not found by its usual name' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l local -d 'Do not ask the daemon: its leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l model -d 'owner/name, owner/name@revision, a local folder, a .gguf or .safetensors file, a bundle, ollama:NAME or lmstudio:PUBLISHER/NAME' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l file -d 'One file of the repository, or the name of a quantisation (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l engine -d 'vllm, sglang, llama.cpp, ollama, transformers, diffusers or reference, with an optional version' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l context -d 'Tokens of one sequence, or "max" [default: the engine\'s own]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l sequences -d 'Sequences held at once [default: 1]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l kv-cache-dtype -d 'dtype of the KV cache, by the engine\'s own name (fp8, q8_0, ...)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l dtype -d 'dtype that weights are cast to, by the engine\'s own name' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l tensor-parallel -d 'Exactly this tensor-parallel degree' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l pipeline-parallel -d 'Exactly this many pipeline stages' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l set -d 'An engine parameter by the engine\'s own name, such as max_num_seqs=256. May be repeated' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l on -d 'Only these devices, by UUID' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l gpus -d 'Declared devices instead of this host\'s: 8xH100-80GB, 2x24GiB,1x12GiB,host:64GiB, or a file written by gpus --json. docs/cards.md lists the names' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l offload -d 'Whether layers, experts or components may stay in host memory' -r -f -a "allow\t'It may'
deny\t'It may not'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l config -d 'With --local: the configuration whose engine profiles, default engine, margins and policy apply [default: the daemon\'s, /etc/hf-mem-probe/config.toml, where it can be read]' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l wait -d 'How long to wait in line for memory [default: not at all]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l ttl -d 'How long the lease outlives this program if it can no longer renew it' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l lease -d 'What to hold: what the model needs, or the whole share of the device that the engine takes by CMD\'s flags or by its own default [default: share for a CMD that starts vLLM or SGLang without --flags, else need]' -r -f -a "need\t'What the model needs for the question, whatever the command\'s memory flags say'
share\t'What the engine takes when it is started with these flags'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l become -d 'Be the process that becomes CMD, started by the process of this pid: this program\'s own way to start itself' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l tell -d 'Say the lease\'s id to the socket of this name, with --become' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l nvml -d 'The driver\'s library, where it is not found by its usual name' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l flags -d 'Append the engine\'s arguments for this placement to CMD. An argument of CMD that is "{args}" is replaced by them'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l no-lease -d 'Run without a lease: another may be told that the same memory is free. Works without the daemon'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l local -d 'Do not ask the daemon: its leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "list" -d 'All leases, and who waits for one'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "renew" -d 'Makes a lease go on. One that has ended stays ended'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "release" -d 'Gives a lease back'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l ttl -d 'How long from now [default: its own time to live]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "list" -d 'All leases, and who waits for one'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "renew" -d 'Makes a lease go on. One that has ended stays ended'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "release" -d 'Gives a lease back'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l at -d 'The time: RFC 3339 (2026-11-23T15:04:05Z), "now", or how long ago (10min)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l journal -d 'The daemon\'s state directory, where its journal is' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l around -d 'How many lines of the journal to show before and after' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l config -d 'Configuration file' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l socket -d 'Socket to serve on, instead of the configuration\'s' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l gpus -d 'Declared devices instead of this host\'s: for trying things out, and for tests' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l nvml -d 'The driver\'s library, where it is not found by its usual name' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l socket -d 'The daemon\'s socket' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l timeout -d 'How long to wait for the daemon to answer, on top of --wait [default: 5s for health and gpus, 15s for free and lease, 65s for the others]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l strict -d 'Exit with 1 when any part of the daemon is degraded'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand check-config" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand check-config" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -s o -l output -d 'The file to write; one that is there already is replaced' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -l file -d 'One file of the repository, or the name of a quantisation (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand completions" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand completions" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand manual" -s h -l help -d 'Print help'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand manual" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "fits" -d 'Whether and how a model fits here, now'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "estimate" -d 'What a model needs, whatever is installed here'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "gpus" -d 'What is free, and who holds what'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "free" -d 'What can be given on one device, as one whole number: for programs that compare numbers'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "run" -d 'Waits for room, holds it by a lease, and runs a command there'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "lease" -d 'The leases that are held'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "explain" -d 'Who had been promised what, and who had taken what, at a time: for after an out-of-memory'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "daemon" -d 'Serves questions on a Unix socket'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "health" -d 'Whether the daemon answers, and how each of its parts is'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "check-config" -d 'Reads a configuration file as the daemon would, and says what is wrong with it'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "pack" -d 'Writes all that an answer needs of a model into one small file, for hosts without a network'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "completions" -d 'Writes shell completions to standard output'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "manual" -d 'Writes a manual page to standard output: the program\'s own, or that of one of its commands'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and __fish_seen_subcommand_from lease" -f -a "list" -d 'All leases, and who waits for one'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and __fish_seen_subcommand_from lease" -f -a "renew" -d 'Makes a lease go on. One that has ended stays ended'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and __fish_seen_subcommand_from lease" -f -a "release" -d 'Gives a lease back'
