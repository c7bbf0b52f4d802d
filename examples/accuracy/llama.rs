//! llama.cpp, its forks and Ollama: buffers as the start-up log prints them, in MiB by device.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{
    AskedWorkload, Component, ComponentName, Engine, EngineRequest, Interval, Offload,
    PreparedEngine, Split,
};
use hf_mem_core::model::gguf::{Gguf, Metadata, Value as Held, architecture};
use hf_mem_core::model::tensors::{Inventory, InventoryBuilder, Storage};
use hf_mem_core::model::{Dtype, Format, Model};
use serde_json::{Value, json};

use super::score::Scores;

const MIB: f64 = 1_048_576.0;
/// Logs print hundredths of a MiB.
const ROUNDING_GIB: f64 = 0.01 / 1024.0;

struct Row(Value);

impl Row {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// Buffers by device, in MiB.
    fn buffers(&self, key: &str) -> Vec<(&str, f64)> {
        let by = self.0[key].as_object().into_iter().flatten();
        by.filter_map(|(device, mib)| Some((device.as_str(), mib.as_f64()?)))
            .collect()
    }

    fn sum(&self, key: &str) -> Option<f64> {
        let all = self.buffers(key);
        (!all.is_empty()).then(|| all.iter().map(|(_, mib)| mib).sum())
    }

    fn label(&self) -> String {
        let file = self.0["model_file"].as_str().unwrap_or(self.text("model"));
        let file = file.rsplit('/').next().unwrap_or(file);

        format!(
            "{} {} {}",
            self.text("id"),
            self.text("engine"),
            file.get(..40).unwrap_or(file)
        )
    }

    fn notes(&self) -> &str {
        self.text("notes")
    }

    /// llama.cpp's build number, where the row has one.
    fn build(&self) -> Option<u64> {
        let text = self.text("engine_version").trim_start_matches('b');
        let end = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());
        text[..end].parse().ok().filter(|build| *build < 100_000)
    }
}

/// Prints the table.
pub(crate) fn run(measured: &Path, hub: &Path) -> Result<(), Box<dyn Error>> {
    let corpus = described(&hub.join("gguf/described"))?;
    let mut scores = Scores::default();
    let text = std::fs::read_to_string(measured)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut rows = lines
        .map(|line| serde_json::from_str(line).map(Row))
        .collect::<Result<Vec<Row>, _>>()?;
    lend_metadata(&mut rows);

    for row in &rows {
        score(row, &corpus, &mut scores);
    }

    growth(&rows, &corpus, &mut scores);
    scores.print("llama.cpp");

    Ok(())
}

/// Rows without metadata take those that another log of the same model printed.
fn lend_metadata(rows: &mut [Row]) {
    let name = |row: &Row| {
        row.text("model")
            .to_lowercase()
            .replace([' ', '-', '_'], "")
    };

    let has = |row: &Row| row.0["gguf_metadata"]["block_count"].is_u64();
    let known: BTreeMap<String, Value> = rows
        .iter()
        .rev()
        .filter(|row| has(row))
        .map(|row| (name(row), row.0["gguf_metadata"].clone()))
        .collect();

    for row in rows {
        if !has(row)
            && row.text("engine") == "llama.cpp"
            && let Some(metadata) = known.get(&name(row))
        {
            row.0["gguf_metadata"] = metadata.clone();
            row.0["lent"] = Value::Bool(true);
        }
    }
}

