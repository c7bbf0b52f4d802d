//! Models of the measured rows: metadata from the log, tensors from described files.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::gguf::{Gguf, Metadata, TablePlace, Value as Held, architecture};
use hf_mem_core::model::tensors::{Inventory, InventoryBuilder, Storage};
use hf_mem_core::model::{Dtype, Format, Model};
use serde_json::Value;

use super::rows::LlamaLogRow;

/// The tensors of the described files, by repository name and quantization.
pub(super) fn described(folder: &Path) -> Result<BTreeMap<String, Inventory>, Box<dyn Error>> {
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
            let dtype = dtype_named(kind).ok_or("unknown dtype")?;

            let bytes = dtype
                .stored(shape.iter().product())
                .ok_or("invalid shape")?;
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

/// The metadata in the log.
pub(super) fn metadata(row: &LlamaLogRow) -> Option<Metadata> {
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
    let mut insert_key = |key: &str, value: Held| {
        all.entry(format!("{family}.{key}")).or_insert(value);
    };

    for (key, value) in logged {
        match value {
            Value::Number(number) if number.is_u64() => {
                insert_key(key, Held::Unsigned(number.as_u64()?));
            }
            Value::Bool(truth) => insert_key(key, Held::Bool(*truth)),
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
            insert_key(key, Held::Unsigned(value));
        }
    }

    Some(Metadata(all))
}

/// The model of a row, and whether its tensors are known.
pub(super) fn model(
    row: &LlamaLogRow,
    corpus: &BTreeMap<String, Inventory>,
) -> Result<(Model, bool), String> {
    // Logs truncate arrays by layer.
    let is_truncated = |key: &str| row.0["gguf_metadata"][key].is_string();
    if is_truncated("attention.head_count_kv") || is_truncated("feed_forward_length") {
        return Err("per-layer arrays are truncated in the log".to_owned());
    }

    let metadata = metadata(row).ok_or("no metadata in the row")?;
    let file = row
        .text("model_file")
        .trim_end_matches(".gguf")
        .to_lowercase();
    let known = corpus.get(&file).cloned();
    let known = known.or_else(|| synthesized(row, &metadata));
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
        table: TablePlace::default(),
    };

    let architecture = architecture(&gguf);
    if let Err(why) = &architecture {
        return Err(why.to_string());
    }

    let model = Model::bare("", Format::Gguf, architecture, gguf.inventory);
    Ok((model, found))
}

/// The tensors of a plain dense model of one dtype.
///
/// Their number must equal the log's counts by dtype: the matrices of each layer, the embedding,
/// and the output if there is one.
pub(super) fn synthesized(row: &LlamaLogRow, metadata: &Metadata) -> Option<Inventory> {
    let family = metadata.text("general.architecture")?;
    if !["llama", "qwen2", "qwen3"].contains(&family)
        || metadata.unsigned(&format!("{family}.expert_count")) > Some(0)
    {
        return None;
    }

    let read_key = |key: &str| metadata.unsigned(&format!("{family}.{key}"));
    let (layers, hidden, wide) = (
        read_key("block_count")?,
        read_key("embedding_length")?,
        read_key("feed_forward_length")?,
    );

    let (heads, kv_heads) = (
        read_key("attention.head_count")?,
        read_key("attention.head_count_kv")?,
    );
    let dim = read_key("attention.key_length").unwrap_or(hidden / heads);
    let vocabulary = read_key("vocab_size")?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in row.0["tensor_types"].as_object()? {
        counts.insert(kind.to_uppercase(), count.as_u64()?);
    }

    let vector_count = counts.remove("F32")?;
    let main = counts
        .iter()
        .max_by_key(|(_, count)| **count)
        .map(|(kind, _)| kind.clone())?;

    let dtype = dtype_named(&main)?;
    let matrices = counts.remove(&main)?;
    let outputs = output_dtypes(dtype, matrices.checked_sub(layers * 7 + 1)?, &counts)?;

    let (queries, keys) = (heads * dim, kv_heads * dim);
    let mut builder = InventoryBuilder::default();
    let mut add_tensor = |name: &str, dtype: Dtype, shape: &[u64]| -> Option<()> {
        let bytes = dtype.stored(shape.iter().product())?;
        builder.add("", name, Storage::Known(dtype), shape, bytes);
        Some(())
    };

    add_tensor("token_embd.weight", dtype, &[hidden, vocabulary])?;
    for output in outputs {
        add_tensor("output.weight", output, &[hidden, vocabulary])?;
    }

    add_tensor("output_norm.weight", Dtype::F32, &[hidden])?;
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
            add_tensor(
                &format!("blk.{layer}.{name}.weight"),
                dtype,
                &[rows, columns],
            )?;
        }

        let mut add_vector = |name: &str, length: u64| {
            vectors += 1;
            add_tensor(&format!("blk.{layer}.{name}"), Dtype::F32, &[length])
        };

        add_vector("attn_norm.weight", hidden)?;
        add_vector("ffn_norm.weight", hidden)?;

        if family == "qwen2" {
            add_vector("attn_q.bias", queries)?;
            add_vector("attn_k.bias", keys)?;
            add_vector("attn_v.bias", keys)?;
        }

        if family == "qwen3" {
            add_vector("attn_q_norm.weight", dim)?;
            add_vector("attn_k_norm.weight", dim)?;
        }
    }

    if vector_count == vectors + 1 {
        add_tensor("rope_freqs.weight", Dtype::F32, &[dim / 2])?;
        vectors += 1;
    }

    (vector_count == vectors).then(|| builder.finish())
}

/// The dtype of the output matrix, or none if the embedding is the output too.
///
/// Returns `None` if the counts do not match.
///
/// `spare` matrices of dtype `main` are neither in a layer nor the embedding; `others` counts the
/// matrices of other dtypes.
fn output_dtypes(main: Dtype, spare: u64, others: &BTreeMap<String, u64>) -> Option<Vec<Dtype>> {
    match (spare, others.len()) {
        (0, 0) => Some(Vec::new()),
        (1, 0) => Some(vec![main]),
        (0, 1) if others.values().all(|count| *count == 1) => {
            Some(vec![dtype_named(others.keys().next()?)?])
        }
        _ => None,
    }
}

fn dtype_named(name: &str) -> Option<Dtype> {
    Dtype::ALL
        .iter()
        .copied()
        .find(|dtype| dtype.name() == name)
}
