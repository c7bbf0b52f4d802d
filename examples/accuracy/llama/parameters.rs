//! Parameters and the device of a measured row.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use serde_json::{Value, json};

use super::rows::LlamaLogRow;

/// llama-server's parameters in a row.
pub(super) fn parameters(row: &LlamaLogRow) -> BTreeMap<String, Value> {
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
    // Logs from before llama-server's default of four slots are of one sequence unless they say
    // otherwise.
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

pub(super) fn device() -> DeviceFacts {
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