/// Two totals of one process on one device that differ only in the context: what the context costs.
fn growth(rows: &[Row], corpus: &BTreeMap<String, Inventory>, scores: &mut Scores) {
    let key = |row: &Row| {
        let same = [
            "engine_version",
            "model",
            "file_type",
            "gpu_names",
            "kv_type_k",
            "flash_attn",
        ];

        same.map(|key| row.0[key].to_string()).join("|")
            + row.notes().split('.').next().unwrap_or_default()
    };

    let total = |row: &Row| row.0["total_used_mib"]["GPU0"].as_f64();
    for (index, small) in rows.iter().enumerate() {
        for large in rows
            .iter()
            .skip(index + 1)
            .filter(|large| key(large) == key(small))
        {
            let (Some(less), Some(more)) = (total(small), total(large)) else {
                continue;
            };

            // Speculation has a context of its own, on which we give no figures.
            if small.number("n_ctx") >= large.number("n_ctx")
                || small.notes().contains("with built-in MTP")
            {
                continue;
            }

            let need = |row: &Row| {
                let (model, _) = model(row, corpus).ok()?;
                let (devices, given) = ([device()], parameters(row));
                let asked = AskedWorkload::default();

                let case = EngineRequest {
                    model: &model,
                    version: None,
                    parameters: &given,
                    asked,
                    devices: &devices,
                };

                let ready = LlamaCpp.prepare(&case).ok()?;
                let split = ready.splits(1).ok()?.remove(0);
                let parts = ready
                    .variable(&split, 0, &devices[0], ready.workload())
                    .ok()?;

                Some(
                    parts
                        .iter()
                        .map(|part| part.bytes.likely.get())
                        .sum::<u64>() as f64
                        / MIB,
                )
            };

            if let (Some(first), Some(second)) = (need(small), need(large)) {
                let (measured, ours) = (more - less, second - first);
                let label = format!("{} and {}", small.label(), large.text("id"));

                // nvidia-smi counts in MiB, twice.
                scores.number(
                    "total's growth with context, MiB",
                    &label,
                    measured,
                    ours,
                    (measured - ours).abs() <= 2.0,
                );
            }
        }
    }
}

/// Tensors of the described files: by repository name and quantisation.
fn described(folder: &Path) -> Result<BTreeMap<String, Inventory>, Box<dyn Error>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let mut text = String::new();
        GzDecoder::new(std::fs::File::open(entry?.path())?).read_to_string(&mut text)?;
        let description: Value = serde_json::from_str(&text)?;
        let mut builder = InventoryBuilder::default();

        for tensor in description["tensors"].as_array().into_iter().flatten() {
            let shape: Vec<u64> = tensor[1]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_u64)
                .collect();

            let kind = tensor[2].as_str().unwrap_or_default();
            let dtype = Dtype::ALL
                .iter()
                .copied()
                .find(|dtype| dtype.name() == kind)
                .ok_or("an unknown type")?;

            let bytes = dtype.stored(shape.iter().product()).ok_or("an odd shape")?;
            builder.add(
                "",
                tensor[0].as_str().unwrap_or_default(),
                Storage::Known(dtype),
                &shape,
                bytes,
            );
        }

        let file = description["file"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches(".gguf")
            .to_lowercase();
        all.insert(file, builder.finish());
    }

    Ok(all)
}

/// The metadata that the log printed.
fn metadata(row: &Row) -> Option<Metadata> {
    let logged = row.0["gguf_metadata"].as_object()?;
    let info = &row.0["gguf_metadata"]["print_info"];
    let family = logged
        .get("general.architecture")
        .or(info.get("arch"))?
        .as_str()?;
    let mut all = BTreeMap::from([(
        "general.architecture".to_owned(),
        Held::Text(family.to_owned()),
    )]);
    let mut put = |key: &str, value: Held| {
        all.entry(format!("{family}.{key}")).or_insert(value);
    };

    for (key, value) in logged {
        match value {
            Value::Number(number) if number.is_u64() => put(key, Held::Unsigned(number.as_u64()?)),
            Value::Bool(truth) => put(key, Held::Bool(*truth)),
            _ => {}
        }
    }

    let printed = [
        ("vocab_size", "n_vocab"),
        ("context_length", "n_ctx_train"),
        ("embedding_length", "n_embd"),
        ("block_count", "n_layer"),
        ("feed_forward_length", "n_ff"),
        ("attention.head_count", "n_head"),
        ("attention.head_count_kv", "n_head_kv"),
        ("attention.key_length", "n_embd_head_k"),
        ("attention.value_length", "n_embd_head_v"),
        ("rope.dimension_count", "n_rot"),
        ("expert_count", "n_expert"),
        ("expert_used_count", "n_expert_used"),
        ("expert_feed_forward_length", "n_ff_exp"),
        ("ssm.conv_kernel", "ssm_d_conv"),
        ("ssm.inner_size", "ssm_d_inner"),
        ("ssm.state_size", "ssm_d_state"),
        ("ssm.time_step_rank", "ssm_dt_rank"),
    ];
    for (key, name) in printed {
        if let Some(value) = info[name].as_u64() {
            put(key, Held::Unsigned(value));
        }
    }

    Some(Metadata(all))
}

