# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hf_mem_probe_global_optspecs
    string join \n color= h/help V/version
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

complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "fits" -d 'Check whether a model fits on your GPUs, and how to start it'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "estimate" -d 'Estimate the memory that a model needs, on any host'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "gpus" -d 'Show free memory, leases and processes of each GPU'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "free" -d 'Print the available memory of one GPU as a whole number'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "run" -d 'Wait for memory, lease it, and run a command on the leased GPUs'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "lease" -d 'List, renew or release leases'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "explain" -d 'Show the leases and processes of a past moment, such as an out-of-memory error'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "daemon" -d 'Run the daemon: answer requests on a Unix socket and grant leases'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "health" -d 'Check that the daemon answers, and show the state of its parts'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "check-config" -d 'Check a configuration file and report its errors'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "pack" -d 'Write a model\'s metadata into one small file, for hosts without a network'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "completions" -d 'Print a completion script for your shell'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "manual" -d 'Print a manual page, of the program or of one of its commands'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l file -d 'Use one file of the repository, by its name or quantization (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l draft -d 'Draft model, which proposes tokens for MODEL to check: named as MODEL is' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l draft-file -d 'Use one file of the draft\'s repository, by its name or quantization' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l engine -d 'Engine that runs the model: vllm, sglang, llama.cpp, ollama, transformers, diffusers, ctranslate2 or reference, with an optional version (vllm@0.19)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l context -d 'Tokens of one sequence, such as 32768 or 32k, or "max" [default: set by the engine]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l sequences -d 'Number of sequences in memory at once [default: 1]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l kv-cache-dtype -d 'dtype of the KV cache, by the engine\'s name for it (fp8, q8_0, ...)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l dtype -d 'dtype that the engine casts the weights to, by the engine\'s name for it' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l tensor-parallel -d 'Use exactly this tensor-parallel degree [default: the best that fits]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l pipeline-parallel -d 'Use exactly this number of pipeline stages [default: the best that fits]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l set -d 'Set an engine parameter by the engine\'s name for it, such as max_num_seqs=256. Repeat the flag for more parameters' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l on -d 'Use only these GPUs: UUIDs, indices or PCI addresses, separated by commas' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l gpus -d 'Place the model on these declared GPUs instead of this host\'s' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l offload -d 'Whether layers, experts or components may stay in host memory' -r -f -a "allow\t'Use host memory for what does not fit on the GPUs'
deny\t'Keep the whole model on the GPUs'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l config -d 'With --local, take engine profiles, the default engine, margins and policy from this configuration file [default: /etc/hf-mem-probe/config.toml, if you can read it]' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l ttl -d 'Time after which the lease ends unless you renew it, such as 2min [default: set by the daemon]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l wait -d 'Time to wait in the queue for memory, such as 5min [default: do not wait]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l holder -d 'Name the holder of the lease. A named lease lasts until you release it or its time ends; without a name it also ends with the calling process' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l nvml -d 'Load the NVIDIA driver library (NVML) from this path' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l strict -d 'Exit with 1 on "tight": the likely need fits, but its upper bound does not'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l condition -d 'Use exit codes for systemd\'s ExecCondition='
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l frontier -d 'Also compute the longest context for each number of sequences'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l reserve -d 'Lease the memory of the answer. Needs the daemon'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l local -d 'Do not ask the daemon. Leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -s q -l quiet -d 'Print one line'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -s v -l verbose -d 'Print every component, assumption and alternative; twice, all that the answer holds'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand fits" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l file -d 'Use one file of the repository, by its name or quantization (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l draft -d 'Draft model, which proposes tokens for MODEL to check: named as MODEL is' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l draft-file -d 'Use one file of the draft\'s repository, by its name or quantization' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l engine -d 'Engine that runs the model: vllm, sglang, llama.cpp, ollama, transformers, diffusers, ctranslate2 or reference, with an optional version (vllm@0.19)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l context -d 'Tokens of one sequence, such as 32768 or 32k, or "max" [default: set by the engine]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l sequences -d 'Number of sequences in memory at once [default: 1]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l kv-cache-dtype -d 'dtype of the KV cache, by the engine\'s name for it (fp8, q8_0, ...)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l dtype -d 'dtype that the engine casts the weights to, by the engine\'s name for it' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l tensor-parallel -d 'Use exactly this tensor-parallel degree [default: the best that fits]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l pipeline-parallel -d 'Use exactly this number of pipeline stages [default: the best that fits]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l set -d 'Set an engine parameter by the engine\'s name for it, such as max_num_seqs=256. Repeat the flag for more parameters' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l on -d 'Use only these GPUs: UUIDs, indices or PCI addresses, separated by commas' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l gpus -d 'Place the model on these declared GPUs instead of this host\'s' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l offload -d 'Whether layers, experts or components may stay in host memory' -r -f -a "allow\t'Use host memory for what does not fit on the GPUs'
deny\t'Keep the whole model on the GPUs'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l config -d 'With --local, take engine profiles, the default engine, margins and policy from this configuration file [default: /etc/hf-mem-probe/config.toml, if you can read it]' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l local -d 'Do not ask the daemon'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -s q -l quiet -d 'Print one line'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -s v -l verbose -d 'Print every component, assumption and alternative; twice, all that the answer holds'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand estimate" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l gpus -d 'Show these declared GPUs instead of this host\'s, such as 8xH100-80GB' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l nvml -d 'Load the NVIDIA driver library (NVML) from this path' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l watch -d 'Keep running, and print again after every change'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l topology -d 'Show how the GPUs are connected (NVLink, PCIe)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l local -d 'Do not ask the daemon. Leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand gpus" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l on -d 'GPU to read, by UUID, index or PCI address. Required if the host has more than one' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l unit -d 'Unit of the printed number, which is rounded down' -r -f -a "B\t'Bytes'
KiB\t'1024 bytes'
MiB\t'1024 KiB'
GiB\t'1024 MiB'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l gpus -d 'Read these declared GPUs instead of this host\'s, such as 8xH100-80GB' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l nvml -d 'Load the NVIDIA driver library (NVML) from this path' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l local -d 'Do not ask the daemon. Leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand free" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l model -d 'The same as MODEL' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l file -d 'Use one file of the repository, by its name or quantization (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l draft -d 'Draft model, which proposes tokens for MODEL to check: named as MODEL is' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l draft-file -d 'Use one file of the draft\'s repository, by its name or quantization' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l engine -d 'Engine that runs the model: vllm, sglang, llama.cpp, ollama, transformers, diffusers, ctranslate2 or reference, with an optional version (vllm@0.19)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l context -d 'Tokens of one sequence, such as 32768 or 32k, or "max" [default: set by the engine]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l sequences -d 'Number of sequences in memory at once [default: 1]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l kv-cache-dtype -d 'dtype of the KV cache, by the engine\'s name for it (fp8, q8_0, ...)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l dtype -d 'dtype that the engine casts the weights to, by the engine\'s name for it' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l tensor-parallel -d 'Use exactly this tensor-parallel degree [default: the best that fits]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l pipeline-parallel -d 'Use exactly this number of pipeline stages [default: the best that fits]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l set -d 'Set an engine parameter by the engine\'s name for it, such as max_num_seqs=256. Repeat the flag for more parameters' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l on -d 'Use only these GPUs: UUIDs, indices or PCI addresses, separated by commas' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l gpus -d 'Place the model on these declared GPUs instead of this host\'s' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l offload -d 'Whether layers, experts or components may stay in host memory' -r -f -a "allow\t'Use host memory for what does not fit on the GPUs'
deny\t'Keep the whole model on the GPUs'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l config -d 'With --local, take engine profiles, the default engine, margins and policy from this configuration file [default: /etc/hf-mem-probe/config.toml, if you can read it]' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l wait -d 'Time to wait in the queue for memory, such as 10min [default: do not wait]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l ttl -d 'Time that the lease lasts after its last renewal. hf-mem-probe renews it while CMD runs' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l lease -d 'Memory to lease: what the model needs, or all memory that CMD takes from the GPU' -r -f -a "need\t'The model\'s need, whatever CMD\'s memory flags are'
share\t'The share of the GPU that the engine takes by CMD\'s flags or by its default'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l become -d 'Become CMD, as the child of the supervisor with this pid. hf-mem-probe starts itself this way' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l tell -d 'Send the lease\'s id to the socket of this name. Only with --become' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l nvml -d 'Load the NVIDIA driver library (NVML) from this path' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l flags -d 'Append the engine\'s arguments for this placement to CMD'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l no-lease -d 'Run CMD without a lease. Other jobs can then be granted the same memory'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -l local -d 'Do not ask the daemon. Leases are then not counted'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand run" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "list" -d 'List all leases and the requests in the queue'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "renew" -d 'Renew a lease, so that it lasts longer'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "release" -d 'Release a lease'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and not __fish_seen_subcommand_from list renew release help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from list" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l ttl -d 'Time from now until the lease ends, such as 2min [default: the lease\'s own time to live]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from renew" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from release" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "list" -d 'List all leases and the requests in the queue'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "renew" -d 'Renew a lease, so that it lasts longer'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "release" -d 'Release a lease'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand lease; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l at -d 'Moment to explain: RFC 3339 (2026-11-23T15:04:05Z), "now", or a time ago such as 10min' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l journal -d 'State directory of the daemon, which holds its journal' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l around -d 'Number of journal entries to show before and after the moment' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand explain" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l config -d 'Configuration file' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l socket -d 'Socket to listen on, instead of the one in the configuration' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l gpus -d 'Serve these declared GPUs instead of this host\'s, such as 8xH100-80GB. Useful for tests' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l nvml -d 'Load the NVIDIA driver library (NVML) from this path' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand daemon" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l socket -d 'Socket of the daemon' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l timeout -d 'Time limit for the daemon\'s answer, in addition to --wait [default: 5s for health and gpus, 15s for free and lease, 65s for other commands]' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l strict -d 'Exit with 1 if a part of the daemon is degraded'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand health" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand check-config" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand check-config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand check-config" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -s o -l output -d 'File to write. An existing file is replaced' -r -F
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -l file -d 'Use one file of the repository, by its name or quantization (Q4_K_M)' -r
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -l json -d 'Print one JSON object, on failure too'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand pack" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand completions" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand completions" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand manual" -l color -d 'When to print colors' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand manual" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand manual" -s V -l version -d 'Print version'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "fits" -d 'Check whether a model fits on your GPUs, and how to start it'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "estimate" -d 'Estimate the memory that a model needs, on any host'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "gpus" -d 'Show free memory, leases and processes of each GPU'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "free" -d 'Print the available memory of one GPU as a whole number'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "run" -d 'Wait for memory, lease it, and run a command on the leased GPUs'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "lease" -d 'List, renew or release leases'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "explain" -d 'Show the leases and processes of a past moment, such as an out-of-memory error'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "daemon" -d 'Run the daemon: answer requests on a Unix socket and grant leases'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "health" -d 'Check that the daemon answers, and show the state of its parts'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "check-config" -d 'Check a configuration file and report its errors'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "pack" -d 'Write a model\'s metadata into one small file, for hosts without a network'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "completions" -d 'Print a completion script for your shell'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "manual" -d 'Print a manual page, of the program or of one of its commands'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and not __fish_seen_subcommand_from fits estimate gpus free run lease explain daemon health check-config pack completions manual help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and __fish_seen_subcommand_from lease" -f -a "list" -d 'List all leases and the requests in the queue'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and __fish_seen_subcommand_from lease" -f -a "renew" -d 'Renew a lease, so that it lasts longer'
complete -c hf-mem-probe -n "__fish_hf_mem_probe_using_subcommand help; and __fish_seen_subcommand_from lease" -f -a "release" -d 'Release a lease'
