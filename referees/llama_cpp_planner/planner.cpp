// Loads one model's header with llama.cpp's `no_alloc` pass, over simulated CUDA devices, and prints the
// bytes that llama.cpp would allocate. This is the pass with which `--fit` measures (common/fit.cpp).
//
// usage: planner FILE [NAME=VALUE]...
//        planner FILE only=sizes
//
// The second form prints the sizes of the header and of the whole file, from the header alone.
// One JSON object goes to standard output, the messages of llama.cpp to standard error.

#include "backend.h"

#include "ggml-backend.h"
#include "gguf.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using settings_map = std::map<std::string, std::string>;

// Takes a setting out of the map, so that what is left at the end is unknown.
static std::string take(settings_map & settings, const std::string & name, const std::string & otherwise) {
    const auto found = settings.find(name);
    if (found == settings.end()) {
        return otherwise;
    }
    const std::string value = found->second;
    settings.erase(found);
    return value;
}

static long long take_number(settings_map & settings, const std::string & name, long long otherwise) {
    const std::string value = take(settings, name, std::to_string(otherwise));
    char *            end   = nullptr;
    const long long number  = std::strtoll(value.c_str(), &end, 10);
    if (value.empty() || *end) {
        throw std::invalid_argument("not a whole number: " + name + "=" + value);
    }
    return number;
}

static bool take_switch(settings_map & settings, const std::string & name, bool otherwise) {
    return take_number(settings, name, otherwise) != 0;
}

static std::vector<float> parts_of(const std::string & split) {
    std::vector<float> parts;
    std::stringstream stream(split);
    for (std::string part; std::getline(stream, part, ',');) {
        parts.push_back(std::stof(part));
    }
    return parts;
}

static ggml_type type_named(const std::string & name) {
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        const char * known = ggml_type_name((ggml_type) type);
        if (known && name == known) {
            return (ggml_type) type;
        }
    }
    throw std::invalid_argument("unknown type of a cache: " + name);
}