fn model(row: &Row, corpus: &BTreeMap<String, Inventory>) -> Result<(Model, bool), String> {
    // Arrays by layer are cut short in the logs.
    let cut = |key: &str| row.0["gguf_metadata"][key].is_string();
    if cut("attention.head_count_kv") || cut("feed_forward_length") {
        return Err("per-layer arrays are cut short in the log".to_owned());
    }

    let metadata = metadata(row).ok_or("no metadata in the row")?;
    let file = row
        .text("model_file")
        .trim_end_matches(".gguf")
        .to_lowercase();
    let known = corpus.get(&file).cloned();
    let known = known.or_else(|| synthesised(row, &metadata));
    let found = known.is_some();

    let inventory = known.unwrap_or_else(|| {
        let mut builder = InventoryBuilder::default();
        builder.add(
            "",
            "output.weight",
            Storage::Known(Dtype::F32),
            &[1],
            Bytes::new(4),
        );

        builder.finish()
    });

    let gguf = Gguf {
        version: 3,
        metadata,
        inventory,
        unknown_types: Vec::new(),
        header_bytes: 0,
        data_bytes: Bytes::ZERO,
        part: None,
        uncovered_bytes: 0,
        table: hf_mem_core::model::gguf::TablePlace::default(),
    };

    let architecture = architecture(&gguf);
    if let Err(why) = &architecture {
        return Err(why.to_string());
    }

    let model = Model::bare("", Format::Gguf, architecture, gguf.inventory);
    Ok((model, found))
}

/// The tensors of a plain dense model of one type, when their number is just what the log counts by
/// type: the matrices of each layer, the embedding, and the output where there is one.
fn synthesised(row: &Row, metadata: &Metadata) -> Option<Inventory> {
    let family = metadata.text("general.architecture")?;
    if !["llama", "qwen2", "qwen3"].contains(&family)
        || metadata.unsigned(&format!("{family}.expert_count")) > Some(0)
    {
        return None;
    }

    let get = |key: &str| metadata.unsigned(&format!("{family}.{key}"));
    let (layers, hidden, wide) = (
        get("block_count")?,
        get("embedding_length")?,
        get("feed_forward_length")?,
    );

    let (heads, kv_heads) = (
        get("attention.head_count")?,
        get("attention.head_count_kv")?,
    );
    let dim = get("attention.key_length").unwrap_or(hidden / heads);
    let vocabulary = get("vocab_size")?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in row.0["tensor_types"].as_object()? {
        counts.insert(kind.to_uppercase(), count.as_u64()?);
    }

    let small = counts.remove("F32")?;
    let main = counts
        .iter()
        .max_by_key(|(_, count)| **count)
        .map(|(kind, _)| kind.clone())?;

    let of = |kind: &str| {
        Dtype::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name() == kind)
    };

    let dtype = of(&main)?;
    let matrices = counts.remove(&main)?;
    let output = match (matrices.checked_sub(layers * 7 + 1)?, counts.len()) {
        (0, 0) => None,
        (1, 0) => Some(dtype),
        (0, 1) if counts.values().all(|count| *count == 1) => Some(of(counts.keys().next()?)?),
        _ => return None,
    };

    let (queries, keys) = (heads * dim, kv_heads * dim);
    let mut builder = InventoryBuilder::default();
    let mut add = |name: &str, dtype: Dtype, shape: &[u64]| -> Option<()> {
        let bytes = dtype.stored(shape.iter().product())?;
        builder.add("", name, Storage::Known(dtype), shape, bytes);
        Some(())
    };

    add("token_embd.weight", dtype, &[hidden, vocabulary])?;
    if let Some(output) = output {
        add("output.weight", output, &[hidden, vocabulary])?;
    }

    add("output_norm.weight", Dtype::F32, &[hidden])?;
    let mut vectors = 1;

    for layer in 0..layers {
        for (name, rows, columns) in [
            ("attn_q", hidden, queries),
            ("attn_k", hidden, keys),
            ("attn_v", hidden, keys),
            ("attn_output", queries, hidden),
            ("ffn_gate", hidden, wide),
            ("ffn_up", hidden, wide),
            ("ffn_down", wide, hidden),
        ] {
            add(
                &format!("blk.{layer}.{name}.weight"),
                dtype,
                &[rows, columns],
            )?;
        }

        let mut vector = |name: &str, length: u64| {
            vectors += 1;
            add(&format!("blk.{layer}.{name}"), Dtype::F32, &[length])
        };

        vector("attn_norm.weight", hidden)?;
        vector("ffn_norm.weight", hidden)?;

        if family == "qwen2" {
            vector("attn_q.bias", queries)?;
            vector("attn_k.bias", keys)?;
            vector("attn_v.bias", keys)?;
        }

        if family == "qwen3" {
            vector("attn_q_norm.weight", dim)?;
            vector("attn_k_norm.weight", dim)?;
        }
    }

    if small == vectors + 1 {
        add("rope_freqs.weight", Dtype::F32, &[dim / 2])?;
        vectors += 1;
    }

    (small == vectors).then(|| builder.finish())
}

fn parameters(row: &Row) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, key) in [
        ("n_ctx", "n_ctx"),
        ("n_batch", "n_batch"),
        ("n_ubatch", "n_ubatch"),
        ("type_k", "kv_type_k"),
    ] {
        if !row.0[key].is_null() {
            all.insert(name.to_owned(), row.0[key].clone());
        }
    }

    if !row.0["kv_type_v"].is_null() {
        all.insert("type_v".to_owned(), row.0["kv_type_v"].clone());
    }
    // Before llama-server's four slots became the default, every log is of one sequence unless it
    // says otherwise.
    all.insert(
        "n_parallel".to_owned(),
        json!(row.number("n_parallel").unwrap_or(1)),
    );

    let unified =
        row.notes().contains("kv_unified=True") || row.build().is_none_or(|build| build < 5900);
    all.insert("kv_unified".to_owned(), json!(unified));

    if row
        .buffers("kv_buffer_mib")
        .iter()
        .all(|(name, _)| name.contains("CPU") || name.contains("Host"))
        && row.sum("kv_buffer_mib").is_some()
        && row
            .number("layers_offloaded")
            .is_some_and(|count| count > 0)
    {
        all.insert("no_kv_offload".to_owned(), json!(true));
    }

    match &row.0["flash_attn"] {
        // 'auto' has been the default since 2025.
        Value::Null
            if row.build().is_some_and(|build| build >= 10_000)
                || row.text("engine_version") == "62bf73d" => {}
        Value::Null => {
            all.insert("flash_attn".to_owned(), json!(false));
        }
        Value::String(_) => {}
        value => {
            all.insert("flash_attn".to_owned(), value.clone());
        }
    }

    if all
        .get("type_v")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.contains('_'))
    {
        all.insert("flash_attn".to_owned(), json!(true));
    }

    all
}