static llama_flash_attn_type flash_attention_named(const std::string & name) {
    if (name == "auto" || name == "-1") {
        return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
    return name == "on" || name == "1" ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

// llama.cpp's messages: warnings and errors by default, all of them if the user traces.
static ggml_log_level least_level = GGML_LOG_LEVEL_WARN;

static void print_message(ggml_log_level level, const char * text, void *) {
    if (level >= least_level) {
        fputs(text, stderr);
    }
}

// The model's parameters, with the defaults of llama-server.
static llama_model_params model_params(settings_map & settings, std::vector<float> & split) {
    llama_model_params params = llama_model_default_params();
    params.no_alloc     = true;
    params.load_mode    = LLAMA_LOAD_MODE_NONE;
    params.n_gpu_layers = take_number(settings, "n_gpu_layers", -1);
    params.split_mode   = (llama_split_mode) take_number(settings, "split_mode", LLAMA_SPLIT_MODE_LAYER);
    params.main_gpu     = take_number(settings, "main_gpu", 0);
    params.load_mtp     = take_switch(settings, "load_mtp", false);
    if (!split.empty()) {
        split.resize(llama_max_devices());
        params.tensor_split = split.data();
    }
    return params;
}

// The context's parameters, with the defaults of llama-server (common/common.h: common_params).
static llama_context_params context_params(settings_map & settings) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx           = take_number(settings, "n_ctx", 0);
    params.n_ubatch        = take_number(settings, "n_ubatch", 512);
    params.n_seq_max       = take_number(settings, "n_parallel", 1);
    params.embeddings      = take_switch(settings, "embedding", false);

    // llama-server reads an output of each sequence, and of each token if it serves embeddings: then a
    // batch is one microbatch (tools/server/server-context.cpp, server.cpp: server_prepare_params).
    const long long batch  = take_number(settings, "n_batch", 2048);
    params.n_batch         = params.embeddings ? std::min<long long>(batch, params.n_ubatch) : batch;
    params.n_outputs_max   = take_number(settings, "n_outputs_max", params.embeddings ? params.n_batch : params.n_seq_max);
    params.n_rs_seq        = take_number(settings, "n_rs_seq", 0);
    params.kv_unified      = take_switch(settings, "kv_unified", false);
    params.swa_full        = take_switch(settings, "swa_full", false);
    params.offload_kqv     = !take_switch(settings, "no_kv_offload", false);
    params.op_offload      = !take_switch(settings, "no_op_offload", false);
    params.type_k          = type_named(take(settings, "type_k", "f16"));
    params.type_v          = type_named(take(settings, "type_v", "f16"));
    params.flash_attn_type = flash_attention_named(take(settings, "flash_attn", "auto"));
    return params;
}

// The bytes of each device of the model, and of the host after them.
static std::vector<llama_memory_breakdown_data> bytes_of(const llama_model * model, const llama_context * context) {
    const int count = llama_model_n_devices(model);
    std::vector<llama_memory_breakdown_data> bytes(count + 1);

    for (const auto & [type, part] : llama_get_memory_breakdown(context)) {
        int place = count;
        for (int index = 0; index < count && !ggml_backend_buft_is_host(type); index++) {
            if (ggml_backend_buft_get_device(type) == llama_model_get_device(model, index)) {
                place = index;
            }
        }
        bytes[place].model   += part.model;
        bytes[place].context += part.context;
        bytes[place].compute += part.compute;
    }
    return bytes;
}

static void print_part(const llama_memory_breakdown_data & part) {
    printf("{\"model_bytes\": %zu, \"context_bytes\": %zu, \"compute_bytes\": %zu}", part.model, part.context, part.compute);
}

// Prints the members `devices` and `host` of an object.
static void print_parts(const std::vector<llama_memory_breakdown_data> & bytes) {
    printf("\"devices\": [");
    for (size_t index = 0; index + 1 < bytes.size(); index++) {
        printf("%s", index ? ", " : "");
        print_part(bytes[index]);
    }
    printf("], \"host\": ");
    print_part(bytes.back());
}

// What drafts: the model's own next-token layers, or a second model.
struct draft_settings {
    std::string type;
    std::string path;
    int         drafted  = 3;
    int         proposed = 0; // the most tokens that anything proposes
    int         layers   = -1;
    int         n_ubatch = 0;
    ggml_type   type_k   = GGML_TYPE_F16;
    ggml_type   type_v   = GGML_TYPE_F16;

    bool drafts() const { return type != "none"; }
    bool next_token() const { return type == "draft-mtp"; }
};

static draft_settings take_draft(settings_map & settings) {
    draft_settings draft;
    draft.path     = take(settings, "draft", "");
    draft.type     = take(settings, "spec_type", draft.path.empty() ? "none" : "draft-simple");
    draft.drafted  = take_number(settings, "spec_draft_n_max", 3);
    draft.layers   = take_number(settings, "spec_draft_ngl", -1);
    draft.n_ubatch = take_number(settings, "spec_draft_n_ubatch", 0);
    draft.type_k   = type_named(take(settings, "spec_draft_type_k", "f16"));
    draft.type_v   = type_named(take(settings, "spec_draft_type_v", "f16"));
    // Tokens that n-grams propose by default; they have no context (common/speculative.cpp:
    // common_speculative_n_max).
    static const std::map<std::string, int> ngrams = {
        {"ngram-simple", 48}, {"ngram-map-k", 48}, {"ngram-map-k4v", 48}, {"ngram-mod", 64}, {"ngram-cache", 8},
    };
    if (const auto found = ngrams.find(draft.type); found != ngrams.end()) {
        draft.type     = "none";
        draft.proposed = found->second;
        return draft;
    }
    draft.proposed = draft.drafts() ? draft.drafted : 0;
    if (draft.drafts() && !draft.next_token() && draft.type != "draft-simple") {
        throw std::invalid_argument("unknown kind of a draft: " + draft.type);
    }
    if (draft.drafts() && draft.next_token() != draft.path.empty()) {
        throw std::invalid_argument("draft-mtp takes no second file, draft-simple needs one");
    }
    return draft;
}

// Samples on the device, as the server's drafts by next-token layers do
// (common/speculative.cpp: common_speculative_impl_draft_mtp).
static void sample_on_device(llama_context * context) {
    for (uint32_t sequence = 0; sequence < llama_n_seq_max(context); sequence++) {
        llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
        llama_sampler_chain_add(chain, llama_sampler_init_top_k(10));
        llama_set_sampler(context, sequence, chain);
    }
}

// The context that drafts (common/speculative.cpp: common_speculative_init_result).
static llama_context * draft_context(
        llama_model * model, llama_context * target, llama_context_params params, const draft_settings & draft) {
    params.ctx_type              = draft.next_token() ? LLAMA_CONTEXT_TYPE_MTP : LLAMA_CONTEXT_TYPE_DEFAULT;
    params.ctx_other             = target;
    params.n_ctx                 = llama_n_ctx(target);
    params.n_rs_seq              = 0;
    params.n_outputs_max         = params.n_seq_max;
    params.n_outputs_max_per_seq = 1;
    params.n_ubatch              = draft.n_ubatch > 0 ? draft.n_ubatch : params.n_ubatch;
    params.type_k                = draft.type_k;
    params.type_v                = draft.type_v;

    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        throw std::runtime_error("llama.cpp does not create the draft context");
    }
    return context;
}