fn device() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: String::new(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(80),
        reserved_bytes: None,
        compute_capability: Some((8, 9)),
        multiprocessors: None,
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn total(parts: &[Component], name: ComponentName) -> Interval {
    parts
        .iter()
        .filter(|part| part.name == name)
        .map(|part| part.bytes)
        .sum()
}

fn score(row: &Row, corpus: &BTreeMap<String, Inventory>, scores: &mut Scores) {
    let label = row.label();
    let usable = [
        "kv_buffer_mib",
        "recurrent_buffer_mib",
        "compute_buffer_mib",
        "model_buffer_mib",
    ];

    if usable.iter().all(|key| row.0[*key].is_null()) {
        return scores.skip("no buffers: only a total of the whole process", &label);
    }

    if row.text("engine") == "koboldcpp" {
        return scores.skip("koboldcpp of 2023: sums in MB with scratch", &label);
    }

    let (model, in_corpus) = match model(row, corpus) {
        Ok(model) => model,
        Err(why) => return scores.skip(&why, &label),
    };

    if row.number("n_ctx").is_none() {
        return scores.skip("the log does not give n_ctx", &label);
    }

    if row.notes().contains("with MTP") {
        return scores.skip("with a context for multi-token prediction", &label);
    }

    if row.text("engine_version").starts_with("fork") {
        return scores.skip(
            "a fork's llama-bench, whose settings the row does not give",
            &label,
        );
    }

    let (devices, given) = ([device()], parameters(row));

    // Rows that name no build and print no header are of 2026.
    let recent = row
        .build()
        .map_or(row.0["lent"] == Value::Bool(true), |build| build >= 10_450);
    let Ok(version) = (if recent { "b10450" } else { "b4000" }).parse() else {
        return;
    };

    let case = EngineRequest {
        model: &model,
        version: Some(&version),
        parameters: &given,
        asked: AskedWorkload::default(),
        devices: &devices,
    };

    let ready = match LlamaCpp.prepare(&case) {
        Ok(ready) => ready,
        Err(why) => return scores.skip(&why.to_string(), &label),
    };

    let Ok(mut splits) = ready.splits(1) else {
        return scores.skip("no split", &label);
    };

    let split = splits.remove(0);
    let parts = ready.variable(&split, 0, &devices[0], ready.workload());
    let host = ready.host(&split, ready.workload());
    let (mut parts, host) = match (parts, host) {
        (Ok(parts), Ok(host)) => (parts, host),
        (Err(why), _) | (_, Err(why)) => return scores.skip(&why.to_string(), &label),
    };

    // A cache that is kept on the host counts as well.
    parts.extend(
        host.into_iter()
            .filter(|part| part.detail.contains("cache"))
            .map(|part| Component {
                name: ComponentName::KvCache,
                ..part
            }),
    );

    cache(row, &label, &parts, scores);
    states(row, &label, &parts, scores);
    compute(row, &label, &model, &*ready, &split, scores);

    if in_corpus {
        weights(row, &label, &*ready, &split, scores);
    } else if row.sum("model_buffer_mib").is_some() {
        scores.skip("weights: the file's tensors are not in the corpus", &label);
    }
}

/// Why a cache lies otherwise than today's llama.cpp lays it: a name, and what it would be (MiB).
fn explained(row: &Row, parts: &[Component], ours: f64, measured: f64) -> Option<&'static str> {
    let meta = &row.0["gguf_metadata"];
    let cells = row.number("n_ctx").unwrap_or(0);
    let near = |mib: f64| (mib - measured).abs() <= (0.001 * measured).max(0.02);

    if row.text("engine") == "ik_llama.cpp" && row.text("arch").starts_with("deepseek2") {
        return Some("ik_llama.cpp keeps latents in its own ways (mla_attn 1 to 3)");
    }

    let next_token = meta["nextn_predict_layers"].as_u64().unwrap_or(0);
    if row.text("engine") == "ik_llama.cpp"
        && let Some(layers) = meta["block_count"]
            .as_u64()
            .filter(|layers| *layers > next_token)
        && near(ours * layers as f64 / (layers - next_token) as f64)
    {
        return Some("ik_llama.cpp keeps a cache for next-token layers");
    }

    let padded = cells.next_multiple_of(256) as f64;
    if near(ours * cells as f64 / padded) {
        return Some("older builds padded cells to 32");
    }

    let kinds = row.text("kv_type_k") == "f16" && row.text("kv_type_v") == "f16";
    let number = |key: &str| meta[key].as_u64().unwrap_or(0) as f64;
    let rank = number("attention.kv_lora_rank");
    let layers = number("block_count");
    if kinds
        && rank > 0.0
        && near(cells as f64 * layers * 2.0 * (2.0 * rank + number("rope.dimension_count")) / MIB)
    {
        return Some("builds of 2025 kept a value row beside the latent");
    }

    let full = cells as f64 * layers * number("attention.head_count_kv") * 2.0 / MIB
        * (number("attention.key_length") + number("attention.value_length"));
    if kinds && !meta["attention.sliding_window"].is_null() && near(full) {
        return Some("builds before the windowed cache (May 2025) kept all layers whole");
    }

    if total(parts, ComponentName::KvCache).likely == Bytes::ZERO
        && row.build().is_none_or(|build| build < 5700)
    {
        return Some("builds of early 2025 reserved a cache for encoders");
    }

    None
}

fn cache(row: &Row, label: &str, parts: &[Component], scores: &mut Scores) {
    let Some(measured) = row.sum("kv_buffer_mib") else {
        return;
    };

    let ours = total(parts, ComponentName::KvCache);
    let mib = ours.likely.get() as f64 / MIB;
    let exact = (mib - measured).abs() <= (0.001 * measured).max(0.02);

    // The fork prints states inside the cache's buffer.
    let with_states = mib + total(parts, ComponentName::State).likely.get() as f64 / MIB;
    if !exact
        && row.text("engine") == "ik_llama.cpp"
        && (with_states - measured).abs() <= (0.001 * measured).max(0.02)
    {
        return scores.number(
            "cache, MiB (exact to 0.1 %)",
            label,
            measured,
            with_states,
            true,
        );
    }

    if !exact && let Some(why) = explained(row, parts, mib, measured) {
        return scores.skip(&format!("cache: {why}"), label);
    }

    scores.number("cache, MiB (exact to 0.1 %)", label, measured, mib, exact);
}

fn states(row: &Row, label: &str, parts: &[Component], scores: &mut Scores) {
    let Some(measured) = row.sum("recurrent_buffer_mib") else {
        return;
    };

    let mib = total(parts, ComponentName::State).likely.get() as f64 / MIB;
    let rounding = if measured.fract() == 0.0 { 0.5 } else { 0.02 };
    let exact = (mib - measured).abs() <= (0.001 * measured).max(rounding);
    scores.number("states, MiB (exact to 0.1 %)", label, measured, mib, exact);
}

fn weights(row: &Row, label: &str, ready: &dyn PreparedEngine, split: &Split, scores: &mut Scores) {
    let buffers = row.buffers("model_buffer_mib");
    let on_gpus: f64 = buffers
        .iter()
        .filter(|(name, _)| !name.contains("CPU"))
        .map(|(_, mib)| mib)
        .sum();

    let whole = row.number("layers_offloaded").is_some()
        && row.number("layers_offloaded") == row.number("layers_total");
    if !whole || on_gpus == 0.0 {
        return scores.skip("weights: only part of the layers on devices", label);
    }

    let Ok(parts) = ready.fixed(split, 0, &device()) else {
        return;
    };

    let mib = total(&parts, ComponentName::Weights).likely.get() as f64 / MIB;
    scores.number(
        "weights on devices, MiB (0.1 %)",
        label,
        on_gpus,
        mib,
        (mib - on_gpus).abs() <= 0.001 * on_gpus,
    );
}