// Prints what a draft adds; the weights of next-token layers are the model's.
static void print_draft(const llama_model * model, const llama_context * context, const draft_settings & draft) {
    auto bytes = bytes_of(model, context);
    for (auto & part : bytes) {
        part.model = draft.next_token() ? 0 : part.model;
    }
    printf(", \"draft\": {");
    print_parts(bytes);
    printf("}");
}

static void print_sizes(const char * path) {
    const gguf_init_params params = {/*.no_alloc = */ true, /*.ctx = */ nullptr};
    const gguf_context *   header = gguf_init_from_file(path, params);
    if (!header) {
        throw std::runtime_error("not a GGUF file");
    }

    const size_t begin = gguf_get_data_offset(header);
    size_t       end   = begin;
    for (int64_t index = 0; index < gguf_get_n_tensors(header); index++) {
        const size_t padded = GGML_PAD(gguf_get_tensor_size(header, index), gguf_get_alignment(header));
        end = std::max(end, begin + gguf_get_tensor_offset(header, index) + padded);
    }
    printf("{\"header_bytes\": %zu, \"file_bytes\": %zu}\n", begin, end);
}

static void run(const char * path, settings_map settings) {
    if (take_switch(settings, "trace", false)) {
        least_level = GGML_LOG_LEVEL_NONE;
    }
    llama_log_set(print_message, nullptr);

    if (take(settings, "only", "") == "sizes") {
        print_sizes(path);
        return;
    }
    std::vector<float> split = parts_of(take(settings, "tensor_split", ""));

    simulated_devices devices;
    devices.count              = take_number(settings, "devices", split.empty() ? 1 : split.size());
    devices.compute_capability = take_number(settings, "compute_capability", 890);
    devices.total_bytes        = take_number(settings, "memory", 80LL << 30);
    devices.free_bytes         = devices.total_bytes;
    register_simulated_devices(devices);

    const draft_settings draft            = take_draft(settings);
    llama_model_params   model_settings   = model_params(settings, split);
    llama_context_params context_settings = context_params(settings);
    if (draft.next_token()) {
        // common/common.h: need_n_rs_seq.
        model_settings.load_mtp   = true;
        context_settings.n_rs_seq = draft.drafted;
    }
    if (draft.proposed > 0) {
        // common/speculative.cpp: common_speculative_get_output_limits.
        context_settings.n_outputs_max = std::min(context_settings.n_batch, context_settings.n_seq_max * (1 + draft.proposed));
    }
    if (!settings.empty()) {
        throw std::invalid_argument("unknown setting: " + settings.begin()->first);
    }

    llama_model * model = llama_model_load_from_file(path, model_settings);
    if (!model) {
        throw std::runtime_error("llama.cpp does not load the model");
    }
    llama_context * context = llama_init_from_model(model, context_settings);
    if (!context) {
        throw std::runtime_error("llama.cpp does not create the context");
    }

    llama_model *   draft_model   = model;
    llama_context * draft_reserve = nullptr;
    if (!draft.path.empty()) {
        model_settings.n_gpu_layers = draft.layers;
        draft_model = llama_model_load_from_file(draft.path.c_str(), model_settings);
        if (!draft_model) {
            throw std::runtime_error("llama.cpp does not load the draft model");
        }
    }
    if (draft.drafts()) {
        draft_reserve = draft_context(draft_model, context, context_settings, draft);
    }
    if (draft.next_token()) {
        // The server reserves both graphs again, with these outputs.
        sample_on_device(draft_reserve);
        llama_set_embeddings_nextn(context, true, false);
        llama_set_embeddings_nextn(draft_reserve, true, true);
        context->sched_reserve();
        draft_reserve->sched_reserve();
    }

    printf("{");
    print_parts(bytes_of(model, context));
    printf(", \"context_tokens\": %u, \"flash_attention\": %s", llama_n_ctx(context),
        context->get_cparams().flash_attn ? "true" : "false");
    if (draft.drafts()) {
        print_draft(draft_model, draft_reserve, draft);
    }
    printf("}\n");
}

int main(int count, char ** arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: %s FILE [NAME=VALUE]...\n", arguments[0]);
        return 2;
    }

    settings_map settings;
    for (int index = 2; index < count; index++) {
        const std::string argument = arguments[index];
        const size_t      equals   = argument.find('=');
        if (equals == std::string::npos) {
            fprintf(stderr, "not a setting, NAME=VALUE: %s\n", argument.c_str());
            return 2;
        }
        settings[argument.substr(0, equals)] = argument.substr(equals + 1);
    }

    try {
        run(arguments[1], settings);
    } catch (const std::invalid_argument & error) {
        fprintf(stderr, "planner: %s\n", error.what());
        return 2;
    } catch (const std::exception & error) {
        fprintf(stderr, "planner: %s\n", error.what());
        return 1;
    }

    // The process ends here: freeing what was never allocated has no use.
    fflush(stdout);
    _Exit(0);
}