/// The buffer of the first device, where it can be told what lies there.
fn compute(
    row: &Row,
    label: &str,
    model: &Model,
    ready: &dyn PreparedEngine,
    split: &Split,
    scores: &mut Scores,
) {
    let buffers = row.buffers("compute_buffer_mib");
    if buffers.is_empty() {
        return;
    }

    let device_names = ["CUDA", "ROCm", "Vulkan", "Metal", "SYCL", "CANN", "GPU"];
    let on_devices: Vec<&(&str, f64)> = buffers
        .iter()
        .filter(|(name, _)| {
            !name.contains("Host") && device_names.iter().any(|device| name.starts_with(device))
        })
        .collect();

    if buffers.iter().any(|(name, _)| name.starts_with("Metal")) {
        return scores.skip(
            "compute: Metal keeps no FP16 copies of a quantised cache",
            label,
        );
    }

    if row.text("engine") == "ik_llama.cpp" {
        return scores.skip("compute: the fork ik_llama.cpp has its own graphs", label);
    }

    let on_host: f64 = row
        .buffers("model_buffer_mib")
        .iter()
        .filter(|(name, _)| name.contains("CPU"))
        .map(|(_, mib)| mib)
        .sum();

    let everything = row.sum("model_buffer_mib").unwrap_or(0.0);
    if row
        .buffers("model_buffer_mib")
        .iter()
        .any(|(name, _)| name.contains("_Split"))
    {
        return scores.skip("compute: split by rows", label);
    }

    if row.number("layers_offloaded").is_some()
        && row.number("layers_offloaded") == row.number("layers_total")
        && on_host > 0.4 * everything
    {
        return scores.skip(
            "compute: experts on the host, whose tensors are not in the corpus",
            label,
        );
    }

    if !row.0["tensor_overrides"].is_null() || row.notes().contains("override-tensor") {
        return scores.skip("compute: single tensors were moved by hand", label);
    }

    let whole = row.number("layers_offloaded") == row.number("layers_total");
    match on_devices.as_slice() {
        [] if buffers.len() == 1 => {
            let Ok(parts) = ready.variable(split, 0, &device(), ready.workload()) else {
                return;
            };
            scores.gib(
                "compute buffer, CPU",
                label,
                buffers[0].1 / 1024.0,
                total(&parts, ComponentName::Activations),
                ROUNDING_GIB,
            );
        }
        [(_, measured)] if whole => {
            let Ok(parts) = ready.variable(split, 0, &device(), ready.workload()) else {
                return;
            };

            let ours = total(&parts, ComponentName::Activations);
            scores.gib(
                "compute buffer, one device",
                label,
                measured / 1024.0,
                ours,
                ROUNDING_GIB,
            );
        }
        [(_, measured)] => {
            let layers = model
                .architecture
                .as_ref()
                .map_or(0, hf_mem_core::model::Architecture::layer_count);
            let on_device = row
                .number("layers_offloaded")
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0);
            let host = (layers + 1).saturating_sub(on_device);
            if model.inventory.classes.len() < 2 {
                return scores.skip(
                    "compute: layers on the host, whose tensors are not in the corpus",
                    label,
                );
            }

            let split = Split {
                offload: Offload::Layers { layers: host },
                ..split.clone()
            };

            let Ok(parts) = ready.variable(&split, 0, &device(), ready.workload()) else {
                return;
            };

            let ours = total(&parts, ComponentName::Activations);
            scores.gib(
                "compute buffer, layers on the host",
                label,
                measured / 1024.0,
                ours,
                ROUNDING_GIB,
            );
        }
        several if whole => several_devices(label, several, ready, scores),
        _ => scores.skip("compute: several devices and layers on the host", label),
    }
}

/// Equal shares are near enough: which layers lie where hardly moves the buffer.
fn several_devices(
    label: &str,
    buffers: &[&(&str, f64)],
    ready: &dyn PreparedEngine,
    scores: &mut Scores,
) {
    let count = u32::try_from(buffers.len()).unwrap_or(u32::MAX);
    let Ok(mut splits) = ready.splits(count) else {
        return;
    };

    let split = splits.remove(0);
    for (rank, (name, measured)) in buffers.iter().enumerate() {
        let Ok(parts) = ready.variable(&split, rank, &device(), ready.workload()) else {
            return;
        };

        let ours = total(&parts, ComponentName::Activations);
        scores.gib(
            "compute buffer, several devices",
            &format!("{label} {name}"),
            measured / 1024.0,
            ours,
            ROUNDING_GIB,
        );
    }
}
